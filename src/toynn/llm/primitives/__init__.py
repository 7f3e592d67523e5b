"""Graph functions (level L1 of the Ruby project toy), built with the code of the per_head layout.

The first argument of each function is a session.
"""

from __future__ import annotations

from dataclasses import dataclass

from toynn.arguments import instance_of, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.parameters import Affine
from toynn.llm.per_head import model
from toynn.llm.per_head.graph import PerHeadGraph
from toynn.llm.rope import Rope
from toynn.tinynn import Session, Tensor

__all__ = ["GqaWeights", "Rope", "gqa", "rms_norm", "rope", "swiglu"]


@dataclass(frozen=True)
class GqaWeights(Initialised):
    """The weights of grouped-query attention.

    w_q: one matrix ne=[d_model, d_head] for each query head.
    w_k, w_v: one matrix ne=[d_model, d_head] for each KV head.
    b_q, b_k, b_v: one bias ne=[d_head] for each of these matrices; None: there are no biases.
    w_o: ne=[n_heads*d_head, d_model].
    """

    w_q: list[Tensor]
    w_k: list[Tensor]
    w_v: list[Tensor]
    b_q: list[Tensor] | None
    b_k: list[Tensor] | None
    b_v: list[Tensor] | None
    w_o: Tensor

    def __post_init__(self) -> None:
        for name in ("w_q", "w_k", "w_v", "b_q", "b_k", "b_v"):
            value = getattr(self, name)
            if not (isinstance(value, list | tuple) or (value is None and name.startswith("b_"))):
                raise TinyNNTypeError(f"{name} must be a list of Tensors, one for each head, got {kind_of(value)}")
        for name in ("q", "k", "v"):
            weights, biases = getattr(self, f"w_{name}"), getattr(self, f"b_{name}")
            if biases is not None and len(biases) != len(weights):
                raise TinyNNValueError(
                    f"b_{name} must have one bias for each of the {len(weights)} heads, got {len(biases)}"
                )
        if len(self.w_k) != len(self.w_v) or not self.w_k or len(self.w_q) % len(self.w_k):
            raise TinyNNValueError(
                "w_k and w_v must have the same number of heads, which must divide the number of heads of w_q, got "
                f"{len(self.w_k)} (w_k), {len(self.w_v)} (w_v) and {len(self.w_q)} (w_q)"
            )


def rms_norm(s: Session, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """Return gamma * x / sqrt(mean(x^2) + eps), column by column. x: ne=[d, T*B], gamma: ne=[d] -> ne=[d, T*B]."""
    return PerHeadGraph(s).rms_norm(x, Affine("gamma", gamma), eps)


def rope(s: Session, x: Tensor, r: Rope) -> Tensor:
    """Return x rotated by the position of each column. x: ne=[d_head, T*B] -> ne=[d_head, T*B]."""
    instance_of("r", r, Rope)
    return PerHeadGraph(s).rope(x, r)


def gqa(s: Session, h: Tensor, w: GqaWeights, r: Rope, mask: Tensor | None) -> Tensor:
    """Return causal attention over the columns of h ne=[d_model, T*B], as `model.attention` does: ne=[d_model, T*B]."""
    instance_of("w", w, GqaWeights)
    instance_of("r", r, Rope)
    q, k, v = _params(w.w_q, w.b_q), _params(w.w_k, w.b_k), _params(w.w_v, w.b_v)
    return model.attention(PerHeadGraph(s), h, q, k, v, Affine("w_o", w.w_o), r, mask)


def swiglu(s: Session, h: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """Return w_down (silu(w_gate h) * (w_up h)). h: ne=[d_model, T*B] -> ne=[d_model, T*B]."""
    gate, up, down = Affine("w_gate", w_gate), Affine("w_up", w_up), Affine("w_down", w_down)
    return model.swiglu(PerHeadGraph(s), h, gate, up, down)


def _params(weights: list[Tensor], biases: list[Tensor] | None) -> list[Affine]:
    heads = enumerate(weights)
    return [Affine("head", weight, None if biases is None else biases[i]) for i, weight in heads]

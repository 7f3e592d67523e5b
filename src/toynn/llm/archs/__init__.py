"""The model from token ids to logits (level L3 of the Ruby project toy), with the code of the per_head layout."""

from __future__ import annotations

from toynn.arguments import instance_of
from toynn.initialised import Initialised
from toynn.llm.parameters import Parameter, Parameters
from toynn.llm.per_head.graph import PerHeadGraph
from toynn.llm.per_head.model import llama
from toynn.llm.rope import Rope
from toynn.model.shape import ModelShape
from toynn.tinynn import Session, Tensor

__all__ = ["LlamaArch"]


class LlamaArch(Initialised):
    """The forward graph of a model whose weights are declared in the per_head layout."""

    def __init__(self, parameters: Parameters, shape: ModelShape) -> None:
        instance_of("parameters", parameters, Parameters)
        instance_of("shape", shape, ModelShape)
        self._parameters, self._shape = parameters, shape

    def trainable(self) -> list[Parameter]:
        """Return the trained weights in the order in which the optimizer updates them."""
        return self._parameters.in_step_order()

    def build(self, s: Session, token_ids: Tensor, r: Rope, mask: Tensor | None) -> dict[str, Tensor]:
        """Build the graph that computes logits from token ids, i32 ne=[T*B]. r, mask: as for
        `toynn.llm.primitives.gqa`.

        Returns activations by name in the order of computation: embed, lens (if any), blk.N.attn_norm, blk.N.ffn,
        blk.N.residual and final_norm, each with T*B columns, and at the end logits, ne=[vocab, T*B].
        """
        instance_of("r", r, Rope)
        g = PerHeadGraph(s)
        llama(g, self._parameters.tree, self._shape, token_ids, r, mask)
        return g.taps

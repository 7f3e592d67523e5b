"""Causal attention with grouped queries: several query heads share one KV head."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toynn.llm.primitives.rope import Rope, rope
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_add,
    tnn_concat_n,
    tnn_diag_mask_inf,
    tnn_matmul,
    tnn_scale,
    tnn_soft_max_ext,
    tnn_softmax,
    tnn_transpose,
)


@dataclass(frozen=True)
class GqaWeights:
    """Per query head w_q, per KV head w_k and w_v, each ne=[d_model, d_head], with biases ne=[d_head] or None; and
    w_o ne=[n_heads*d_head, d_model]."""

    w_q: list[Tensor]
    w_k: list[Tensor]
    w_v: list[Tensor]
    b_q: list[Tensor] | None
    b_k: list[Tensor] | None
    b_v: list[Tensor] | None
    w_o: Tensor


def gqa(s: Session, h: Tensor, w: GqaWeights, r: Rope, mask: Tensor | None) -> Tensor:
    """Attention over the columns of h.

    h: ne=[d_model, T*B]. mask: None for one sequence (B = 1), where a column sees itself and those before it;
    else f32 ne=[T*B keys, T*B queries], added to the scores. Returns ne=[d_model, T*B].
    """
    group = len(w.w_q) // len(w.w_k)
    keys: list[Tensor] = []
    values: list[Tensor] = []
    for kv in range(len(w.w_k)):
        k = rope(s, _linear(s, w.w_k[kv], _bias(w.b_k, kv), h), r)  # ne=[d_head, T*B]
        v = _linear(s, w.w_v[kv], _bias(w.b_v, kv), h)  # ne=[d_head, T*B]
        keys.append(k)
        values.append(tnn_transpose(s, v))  # ne=[T*B, d_head]

    heads: list[Tensor] = []
    for head in range(len(w.w_q)):
        q = rope(s, _linear(s, w.w_q[head], _bias(w.b_q, head), h), r)  # ne=[d_head, T*B]
        scores = tnn_matmul(s, keys[head // group], q)  # ne=[T*B keys, T*B queries]
        attention = _causal_softmax(s, scores, 1.0 / math.sqrt(r.d_head), mask)  # ne=[T*B keys, T*B queries]
        heads.append(tnn_matmul(s, values[head // group], attention))  # ne=[d_head, T*B]

    return tnn_matmul(s, w.w_o, tnn_concat_n(s, heads, 0))  # ne=[d_model, T*B]


def _bias(biases: list[Tensor] | None, head: int) -> Tensor | None:
    return None if biases is None else biases[head]


def _linear(s: Session, w: Tensor, b: Tensor | None, x: Tensor) -> Tensor:
    """w x + b. w: ne=[d_in, d_out], x: ne=[d_in, n], b: None or ne=[d_out]. Returns ne=[d_out, n]."""
    y = tnn_matmul(s, w, x)
    return y if b is None else tnn_add(s, y, b)


def _causal_softmax(s: Session, scores: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Softmax over the keys of each query that it may see. scores: ne=[keys, queries], as is the result."""
    if mask is not None:
        return tnn_soft_max_ext(s, scores, mask, scale, 0.0)
    return tnn_softmax(s, tnn_diag_mask_inf(s, tnn_scale(s, scores, scale), 0))

"""A model of the llama family in the per_head layout.

Shapes are row-major. n = T*B: the tokens of all sequences, one row each. H query heads, H_kv key and value heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from toynn.llm.parameters import Affine, WeightsByKey
from toynn.llm.per_head.graph import PerHeadGraph
from toynn.llm.rope import Rope, rope_of_layer
from toynn.model.shape import ModelShape
from toynn.tinynn import Tensor


def llama(
    g: PerHeadGraph, w: WeightsByKey, shape: ModelShape, token_ids: Tensor, rope: Rope, mask: Tensor | None,
    local_mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the logits (n, vocab) of token ids i32 (n,). mask, local_mask: as for `attention`, for the global and for
    the local layers.
    """
    x = g.tap("embed", g.rows(w.embedding, token_ids))  # (n, d_model), or (n, donor_d_in) under a lens
    if "lens" in w:
        x = g.tap("lens", g.linear(x, w.lens))  # (n, d_model)
    if shape.embedding_scale is not None:
        x = g.tap("scaled_embed", g.scale(x, shape.embedding_scale))  # (n, d_model)
    for i, layer in enumerate(w.layers):
        with g.scope(f"blk.{i}"):
            own_mask = local_mask if shape.is_local(i) else mask
            x = block(g, layer, shape, x, rope_of_layer(rope, shape, i), own_mask)  # (n, d_model)
    x = g.tap("final_norm", g.rms_norm(x, w.output_norm, shape.rms_eps))  # (n, d_model)
    return g.tap("logits", g.linear(x, w.output if "output" in w else w.embedding))  # (n, vocab)


def block(g: PerHeadGraph, w: WeightsByKey, shape: ModelShape, x: Tensor, rope: Rope, mask: Tensor | None) -> Tensor:
    """Return a layer's result for x (n, d_model): attention, then a feed-forward network, each added to its input."""
    norms = HeadNorms(w.q_norm, w.k_norm, shape.rms_eps) if "q_norm" in w else None
    h = g.tap("attn_norm", g.rms_norm(x, w.attn_norm, shape.rms_eps))  # (n, d_model)
    attended = attention(
        g, h, w.heads("q"), w.heads("k"), w.heads("v"), w.o, rope, mask, norms, 1.0 / shape.score_divisor
    )  # (n, d_model)
    if shape.post_norms:
        attended = g.rms_norm(attended, w.attn_post_norm, shape.rms_eps)  # (n, d_model)
    x = g.add(x, attended)  # (n, d_model)
    h = g.rms_norm(x, w.ffn_norm, shape.rms_eps)  # (n, d_model)
    gated = geglu if shape.has_gelu else swiglu
    ffn = g.tap("ffn", gated(g, h, w.gate, w.up, w.down))  # (n, d_model)
    if shape.post_norms:
        ffn = g.rms_norm(ffn, w.ffn_post_norm, shape.rms_eps)  # (n, d_model)
    return g.tap("residual", g.add(x, ffn))  # (n, d_model)


@dataclass(frozen=True)
class HeadNorms:
    """The weights of the norms of each query head and of each key head, f32 (d_head,), and their epsilon."""

    q: Affine
    k: Affine
    eps: float


def attention(
    g: PerHeadGraph, h: Tensor, w_q: Sequence[Affine], w_k: Sequence[Affine], w_v: Sequence[Affine], w_o: Affine,
    rope: Rope, mask: Tensor | None, norms: HeadNorms | None = None, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Return causal attention over the rows of h (n, d_model), where H / H_kv query heads share a KV head.

    mask: None for one sequence, in which a token sees itself and the tokens before it; otherwise f32 (n, n), added to
        the scores.
    norms: the norms of each head of q and k, applied before RoPE; None: the heads are not normalized.
    scale: the factor of the scores; None: 1 / sqrt(d_head).
    """
    scale = 1.0 / math.sqrt(rope.d_head) if scale is None else scale
    keys, values = [], []
    for k, v in zip(w_k, w_v, strict=True):
        key = g.linear(h, k)  # (n, d_head)
        keys.append(g.rope(key if norms is None else g.rms_norm(key, norms.k, norms.eps), rope))  # (n, d_head)
        values.append(g.transpose(g.linear(h, v)))  # (d_head, n)
    heads = []
    for i, q in enumerate(w_q):
        kv = i * len(w_k) // len(w_q)
        query = g.linear(h, q)  # (n, d_head)
        query = g.rope(query if norms is None else g.rms_norm(query, norms.q, norms.eps), rope)  # (n, d_head)
        scores = g.matmul_t(query, keys[kv])  # (n queries, n keys)
        weights = g.causal_softmax(scores, scale, mask)  # (n queries, n keys)
        heads.append(g.matmul_t(weights, values[kv]))  # (n, d_head)
    return g.linear(g.concat(heads), w_o)  # (n, d_model)


def swiglu(g: PerHeadGraph, h: Tensor, w_gate: Affine, w_up: Affine, w_down: Affine) -> Tensor:
    """Return w_down (silu(w_gate h) * (w_up h)) for the rows of h (n, d_model)."""
    gate = g.silu(g.linear(h, w_gate))  # (n, d_ff)
    up = g.linear(h, w_up)  # (n, d_ff)
    return g.linear(g.mul(gate, up), w_down)  # (n, d_model)


def geglu(g: PerHeadGraph, h: Tensor, w_gate: Affine, w_up: Affine, w_down: Affine) -> Tensor:
    """Return w_down (gelu(w_gate h) * (w_up h)) for the rows of h (n, d_model)."""
    gate = g.gelu(g.linear(h, w_gate))  # (n, d_ff)
    up = g.linear(h, w_up)  # (n, d_ff)
    return g.linear(g.mul(gate, up), w_down)  # (n, d_model)

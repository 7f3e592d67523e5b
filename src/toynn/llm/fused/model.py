"""A model of the llama family in the fused layout.

Shapes are row-major. n: the tokens of all sequences, one row each. H query heads, H_kv key and value heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from toynn.llm.fused.graph import FusedGraph
from toynn.llm.parameters import Affine, WeightsByKey
from toynn.llm.rope import Rope, rope_of_layer
from toynn.model.shape import ModelShape
from toynn.tinynn import Tensor


class Context(Protocol):
    """Decides which other tokens a token sees."""

    def attend(self, g: FusedGraph, layer: int, qkv: Tensor, table: Tensor, shape: ModelShape) -> Tensor:
        """Return the attention of a layer: qkv (n, (H + 2 H_kv) d_head), table (n, d_head) -> (n, H d_head)."""
        ...


@dataclass(frozen=True)
class Sequences:
    """Attention in whole sequences of t_seq tokens: each token sees itself and the tokens before it in its sequence.

    starts: for each token, the position of the first token of its sample, i32 (n,). A token then sees only tokens of
    its own sample. None: a sequence is one sample.
    """

    t_seq: int
    starts: Tensor | None = None

    def attend(self, g: FusedGraph, layer: int, qkv: Tensor, table: Tensor, shape: ModelShape) -> Tensor:
        return g.attention(qkv, table, shape, layer, self.t_seq, self.starts)


@dataclass(frozen=True)
class Continuation:
    """Attention of the last tokens of several sequences: each token sees itself and its earlier tokens.

    caches: the keys and values of earlier tokens, one f32 or f16 tensor (rows, 2 H_kv d_head) for each layer.
    n_past: for each sequence, the number of its tokens in the caches, i32 (sequences,).
    first_rows: the first row of each sequence in the caches, rising, i32 (sequences,).
    n_ctx: the largest number of tokens of a sequence.
    """

    caches: list[Tensor]
    n_past: Tensor
    first_rows: Tensor
    n_ctx: int

    def attend(self, g: FusedGraph, layer: int, qkv: Tensor, table: Tensor, shape: ModelShape) -> Tensor:
        return g.attention_cached(
            qkv, table, self.caches[layer], self.n_past, shape, layer, n_ctx=self.n_ctx, first_rows=self.first_rows
        )


def llama(
    g: FusedGraph, w: WeightsByKey, shape: ModelShape, token_ids: Tensor, rope: Rope, context: Context,
    last: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the logits (n, vocab) of token ids i32 (n,). last: the rows that get logits, i32; None: all rows."""
    x = hidden_states(g, w, shape, token_ids, rope, context, last)  # (n, d_model)
    return g.tap("logits", g.linear(x, output_of(w)))  # (n, vocab)


def output_of(w: WeightsByKey) -> Affine:
    """Return the matrix (vocab, d_model) from which the logits are computed."""
    return w.output if "output" in w else w.embedding


def hidden_states(
    g: FusedGraph, w: WeightsByKey, shape: ModelShape, token_ids: Tensor, rope: Rope, context: Context,
    last: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the normalized states (n, d_model) from which `llama`, with the same arguments, computes the logits."""
    ropes = [rope_of_layer(rope, shape, i) for i in range(shape.n_layers)]
    tables = {one: g.rope_table(one) for one in dict.fromkeys(ropes)}  # (n, d_head) each
    x = g.tap("embed", g.rows(w.embedding, token_ids))  # (n, d_model), or (n, donor_d_in) under a lens
    if "lens" in w:
        x = g.tap("lens", g.linear(x, w.lens))  # (n, d_model)
    if shape.embedding_scale is not None:
        x = g.tap("scaled_embed", g.scale(x, shape.embedding_scale))  # (n, d_model)
    for i, layer in enumerate(w.layers):
        with g.scope(f"blk.{i}"):
            h = g.tap("attn_norm", g.rms_norm(x, layer.attn_norm, shape.rms_eps))  # (n, d_model)
            qkv = g.linear(h, layer.q, layer.k, layer.v)  # (n, (H + 2 H_kv) d_head)
            if "q_norm" in layer:
                qkv = g.head_norm(qkv, layer.q_norm, layer.k_norm, shape)  # (n, (H + 2 H_kv) d_head)
            a = context.attend(g, i, qkv, tables[ropes[i]], shape)  # (n, H d_head)
            x = added(g, x, a, layer.o, layer.attn_post_norm if shape.post_norms else None, shape)  # (n, d_model)
            h = g.rms_norm(x, layer.ffn_norm, shape.rms_eps)  # (n, d_model)
            gate_up = g.linear(h, layer.gate, layer.up)  # (n, 2 d_ff)
            y = g.geglu(gate_up) if shape.has_gelu else g.swiglu(gate_up)  # (n, d_ff)
            x = added(g, x, y, layer.down, layer.ffn_post_norm if shape.post_norms else None, shape)  # (n, d_model)
            g.tap("residual", x)
    if last is not None:
        x = g.pick(x, last)  # (rows of last, d_model)
    return g.tap("final_norm", g.rms_norm(x, w.output_norm, shape.rms_eps))  # (n, d_model)


def added(g: FusedGraph, x: Tensor, y: Tensor, w: Affine, norm: Affine | None, shape: ModelShape) -> Tensor:
    """Return x + y W^T (n, d_model) for x (n, d_model) and y (n, d). norm: applied to y W^T first; None: no norm."""
    if norm is None:
        return g.linear(y, w, add=x)
    return g.add(x, g.rms_norm(g.linear(y, w), norm, shape.rms_eps))

"""The transformer block of the fused layout: one weight for each projection, on the shim's kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from toynn.llm.blocks.transformer_block import BlockTaps
from toynn.llm.weights import WeightTable
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_fused_attention,
    tnn_fused_attention_cached,
    tnn_fused_linear,
    tnn_fused_rms_norm,
    tnn_fused_swiglu,
    tnn_tensor_set_name,
)


class Context(Protocol):
    """What a token sees of the others."""

    def attend(self, s: Session, layer: int, qkv: Tensor, cfg: ModelShape) -> Tensor:
        """qkv ne=[(H + 2 H_kv) d_head, rows] of a layer. Returns ne=[H d_head, rows]."""
        ...


@dataclass(frozen=True)
class Sequences:
    """B whole sequences of t_seq tokens, laid flat, and the angles of their positions, ne=[d_head, B*T]."""

    rope_table: Tensor
    t_seq: int

    def attend(self, s: Session, layer: int, qkv: Tensor, cfg: ModelShape) -> Tensor:  # noqa: ARG002
        """Each token sees itself and those before it in its sequence."""
        return tnn_fused_attention(s, qkv, self.rope_table, cfg.n_heads, cfg.n_kv, self.t_seq)


@dataclass(frozen=True)
class Continuation:
    """The last tokens of one sequence: n_past i32 ne=[1] others come before them, whose keys and values the layers'
    caches hold, each ne=[2 H_kv d_head, n_ctx]."""

    rope_table: Tensor
    caches: list[Tensor]
    n_past: Tensor

    def attend(self, s: Session, layer: int, qkv: Tensor, cfg: ModelShape) -> Tensor:
        """Each token sees itself and all before it."""
        return tnn_fused_attention_cached(
            s, qkv, self.rope_table, self.caches[layer], self.n_past, cfg.n_heads, cfg.n_kv
        )


class FusedBlock:
    """Block `index` of a model: declares its weights as blk.<index>.* with llama.cpp's names, then builds its graph.

    It draws what `TransformerBlock` draws, in the same order: head h of attn_q is its rows h*d_head and following.
    """

    def __init__(self, table: WeightTable, index: int, cfg: ModelShape, *, init_scale: float) -> None:
        d_model, d_head, d_ff = cfg.d_model, cfg.head_dim, cfg.d_ff
        std = init_scale / math.sqrt(d_model)
        std_down = init_scale / math.sqrt(d_ff)
        blk = f"blk.{index}"
        self._cfg = cfg
        self._index = index
        self._name = blk

        self._attn_norm = table.vector(f"{blk}.attn_norm.weight", d_model, 1.0)
        self._ffn_norm = table.vector(f"{blk}.ffn_norm.weight", d_model, 1.0)
        heads = {"q": cfg.n_heads, "k": cfg.n_kv, "v": cfg.n_kv}
        self._w_qkv = [
            table.matrix_drawn_by_rows(f"{blk}.attn_{x}.weight", n * d_head, d_model, std) for x, n in heads.items()
        ]
        for head in range(cfg.n_heads):
            table.draw_rows(f"{blk}.attn_q.weight", head * d_head, d_head)
        for head in range(cfg.n_kv):
            table.draw_rows(f"{blk}.attn_k.weight", head * d_head, d_head)
            table.draw_rows(f"{blk}.attn_v.weight", head * d_head, d_head)
        self._w_o = table.matrix(f"{blk}.attn_output.weight", d_model, cfg.n_heads * d_head, std)
        self._w_gate = table.matrix(f"{blk}.ffn_gate.weight", d_ff, d_model, std)
        self._w_up = table.matrix(f"{blk}.ffn_up.weight", d_ff, d_model, std)
        self._w_down = table.matrix(f"{blk}.ffn_down.weight", d_model, d_ff, std_down)
        self._b_qkv: list[Tensor] | None = None
        if cfg.qkv_bias:
            self._b_qkv = [table.vector(f"{blk}.attn_{x}.bias", n * d_head, 0.0) for x, n in heads.items()]

    def build(self, s: Session, x: Tensor, context: Context) -> BlockTaps:
        """x: ne=[d_model, B*T]. The block's result is the taps' residual; ffn, added as it is computed, is None."""
        cfg, name = self._cfg, self._name

        def named(tensor: Tensor, part: str) -> Tensor:
            tnn_tensor_set_name(s, tensor, f"{name}.{part}")  # for profiles
            return tensor

        h = tnn_fused_rms_norm(s, x, self._attn_norm, cfg.rms_eps)  # ne=[d_model, B*T]
        qkv = named(tnn_fused_linear(s, h, self._w_qkv, self._b_qkv), "attn_qkv")  # ne=[(H + 2 H_kv) d_head, B*T]
        a = named(context.attend(s, self._index, qkv, cfg), "attention")  # ne=[H d_head, B*T]
        x = named(tnn_fused_linear(s, a, [self._w_o], add=x), "attn_output")  # ne=[d_model, B*T]
        h2 = named(tnn_fused_rms_norm(s, x, self._ffn_norm, cfg.rms_eps), "ffn_norm")  # ne=[d_model, B*T]
        gate_up = named(tnn_fused_linear(s, h2, [self._w_gate, self._w_up]), "ffn_gate_up")  # ne=[2 d_ff, B*T]
        y = named(tnn_fused_swiglu(s, gate_up), "ffn_swiglu")  # ne=[d_ff, B*T]
        return BlockTaps(h, None, tnn_fused_linear(s, y, [self._w_down], add=x))

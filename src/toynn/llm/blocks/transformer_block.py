"""One pre-norm transformer block: attention, then a gated feed-forward, each on a residual path."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toynn.llm.primitives import GqaWeights, Rope, gqa, rms_norm, swiglu
from toynn.llm.weights import WeightTable
from toynn.model.shape import ModelShape
from toynn.tinynn import Session, Tensor, tnn_add


@dataclass(frozen=True)
class BlockTaps:
    """Activations of a block worth looking at, each ne=[d_model, T*B]; residual is what the block returns.

    ffn is None where it exists only as a part of the residual.
    """

    attn_norm: Tensor
    ffn: Tensor | None
    residual: Tensor


class TransformerBlock:
    """Block `index` of a model: declares its weights as blk.<index>.* when made, then builds its graph."""

    def __init__(self, table: WeightTable, index: int, cfg: ModelShape, *, init_scale: float) -> None:
        d_model, d_head, d_ff = cfg.d_model, cfg.head_dim, cfg.d_ff
        std = init_scale / math.sqrt(d_model)
        std_down = init_scale / math.sqrt(d_ff)
        blk = f"blk.{index}"
        self._eps = cfg.rms_eps

        self._attn_norm = table.vector(f"{blk}.attn_norm.weight", d_model, 1.0)
        self._ffn_norm = table.vector(f"{blk}.ffn_norm.weight", d_model, 1.0)
        w_q = [table.matrix(f"{blk}.attn_q.head_{i}.weight", d_head, d_model, std) for i in range(cfg.n_heads)]
        w_k: list[Tensor] = []
        w_v: list[Tensor] = []
        for i in range(cfg.n_kv):
            w_k.append(table.matrix(f"{blk}.attn_k.head_{i}.weight", d_head, d_model, std))
            w_v.append(table.matrix(f"{blk}.attn_v.head_{i}.weight", d_head, d_model, std))
        w_o = table.matrix(f"{blk}.attn_output.weight", d_model, cfg.n_heads * d_head, std)
        self._w_gate = table.matrix(f"{blk}.ffn_gate.weight", d_ff, d_model, std)
        self._w_up = table.matrix(f"{blk}.ffn_up.weight", d_ff, d_model, std)
        self._w_down = table.matrix(f"{blk}.ffn_down.weight", d_model, d_ff, std_down)

        b_q: list[Tensor] | None = None
        b_k: list[Tensor] | None = None
        b_v: list[Tensor] | None = None
        if cfg.qkv_bias:
            b_q = [table.vector(f"{blk}.attn_q.head_{i}.bias", d_head, 0.0) for i in range(cfg.n_heads)]
            b_k, b_v = [], []
            for i in range(cfg.n_kv):
                b_k.append(table.vector(f"{blk}.attn_k.head_{i}.bias", d_head, 0.0))
                b_v.append(table.vector(f"{blk}.attn_v.head_{i}.bias", d_head, 0.0))
        self._attention = GqaWeights(w_q, w_k, w_v, b_q, b_k, b_v, w_o)

    def build(self, s: Session, x: Tensor, r: Rope, mask: Tensor | None) -> BlockTaps:
        """x: ne=[d_model, T*B]; r and mask as for `gqa`. The block's result is the taps' residual."""
        h = rms_norm(s, x, self._attn_norm, self._eps)  # ne=[d_model, T*B]
        x = tnn_add(s, x, gqa(s, h, self._attention, r, mask))  # ne=[d_model, T*B]
        h2 = rms_norm(s, x, self._ffn_norm, self._eps)  # ne=[d_model, T*B]
        ffn = swiglu(s, h2, self._w_gate, self._w_up, self._w_down)  # ne=[d_model, T*B]
        return BlockTaps(h, ffn, tnn_add(s, x, ffn))

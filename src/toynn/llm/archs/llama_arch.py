"""The llama family: embedding, optional projection lens, blocks, final norm, head."""

from __future__ import annotations

import math
from collections.abc import Callable

from toynn.llm.blocks import BlockTaps, Context, FusedBlock, TransformerBlock
from toynn.llm.primitives import Rope, rms_norm
from toynn.llm.weights import Weight, WeightTable
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_fused_linear,
    tnn_fused_rms_norm,
    tnn_fused_rope_table,
    tnn_get_rows,
    tnn_matmul,
    tnn_tensor_set_name,
)

_EMBEDDING_STD = 0.02


class LlamaArch:
    """A model's weights, declared on the table's session when made, and its forward graph.

    With cfg.donor_d_in > 0 the embedding is a frozen donor of that width, and a trainable projection, the lens, brings
    it to d_model. Without `untied` the head is the embedding.
    """

    def __init__(
        self,
        table: WeightTable,
        cfg: ModelShape,
        *,
        init_scale: float,
        layout: str = "per_head",
    ) -> None:
        self._cfg = cfg
        self._lens: Tensor | None = None
        if cfg.donor_d_in > 0:
            self._token_embd = table.matrix(
                "token_embd.weight", cfg.vocab, cfg.donor_d_in, _EMBEDDING_STD, trainable=False
            )
            self._lens = table.matrix("lens.proj.weight", cfg.d_model, cfg.donor_d_in, 1.0 / math.sqrt(cfg.donor_d_in))
        else:
            self._token_embd = table.matrix("token_embd.weight", cfg.vocab, cfg.d_model, _EMBEDDING_STD)
        self._output_norm = table.vector("output_norm.weight", cfg.d_model, 1.0)
        self._head = self._token_embd
        if cfg.untied:
            self._head = table.matrix("output.weight", cfg.vocab, cfg.d_model, _EMBEDDING_STD)

        self._n_globals = len(table.weights)
        self._blocks: list[TransformerBlock] = []
        self._fused_blocks: list[FusedBlock] = []
        for i in range(cfg.n_layers):
            if layout == "fused":
                self._fused_blocks.append(FusedBlock(table, i, cfg, init_scale=init_scale))
            else:
                self._blocks.append(TransformerBlock(table, i, cfg, init_scale=init_scale))
        self._table = table

    def trainable(self) -> list[Weight]:
        """The trainable weights in the order in which the optimizer steps them: the blocks', then the globals."""
        weights = list(self._table.weights.values())
        in_order = weights[self._n_globals :] + weights[: self._n_globals]
        return [weight for weight in in_order if weight.trainable]

    def build(self, s: Session, token_ids: Tensor, r: Rope, mask: Tensor | None) -> dict[str, Tensor]:
        """The forward graph of the per_head layout. token_ids: i32 ne=[T*B]; r and mask as for `gqa`.

        Returns the activations worth looking at by name, in order: embed, lens (if any), blk.N.attn_norm, blk.N.ffn,
        blk.N.residual, final_norm, each with T*B columns, and last of all logits, ne=[vocab, T*B].
        """
        taps: dict[str, Tensor] = {}
        x = tnn_get_rows(s, self._token_embd, token_ids)  # ne=[d_model or donor_d_in, T*B]
        taps["embed"] = x
        if self._lens is not None:
            x = tnn_matmul(s, self._lens, x)  # ne=[d_model, T*B]
            taps["lens"] = x
        for i, block in enumerate(self._blocks):
            x = _tapped(taps, i, block.build(s, x, r, mask))  # ne=[d_model, T*B]
        x = rms_norm(s, x, self._output_norm, self._cfg.rms_eps)  # ne=[d_model, T*B]
        taps["final_norm"] = x
        taps["logits"] = tnn_matmul(s, self._head, x)  # ne=[vocab, T*B]
        return taps

    def build_fused(
        self,
        s: Session,
        token_ids: Tensor,
        r: Rope,
        context_of: Callable[[Tensor], Context],
        last: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The forward graph of the fused layout; the taps are those of `build` without blk.N.ffn.

        context_of: what tokens see of each other, given the angles of their positions, ne=[d_head, T*B].
        last: i32, the rows that get logits; None for all.
        """
        taps: dict[str, Tensor] = {}
        table = tnn_fused_rope_table(
            s, r.positions, r.freq_factors, r.d_head, r.base, r.scaling.freq_scale, r.scaling.attn_factor
        )  # ne=[d_head, T*B]
        tnn_tensor_set_name(s, table, "rope_table")
        context = context_of(table)
        x = tnn_get_rows(s, self._token_embd, token_ids)  # ne=[d_model or donor_d_in, T*B]
        taps["embed"] = x
        if self._lens is not None:
            x = tnn_fused_linear(s, x, [self._lens])  # ne=[d_model, T*B]
            taps["lens"] = x
        for i, block in enumerate(self._fused_blocks):
            x = _tapped(taps, i, block.build(s, x, context))  # ne=[d_model, T*B]
        if last is not None:
            x = tnn_get_rows(s, x, last)  # ne=[d_model, rows]
        x = tnn_fused_rms_norm(s, x, self._output_norm, self._cfg.rms_eps)  # ne=[d_model, T*B]
        taps["final_norm"] = x
        taps["logits"] = tnn_fused_linear(s, x, [self._head])  # ne=[vocab, T*B]
        return taps


def _tapped(taps: dict[str, Tensor], i: int, block: BlockTaps) -> Tensor:
    """Notes what block i shows, and returns its result."""
    taps[f"blk.{i}.attn_norm"] = block.attn_norm
    if block.ffn is not None:
        taps[f"blk.{i}.ffn"] = block.ffn
    taps[f"blk.{i}.residual"] = block.residual
    return block.residual

"""What of an engine lives as long as its session: the model's weights and the inputs that outlive a graph."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.arguments import IntArray
from toynn.errors import TinyNNValueError
from toynn.llm.archs import LlamaArch
from toynn.llm.engine.inputs import MAX_LAYERS, batch_positions, block_causal_mask
from toynn.llm.options import RecipeOptions
from toynn.llm.weights import WeightTable
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    TNN_F32,
    Session,
    Tensor,
    tnn_finalize_weights,
    tnn_input_1d_f32_persistent,
    tnn_input_1d_i32_persistent,
    tnn_input_2d_f32_persistent,
    tnn_session_set_graph_capacity,
    tnn_tensor_set_name,
    upload_row_major,
)

MAX_GRAPH_NODES = 1 << 21


@dataclass
class Model:
    """A declared model. options have been validated; mask and freq_factors are None where the model needs none."""

    session: Session
    cfg: ModelShape
    options: RecipeOptions
    table: WeightTable
    arch: LlamaArch
    token_ids: Tensor
    positions: IntArray  # 0..T-1 in each sequence
    mask: Tensor | None
    freq_factors: Tensor | None

    @property
    def fused(self) -> bool:
        return self.options.layout == "fused"

    @property
    def rows(self) -> int:
        """T*B."""
        return self.options.t_seq * self.options.t_batch


def declare(session: Session, cfg: ModelShape, options: RecipeOptions) -> Model:
    """Declares all persistent tensors, allocates them and fills those that are not weights."""
    rows = options.t_seq * options.t_batch
    fused = options.layout == "fused"
    capacity = cfg.n_layers * 256 + 256 if fused else cfg.n_layers * cfg.n_heads * 1000 + 65536
    tnn_session_set_graph_capacity(session, min(capacity, MAX_GRAPH_NODES))

    if cfg.n_layers > MAX_LAYERS:
        raise TinyNNValueError(f"n_layers must be at most {MAX_LAYERS}, got {cfg.n_layers}")
    table = WeightTable(session, options.weight_dtype)
    arch = LlamaArch(
        table,
        cfg,
        init_scale=options.init_scale,
        layout=options.layout,
    )
    token_ids = tnn_input_1d_i32_persistent(session, rows)
    tnn_tensor_set_name(session, token_ids, "token_ids")
    mask = freq_factors = None
    if options.t_batch > 1 and not fused:
        mask = tnn_input_2d_f32_persistent(session, rows, rows)  # ne=[T*B keys, T*B queries]
        tnn_tensor_set_name(session, mask, "attn_mask")
    factors = cfg.rope_scaling.freq_factors(cfg.head_dim, cfg.rope_base)
    if factors is not None:
        freq_factors = tnn_input_1d_f32_persistent(session, cfg.head_dim // 2)
        tnn_tensor_set_name(session, freq_factors, "rope_freq_factors")

    tnn_finalize_weights(session)
    if mask is not None:
        upload_row_major(session, mask, block_causal_mask(options.t_seq, options.t_batch))
    if freq_factors is not None and factors is not None:
        upload_row_major(session, freq_factors, factors)
    positions = batch_positions(options.t_seq, options.t_batch)
    return Model(session, cfg, options, table, arch, token_ids, positions, mask, freq_factors)


def require_trainable(weight_dtype: int) -> None:
    """Raises TinyNNValueError for weights that cannot be trained."""
    if weight_dtype != TNN_F32:
        raise TinyNNValueError(
            f"weight_dtype {weight_dtype}: ggml's CPU backward cannot train F16/BF16 tensors; use 0 (F32)"
        )

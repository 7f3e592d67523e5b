"""The fused operators: the shim's own kernels behind ggml's custom-op door, their optimizer, and a step in one call.

Each element of their matrix products is one chain of fused multiply-adds along k, so a row has the same bits in any
batch and at any number of threads. A graph whose loss is `tnn_fused_cross_entropy` is differentiated by the shim;
between its parameters and the loss may stand these operators, `tnn_get_rows`, and `tnn_add` of equal shapes. Errors are
those of the other operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.arguments import boolean, float32, int32, int64, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.tinynn.graph import tnn_graph_n_nodes
from toynn.tinynn.memory import float_array, int_array
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, Tensor, built, handle, handles, optional_handle, status


def _handles(s: Session, name: str, tensors: Sequence[Tensor]) -> tuple[Any, int]:
    """A C array of the handles of a list or tuple of tensors, and how many it holds."""
    found = handles(s, name, tensors)
    return ffi.new("tnn_tensor[]", found), int32(f"len({name})", len(found))


# ---- operators ----


def tnn_fused_linear(
    s: Session,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """The products x W_i^T + b_i of one to three weights, side by side, plus `add`.

    x ne=[k, rows], weights ne=[k, m_i], biases ne=[m_i], add ne=[sum of m_i, rows] -> ne=[sum of m_i, rows].
    """
    w, n = _handles(s, "weights", weights)
    b, n_biases = (ffi.NULL, n) if biases is None else _handles(s, "biases", biases)
    if n_biases != n:
        raise TinyNNValueError(f"biases must be one for each of the {n} weights, got {n_biases}")
    return built(s, lib.tnn_fused_linear, handle(s, "x", x), w, b, n, optional_handle(s, "add", add))


def tnn_fused_rms_norm(s: Session, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over ne0, times gamma ne=[ne0]. x two-dimensional."""
    return built(s, lib.tnn_fused_rms_norm, handle(s, "x", x), handle(s, "gamma", gamma), float32("eps", eps))


def tnn_fused_rope_table(
    s: Session,
    positions: Tensor,
    freq_factors: Tensor | None,
    d_head: int,
    freq_base: float,
    freq_scale: float,
    attn_factor: float,
) -> Tensor:
    """What `tnn_fused_attention` turns heads by.

    positions i32 ne=[rows], freq_factors None or f32 ne=[d_head/2] -> ne=[d_head, rows]: d_head/2 cosines, then as many
    sines, of freq_scale * position * freq_base^(-2 pair / d_head) / freq_factor, times attn_factor.
    """
    return built(
        s,
        lib.tnn_fused_rope_table,
        handle(s, "positions", positions),
        optional_handle(s, "freq_factors", freq_factors),
        int32("d_head", d_head),
        float32("freq_base", freq_base),
        float32("freq_scale", freq_scale),
        float32("attn_factor", attn_factor),
    )


def tnn_fused_attention(s: Session, qkv: Tensor, rope_table: Tensor, n_heads: int, n_kv: int, t_seq: int) -> Tensor:
    """NEOX RoPE, then causal attention within each of the B sequences; scores are scaled by 1/sqrt(d_head).

    qkv ne=[(n_heads + 2 n_kv) d_head, B t_seq]: a token's query heads, key heads, value heads; rope_table
    ne=[d_head, B t_seq] -> ne=[n_heads d_head, B t_seq]. Query head h reads KV head h // (n_heads / n_kv).
    """
    return built(
        s,
        lib.tnn_fused_attention,
        handle(s, "qkv", qkv),
        handle(s, "rope_table", rope_table),
        int32("n_heads", n_heads),
        int32("n_kv", n_kv),
        int64("t_seq", t_seq),
    )


def tnn_fused_attention_cached(
    s: Session, qkv: Tensor, rope_table: Tensor, kv_cache: Tensor, n_past: Tensor, n_heads: int, n_kv: int
) -> Tensor:
    """The same for the last n tokens of one sequence; keys and values of those before are in the cache. Same bits.

    qkv ne=[.., n], rope_table ne=[d_head, n], kv_cache persistent f32 ne=[2 n_kv d_head, n_ctx], n_past i32 ne=[1],
    checked at each compute: from 0 to n_ctx - n. The tokens' keys and values are written behind. No derivative.
    """
    return built(
        s,
        lib.tnn_fused_attention_cached,
        handle(s, "qkv", qkv),
        handle(s, "rope_table", rope_table),
        handle(s, "kv_cache", kv_cache),
        handle(s, "n_past", n_past),
        int32("n_heads", n_heads),
        int32("n_kv", n_kv),
    )


def tnn_fused_swiglu(s: Session, gate_up: Tensor) -> Tensor:
    """silu(gate) * up. gate_up ne=[2 d_ff, rows]: a row's gate, then its up -> ne=[d_ff, rows]."""
    return built(s, lib.tnn_fused_swiglu, handle(s, "gate_up", gate_up))


def tnn_fused_cross_entropy(s: Session, logits: Tensor, targets: Tensor, ignore_id: int) -> Tensor:
    """Mean of -log_softmax(logits)[target] over the rows whose target is not ignore_id, added in f64 in their order.

    logits ne=[vocab, rows], targets i32 ne=[rows] -> ne=[1]. ignore_id must be no token. At each compute every target
    must be a token or ignore_id, and one at least a token: TinyNNValueError.
    """
    return built(
        s,
        lib.tnn_fused_cross_entropy,
        handle(s, "logits", logits),
        handle(s, "targets", targets),
        int32("ignore_id", ignore_id),
    )


# ---- the optimizer: between tnn_build_backward and tnn_realize_backward ----


def tnn_fused_grad_norm(s: Session, grads: Sequence[Tensor], clip: Tensor) -> Tensor:
    """The norm of all gradients together, and what clipping multiplies each by: ne=[2].

    clip f32 ne=[2]: the largest norm (0: no limit), and a factor of every gradient, 1/n for n accumulated steps.
    """
    array, n = _handles(s, "grads", grads)
    return built(s, lib.tnn_fused_grad_norm, array, n, handle(s, "clip", clip))


def tnn_fused_adamw(
    s: Session, w: Tensor, grad: Tensor, m: Tensor, v: Tensor, hp: Tensor, norm: Tensor | None = None
) -> Tensor:
    """`tnn_opt_step_adamw`, bit for bit, on the gradient as `norm`, of `tnn_fused_grad_norm`, clips it.

    A norm that is not finite leaves w, m and v as they are.
    """
    return built(
        s,
        lib.tnn_fused_adamw,
        handle(s, "w", w),
        handle(s, "grad", grad),
        handle(s, "m", m),
        handle(s, "v", v),
        handle(s, "hp", hp),
        optional_handle(s, "norm", norm),
    )


# ---- a step in one call ----


@dataclass(frozen=True, slots=True)
class TrainStep:
    """The tensors of a training graph that `tnn_train_step` feeds and reads: ids and targets i32 ne=[n], hp f32."""

    ids: Tensor
    targets: Tensor
    hp: Tensor
    loss: Tensor
    norm: Tensor | None = None


def tnn_train_step(
    s: Session,
    step: TrainStep,
    ids: npt.ArrayLike,
    targets: npt.ArrayLike,
    hp: npt.ArrayLike,
    *,
    reset_moments: bool = False,
    accumulate: bool = False,
    update: bool = True,
) -> tuple[float, float | None]:
    """Reset, upload, forward, backward and optimizer in one C call. Returns the loss and the norm, None without one.

    Args:
        ids, targets: integers, as many as the tensors hold. hp: real numbers, likewise.
        reset_moments: set the optimizers' moments to zero first.
        accumulate: add to the gradients of the step before; each must be flagged with `tnn_set_output`.
        update: False leaves weights and moments as they are (`tnn_fused_adamw` steps do nothing).

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument, by name, an id or a target out of range.
        SessionError: no realized training graph, or nothing to accumulate on.
    """
    if not isinstance(step, TrainStep):
        raise TinyNNTypeError(f"step must be a TrainStep, got {kind_of(step)}")
    c_step = ffi.new(
        "tnn_step *",
        [
            handle(s, "step.ids", step.ids),
            handle(s, "step.targets", step.targets),
            handle(s, "step.hp", step.hp),
            handle(s, "step.loss", step.loss),
            optional_handle(s, "step.norm", step.norm),
        ],
    )
    # As long as the buffer is: the __array__ of one argument may change the dtype of another, and its size with it.
    c_ids = ffi.from_buffer("int32_t[]", int_array("ids", ids))
    c_targets = ffi.from_buffer("int32_t[]", int_array("targets", targets))
    c_hp = ffi.from_buffer("float[]", float_array("hp", hp))
    if len(c_targets) != len(c_ids):
        raise TinyNNValueError(f"targets must be as many as ids, {len(c_ids)}, got {len(c_targets)}")
    mode = lib.TNN_STEP_RESET_MOMENTS if boolean("reset_moments", reset_moments) else 0
    mode |= lib.TNN_STEP_ACCUMULATE if boolean("accumulate", accumulate) else 0
    mode |= 0 if boolean("update", update) else lib.TNN_STEP_NO_UPDATE
    out = ffi.new("float[2]")
    status(
        s,
        lib.tnn_train_step,
        c_step,
        c_ids,
        c_targets,
        len(c_ids),
        c_hp,
        len(c_hp),
        mode,
        out,
        out + 1,
    )
    return out[0], None if step.norm is None else out[1]


def tnn_compute_profiled(s: Session) -> npt.NDArray[np.float64]:
    """Runs the realized graph node by node; seconds of each node, float64 (n,), in the order of `tnn_graph_node`.

    A compute like `tnn_compute` or `tnn_compute_backward` (which needs a reset before it), with the same results.
    """
    seconds = np.empty(tnn_graph_n_nodes(s), dtype=np.float64)
    status(s, lib.tnn_compute_profiled, ffi.from_buffer("double[]", seconds, require_writable=True), seconds.size)
    return seconds

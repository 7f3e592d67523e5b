"""The operators. Each appends one node, or several, to the graph under construction and returns the result.

All raise TinyNNValueError for shapes and numbers that do not fit, TinyNNTypeError for dtypes, and SessionError for
stale or foreign handles and for building outside a graph; the message names the argument.
"""

from __future__ import annotations

from collections.abc import Sequence

from toynn.arguments import float32, int32, int64
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, Tensor, built, handle, handles, optional_handle

# ---- arithmetic ----


def tnn_matmul(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """a ne=[k, m] (f32, f16 or bf16), b ne=[k, n] f32 -> ne=[m, n]; higher dimensions of a broadcast over b's."""
    return built(s, lib.tnn_matmul, handle(s, "a", a), handle(s, "b", b))


def tnn_add(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """a + b; b repeats to a's shape."""
    return built(s, lib.tnn_add, handle(s, "a", a), handle(s, "b", b))


def tnn_sub(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """a - b; b repeats to a's shape."""
    return built(s, lib.tnn_sub, handle(s, "a", a), handle(s, "b", b))


def tnn_mul(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """a * b, element by element; b repeats to a's shape."""
    return built(s, lib.tnn_mul, handle(s, "a", a), handle(s, "b", b))


def tnn_scale(s: Session, a: Tensor, factor: float) -> Tensor:
    """a * factor."""
    return built(s, lib.tnn_scale, handle(s, "a", a), float32("factor", factor))


def tnn_silu(s: Session, a: Tensor) -> Tensor:
    """a / (1 + exp(-a))."""
    return built(s, lib.tnn_silu, handle(s, "a", a))


def tnn_gelu(s: Session, a: Tensor) -> Tensor:
    """GELU, ggml's tanh approximation. No derivative in ggml."""
    return built(s, lib.tnn_gelu, handle(s, "a", a))


def tnn_tanh(s: Session, a: Tensor) -> Tensor:
    """tanh(a). No derivative in ggml."""
    return built(s, lib.tnn_tanh, handle(s, "a", a))


def tnn_sqrt(s: Session, a: Tensor) -> Tensor:
    """sqrt(a)."""
    return built(s, lib.tnn_sqrt, handle(s, "a", a))


# ---- normalisation and attention ----


def tnn_rms_norm(s: Session, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over ne0, then times gamma ne=[ne0]."""
    return built(s, lib.tnn_rms_norm, handle(s, "x", x), handle(s, "gamma", gamma), float32("eps", eps))


def tnn_layer_norm(s: Session, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over ne0, then times gamma plus beta, ne=[ne0]. No derivative in ggml."""
    return built(
        s,
        lib.tnn_layer_norm,
        handle(s, "x", x),
        handle(s, "gamma", gamma),
        handle(s, "beta", beta),
        float32("eps", eps),
    )


def tnn_softmax(s: Session, a: Tensor) -> Tensor:
    """softmax over ne0."""
    return built(s, lib.tnn_softmax, handle(s, "a", a))


def tnn_soft_max_ext(s: Session, a: Tensor, mask: Tensor | None, scale: float, max_bias: float) -> Tensor:
    """softmax(a*scale + mask) over ne0; mask None or f32 ne=[ne0, >= ne1].

    max_bias > 0 (ALiBi) needs a mask and has no derivative.
    """
    return built(
        s,
        lib.tnn_soft_max_ext,
        handle(s, "a", a),
        optional_handle(s, "mask", mask),
        float32("scale", scale),
        float32("max_bias", max_bias),
    )


def tnn_diag_mask_inf(s: Session, a: Tensor, n_past: int) -> Tensor:
    """-inf where ne0's index > n_past + ne1's index."""
    return built(s, lib.tnn_diag_mask_inf, handle(s, "a", a), int32("n_past", n_past))


def tnn_rope_ext(
    s: Session,
    x: Tensor,
    positions: Tensor,
    freq_factors: Tensor | None,
    n_dims: int,
    mode: int,
    n_ctx_orig: int,
    freq_base: float,
    freq_scale: float,
    ext_factor: float,
    attn_factor: float,
    beta_fast: float,
    beta_slow: float,
) -> Tensor:
    """Rotary positions. x ne=[d, heads, T], positions i32 ne=[T], freq_factors None or f32 ne=[>= n_dims/2];
    mode 0 = normal, 2 = NEOX. Returns x's shape."""
    return built(
        s,
        lib.tnn_rope_ext,
        handle(s, "x", x),
        handle(s, "positions", positions),
        optional_handle(s, "freq_factors", freq_factors),
        int32("n_dims", n_dims),
        int32("mode", mode),
        int32("n_ctx_orig", n_ctx_orig),
        float32("freq_base", freq_base),
        float32("freq_scale", freq_scale),
        float32("ext_factor", ext_factor),
        float32("attn_factor", attn_factor),
        float32("beta_fast", beta_fast),
        float32("beta_slow", beta_slow),
    )


def tnn_flash_attn_ext(
    s: Session,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    max_bias: float,
    logit_softcap: float,
) -> Tensor:
    """q ne=[d, T, h], k ne=[d, S, h_kv], v ne=[dv, S, h_kv], mask None or f16 ne=[S, >= T] -> ne=[dv, h, T].

    No derivative in ggml.
    """
    return built(
        s,
        lib.tnn_flash_attn_ext,
        handle(s, "q", q),
        handle(s, "k", k),
        handle(s, "v", v),
        optional_handle(s, "mask", mask),
        float32("scale", scale),
        float32("max_bias", max_bias),
        float32("logit_softcap", logit_softcap),
    )


# ---- rows ----


def tnn_get_rows(s: Session, table: Tensor, ids: Tensor) -> Tensor:
    """table ne=[d, rows], ids i32 ne=[n] -> ne=[d, n] f32.

    ids must be an input, not computed; its values are checked at each compute.
    """
    return built(s, lib.tnn_get_rows, handle(s, "table", table), handle(s, "ids", ids))


def tnn_set_rows(s: Session, dst: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Writes row i of rows ne=[d, n] to row ids[i] of dst ne=[d, N] and returns a view of dst.

    ids as for tnn_get_rows, and all different.
    """
    return built(s, lib.tnn_set_rows, handle(s, "dst", dst), handle(s, "rows", rows), handle(s, "ids", ids))


# ---- shape ----


def tnn_concat(s: Session, a: Tensor, b: Tensor, dim: int) -> Tensor:
    """a and b, f32, one after the other along dimension dim. The bits of ggml's CONCAT, but differentiable."""
    return built(s, lib.tnn_concat, handle(s, "a", a), handle(s, "b", b), int32("dim", dim))


def tnn_concat_n(s: Session, parts: Sequence[Tensor], dim: int) -> Tensor:
    """As tnn_concat, for one or more tensors."""
    found = handles(s, "parts", parts)
    array = ffi.new("tnn_tensor[]", found)
    return built(s, lib.tnn_concat_n, array, int32("len(parts)", len(found)), int32("dim", dim))


def tnn_transpose(s: Session, a: Tensor) -> Tensor:
    """ne=[m, n] -> ne=[n, m], materialised."""
    return built(s, lib.tnn_transpose, handle(s, "a", a))


def tnn_cont_2d(s: Session, a: Tensor, ne0: int, ne1: int) -> Tensor:
    """A contiguous copy of a, of as many elements, as ne=[ne0, ne1]."""
    return built(s, lib.tnn_cont_2d, handle(s, "a", a), int64("ne0", ne0), int64("ne1", ne1))


def tnn_reshape_2d(s: Session, a: Tensor, ne0: int, ne1: int) -> Tensor:
    """a, contiguous, seen as ne=[ne0, ne1]."""
    return built(s, lib.tnn_reshape_2d, handle(s, "a", a), int64("ne0", ne0), int64("ne1", ne1))


def tnn_reshape_3d(s: Session, a: Tensor, ne0: int, ne1: int, ne2: int) -> Tensor:
    """a, contiguous, seen as ne=[ne0, ne1, ne2]."""
    return built(s, lib.tnn_reshape_3d, handle(s, "a", a), int64("ne0", ne0), int64("ne1", ne1), int64("ne2", ne2))


def tnn_view_1d(s: Session, a: Tensor, ne0: int, offset: int) -> Tensor:
    """ne0 elements of a, contiguous, from a byte offset."""
    return built(s, lib.tnn_view_1d, handle(s, "a", a), int64("ne0", ne0), int64("offset", offset))


def tnn_view_2d(s: Session, a: Tensor, ne0: int, ne1: int, nb1: int, offset: int) -> Tensor:
    """ne=[ne0, ne1] of a, with a row stride nb1 and an offset in bytes."""
    return built(
        s,
        lib.tnn_view_2d,
        handle(s, "a", a),
        int64("ne0", ne0),
        int64("ne1", ne1),
        int64("nb1", nb1),
        int64("offset", offset),
    )


def tnn_cpy(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Writes a into b, converting between floating dtypes; a view of b."""
    return built(s, lib.tnn_cpy, handle(s, "a", a), handle(s, "b", b))


def tnn_cast(s: Session, a: Tensor, dtype: int) -> Tensor:
    """a as TNN_F32, TNN_F16 or TNN_BF16."""
    return built(s, lib.tnn_cast, handle(s, "a", a), int32("dtype", dtype))


# ---- reductions, loss, optimizers ----


def tnn_sum(s: Session, a: Tensor) -> Tensor:
    """Sum of all elements, ne=[1]."""
    return built(s, lib.tnn_sum, handle(s, "a", a))


def tnn_sum_rows(s: Session, a: Tensor) -> Tensor:
    """Sum over ne0, ne=[1, ne1, ...]."""
    return built(s, lib.tnn_sum_rows, handle(s, "a", a))


def tnn_cross_entropy_loss(s: Session, logits: Tensor, labels: Tensor) -> Tensor:
    """logits, labels f32 ne=[vocab, rows] -> ne=[1]: mean over rows of -sum(labels * log_softmax(logits)).

    Reduced as ggml does it with four threads, whatever number of threads computes it: same bits for any thread count.
    """
    return built(s, lib.tnn_cross_entropy_loss, handle(s, "logits", logits), handle(s, "labels", labels))


def tnn_opt_step_adamw(s: Session, w: Tensor, grad: Tensor, m: Tensor, v: Tensor, hp: Tensor) -> Tensor:
    """One AdamW step on the parameter w and its moments m, v, in place.

    hp f32 ne=[7]: alpha, beta1, beta2, eps, weight decay, factor of m, factor of v.
    """
    return built(
        s,
        lib.tnn_opt_step_adamw,
        handle(s, "w", w),
        handle(s, "grad", grad),
        handle(s, "m", m),
        handle(s, "v", v),
        handle(s, "hp", hp),
    )


def tnn_opt_step_sgd(s: Session, w: Tensor, grad: Tensor, hp: Tensor) -> Tensor:
    """One SGD step on the parameter w, in place. hp f32 ne=[2]: alpha, weight decay."""
    return built(s, lib.tnn_opt_step_sgd, handle(s, "w", w), handle(s, "grad", grad), handle(s, "hp", hp))

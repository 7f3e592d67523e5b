# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Each call appends one node, or several, to the graph and returns the result.

All these calls raise TinyNNValueError for wrong shapes and numbers, TinyNNTypeError for wrong dtypes, and SessionError
for stale or foreign handles, or if no graph is being built.
"""

from __future__ import annotations

from collections.abc import Sequence

from toynn.arguments import float32, int32, int64
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle, handles, optional_handle


def tnn_matmul(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Return the product of the tensors a [k, m] (f32, f16, bf16 or quantized) and b [k, n]: [m, n].

    Dimensions 2 and 3 of a are repeated to match those of b.
    """
    return built(s, lib.tnn_matmul, handle(s, "a", a), handle(s, "b", b))


def tnn_add(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Return a + b.

    A smaller b is repeated to the shape of a.
    """
    return built(s, lib.tnn_add, handle(s, "a", a), handle(s, "b", b))


def tnn_sub(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Return a - b.

    A smaller b is repeated to the shape of a.
    """
    return built(s, lib.tnn_sub, handle(s, "a", a), handle(s, "b", b))


def tnn_mul(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Return a * b, element by element.

    A smaller b is repeated to the shape of a.
    """
    return built(s, lib.tnn_mul, handle(s, "a", a), handle(s, "b", b))


def tnn_div(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, element by element.

    A smaller b is repeated to the shape of a; a repeated b has no derivative.
    """
    return built(s, lib.tnn_div, handle(s, "a", a), handle(s, "b", b))


def tnn_out_prod(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Return the product of a [m, k] and b [n, k], summed over k: [m, n].

    Dimensions 2 and 3 of a are repeated to match those of b. The product has no derivative.
    """
    return built(s, lib.tnn_out_prod, handle(s, "a", a), handle(s, "b", b))


def tnn_scale(s: Session, a: Tensor, factor: float) -> Tensor:
    """Return a * factor."""
    return built(s, lib.tnn_scale, handle(s, "a", a), float32("factor", factor))


def tnn_scale_bias(s: Session, a: Tensor, factor: float, bias: float) -> Tensor:
    """Return a * factor + bias."""
    return built(s, lib.tnn_scale_bias, handle(s, "a", a), float32("factor", factor), float32("bias", bias))


def tnn_exp(s: Session, a: Tensor) -> Tensor:
    """Return exp(a)."""
    return built(s, lib.tnn_exp, handle(s, "a", a))


def tnn_neg(s: Session, a: Tensor) -> Tensor:
    """Return -a."""
    return built(s, lib.tnn_neg, handle(s, "a", a))


def tnn_softplus(s: Session, a: Tensor) -> Tensor:
    """Return log(1 + exp(a))."""
    return built(s, lib.tnn_softplus, handle(s, "a", a))


def tnn_sigmoid(s: Session, a: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-a)).

    ggml has no derivative for this operator.
    """
    return built(s, lib.tnn_sigmoid, handle(s, "a", a))


def tnn_detach(s: Session, a: Tensor) -> Tensor:
    """Return the values of the tensor a, without passing a gradient back to it.

    Operators before this tensor that depend on a parameter still need a derivative.
    """
    return built(s, lib.tnn_detach, handle(s, "a", a))


def tnn_swiglu_split(s: Session, gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, element by element.

    gate and up have the same shape.
    """
    return built(s, lib.tnn_swiglu_split, handle(s, "gate", gate), handle(s, "up", up))


def tnn_l2_norm(s: Session, a: Tensor, eps: float) -> Tensor:
    """Return a / max(eps, sqrt(sum of a^2)) over ne0.

    ggml has no derivative for this operator.
    """
    return built(s, lib.tnn_l2_norm, handle(s, "a", a), float32("eps", eps))


def tnn_silu(s: Session, a: Tensor) -> Tensor:
    """Return a / (1 + exp(-a))."""
    return built(s, lib.tnn_silu, handle(s, "a", a))


def tnn_gelu(s: Session, a: Tensor) -> Tensor:
    """Return GELU of the tensor a, in ggml's tanh approximation.

    ggml has no derivative for this operator.
    """
    return built(s, lib.tnn_gelu, handle(s, "a", a))


def tnn_tanh(s: Session, a: Tensor) -> Tensor:
    """Return tanh(a).

    ggml has no derivative for this operator.
    """
    return built(s, lib.tnn_tanh, handle(s, "a", a))


def tnn_sqrt(s: Session, a: Tensor) -> Tensor:
    """Return sqrt(a)."""
    return built(s, lib.tnn_sqrt, handle(s, "a", a))


def tnn_rms_norm(s: Session, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over ne0, times gamma [ne0]."""
    return built(s, lib.tnn_rms_norm, handle(s, "x", x), handle(s, "gamma", gamma), float32("eps", eps))


def tnn_layer_norm(s: Session, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Return (x - mean) / sqrt(variance + eps) over ne0, times gamma [ne0], plus beta [ne0].

    This operator has no derivative.
    """
    return built(
        s,
        lib.tnn_layer_norm,
        handle(s, "x", x),
        handle(s, "gamma", gamma),
        handle(s, "beta", beta),
        float32("eps", eps),
    )


def tnn_softmax(s: Session, a: Tensor) -> Tensor:
    """Return the softmax over ne0."""
    return built(s, lib.tnn_softmax, handle(s, "a", a))


def tnn_soft_max_ext(s: Session, a: Tensor, mask: Tensor | None, scale: float, max_bias: float) -> Tensor:
    """Return softmax(a * scale + mask) over ne0.

    Args:
        mask: [ne0, >= ne1], or None.
        scale: factor of a.
        max_bias: above 0: use ALiBi, which needs a mask and has no derivative.
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
    """Return a copy of the tensor a with -inf in each element whose index in ne0 is greater than n_past + its index in
    ne1.
    """
    return built(s, lib.tnn_diag_mask_inf, handle(s, "a", a), int32("n_past", n_past))


def tnn_rope_ext(
    s: Session,
    x: Tensor,
    positions: Tensor,
    n_dims: int,
    freq_base: float,
    freq_scale: float,
    ext_factor: float,
    attn_factor: float,
    beta_fast: float,
    beta_slow: float,
    freq_factors: Tensor | None = None,
    *,
    mode: int = 2,
    n_ctx_orig: int = 0,
) -> Tensor:
    """Return x with rotary position embeddings, in x's shape.

    Args:
        x: [d, heads, T].
        positions: i32 [T].
        n_dims: number of dimensions that are rotated, at most d.
        freq_base: base of the frequencies.
        freq_scale: factor of the positions.
        ext_factor: above 0: use YaRN.
        attn_factor: factor of the cosines and sines.
        beta_fast: YaRN: pairs that rotate more often than this in n_ctx_orig tokens keep their frequency.
        beta_slow: YaRN: pairs that rotate less often than this in n_ctx_orig tokens are scaled by freq_scale.
        freq_factors: [>= n_dims/2], or None: divisors of the frequencies.
        mode: 2 (NEOX): rotate pairs of elements n_dims/2 apart; 0: rotate pairs of neighbours.
        n_ctx_orig: context length of the original training, for YaRN.
    """
    return built(
        s,
        lib.tnn_rope_ext,
        handle(s, "x", x),
        handle(s, "positions", positions),
        int32("n_dims", n_dims),
        float32("freq_base", freq_base),
        float32("freq_scale", freq_scale),
        float32("ext_factor", ext_factor),
        float32("attn_factor", attn_factor),
        float32("beta_fast", beta_fast),
        float32("beta_slow", beta_slow),
        optional_handle(s, "freq_factors", freq_factors),
        int32("mode", mode),
        int32("n_ctx_orig", n_ctx_orig),
    )


def tnn_get_rows(s: Session, table: Tensor, ids: Tensor) -> Tensor:
    """Return the rows of table [d, rows] at ids i32 [n]: [d, n].

    ids must be an input; each compute checks their values.
    """
    return built(s, lib.tnn_get_rows, handle(s, "table", table), handle(s, "ids", ids))


def tnn_concat(s: Session, a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Return the concatenation of a and b along dimension dim.

    The graph contains two SET operators of ggml instead of CONCAT, because CONCAT has no derivative. The bits are the
    same.
    """
    return built(s, lib.tnn_concat, handle(s, "a", a), handle(s, "b", b), int32("dim", dim))


def tnn_concat_n(s: Session, parts: Sequence[Tensor], dim: int) -> Tensor:
    """Return the concatenation of one or more tensors along dimension dim; see `tnn_concat`."""
    parts_array, n = handles(s, "parts", parts)
    return built(s, lib.tnn_concat_n, parts_array, n, int32("dim", dim))


def tnn_repeat(s: Session, a: Tensor, b: Tensor) -> Tensor:
    """Return the tensor a, repeated to the shape of b.

    Each size of b must be a multiple of the same size of a. The values of b are not read.
    """
    return built(s, lib.tnn_repeat, handle(s, "a", a), handle(s, "b", b))


def tnn_permute(s: Session, a: Tensor, axis0: int, axis1: int, axis2: int, axis3: int) -> Tensor:
    """Return a view of the tensor a, in which dimension i of a is dimension axis_i.

    Most operators need a contiguous tensor: use `tnn_cont_2d`.
    """
    return built(
        s,
        lib.tnn_permute,
        handle(s, "a", a),
        int32("axis0", axis0),
        int32("axis1", axis1),
        int32("axis2", axis2),
        int32("axis3", axis3),
    )


def tnn_set_2d(s: Session, a: Tensor, b: Tensor, nb1: int, offset: int) -> Tensor:
    """Return a copy of the tensor a in which b [ne0, ne1] replaces elements, starting at an offset in bytes.

    In the copy, each row of b begins nb1 bytes after the previous row.
    """
    return built(s, lib.tnn_set_2d, handle(s, "a", a), handle(s, "b", b), int64("nb1", nb1), int64("offset", offset))


def tnn_transpose(s: Session, a: Tensor) -> Tensor:
    """Return the transpose of the tensor a [m, n] as a contiguous tensor [n, m]."""
    return built(s, lib.tnn_transpose, handle(s, "a", a))


def tnn_cont_2d(s: Session, a: Tensor, ne0: int, ne1: int) -> Tensor:
    """Return a contiguous copy of the tensor a as [ne0, ne1], with the same number of elements."""
    return built(s, lib.tnn_cont_2d, handle(s, "a", a), int64("ne0", ne0), int64("ne1", ne1))


def tnn_reshape_2d(s: Session, a: Tensor, ne0: int, ne1: int) -> Tensor:
    """Return a view of the tensor a, which must be contiguous, as [ne0, ne1]."""
    return built(s, lib.tnn_reshape_2d, handle(s, "a", a), int64("ne0", ne0), int64("ne1", ne1))


def tnn_reshape_3d(s: Session, a: Tensor, ne0: int, ne1: int, ne2: int) -> Tensor:
    """Return a view of the tensor a, which must be contiguous, as [ne0, ne1, ne2]."""
    return built(s, lib.tnn_reshape_3d, handle(s, "a", a), int64("ne0", ne0), int64("ne1", ne1), int64("ne2", ne2))


def tnn_view_1d(s: Session, a: Tensor, ne0: int, offset: int) -> Tensor:
    """Return a view of ne0 elements of the tensor a, which must be contiguous.

    The view starts at an offset in bytes.
    """
    return built(s, lib.tnn_view_1d, handle(s, "a", a), int64("ne0", ne0), int64("offset", offset))


def tnn_view_2d(s: Session, a: Tensor, ne0: int, ne1: int, nb1: int, offset: int) -> Tensor:
    """Return a view [ne0, ne1] of the tensor a.

    The view starts at an offset in bytes, and each row begins nb1 bytes after the previous row.
    """
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
    """Convert the tensor a to the floating-point dtype of b, write the result to b, and return a view of b."""
    return built(s, lib.tnn_cpy, handle(s, "a", a), handle(s, "b", b))


def tnn_cast(s: Session, a: Tensor, dtype: int) -> Tensor:
    """Return the tensor a, converted to TNN_F32, TNN_F16 or TNN_BF16."""
    return built(s, lib.tnn_cast, handle(s, "a", a), int32("dtype", dtype))


def tnn_sum(s: Session, a: Tensor) -> Tensor:
    """Return the sum of all elements: [1]."""
    return built(s, lib.tnn_sum, handle(s, "a", a))


def tnn_sum_rows(s: Session, a: Tensor) -> Tensor:
    """Return the sums over ne0: [1, ne1, ...]."""
    return built(s, lib.tnn_sum_rows, handle(s, "a", a))


def tnn_cross_entropy_loss(s: Session, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the rows of -sum(labels * log_softmax(logits)): [1].

    logits and labels have the same shape [vocab, rows]. The rows are added in four parts, as ggml does with four
    threads, so the bits do not depend on the number of threads.
    """
    return built(s, lib.tnn_cross_entropy_loss, handle(s, "logits", logits), handle(s, "labels", labels))


def tnn_opt_step_adamw(s: Session, w: Tensor, grad: Tensor, m: Tensor, v: Tensor, hp: Tensor) -> Tensor:
    """Append one AdamW step on the parameter w and its moments m and v, in place.

    Args:
        w: a parameter.
        grad: its gradient.
        m: first moment.
        v: second moment.
        hp: [7]: learning rate, beta1, beta2, eps, weight decay, factor of m, factor of v.
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
    """Append one SGD step on the parameter w, in place.

    hp [2] holds the learning rate and the weight decay.
    """
    return built(s, lib.tnn_opt_step_sgd, handle(s, "w", w), handle(s, "grad", grad), handle(s, "hp", hp))


def tnn_set_rows(s: Session, dst: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Write row i of rows [d, n] to row ids[i] of dst [d, N], and return a view of dst.

    ids must be an input, and its values must all differ.
    """
    return built(s, lib.tnn_set_rows, handle(s, "dst", dst), handle(s, "rows", rows), handle(s, "ids", ids))


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
    """Return the attention of queries over keys and values, [dv, h, T].

    ggml has no derivative for this operator.

    Args:
        q: [d, T, h].
        k: [d, S, h_kv].
        v: [dv, S, h_kv].
        mask: f16 [S, >= T], or None.
        scale: factor of the scores.
        max_bias: above 0: use ALiBi.
        logit_softcap: above 0: scores x become logit_softcap * tanh(x / logit_softcap).
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

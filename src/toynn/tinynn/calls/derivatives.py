# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""The backward passes of some operators, as ggml's own differentiation uses them. These operators have no derivatives
of their own. Errors are as in the group "operators".
"""

from __future__ import annotations

from toynn.arguments import float32, int32
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle, optional_handle


def tnn_rms_norm_back(s: Session, dy: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return the gradient of x.

    dy is the gradient of x / sqrt(mean(x^2) + eps) over ne0 (`tnn_rms_norm` without gamma).
    """
    return built(s, lib.tnn_rms_norm_back, handle(s, "dy", dy), handle(s, "x", x), float32("eps", eps))


def tnn_softmax_back(s: Session, dy: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the tensor a.

    dy is the gradient of y = softmax(a).
    """
    return built(s, lib.tnn_softmax_back, handle(s, "dy", dy), handle(s, "y", y))


def tnn_silu_back(s: Session, x: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient of x.

    dy is the gradient of silu(x).
    """
    return built(s, lib.tnn_silu_back, handle(s, "x", x), handle(s, "dy", dy))


def tnn_rope_ext_back(
    s: Session,
    dy: Tensor,
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
    """Return the gradient of x.

    dy is the gradient of `tnn_rope_ext`(x) with the same values of the other arguments.

    Args:
        dy: [d, heads, T].
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
        lib.tnn_rope_ext_back,
        handle(s, "dy", dy),
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


def tnn_get_rows_back(s: Session, dy: Tensor, ids: Tensor, table: Tensor) -> Tensor:
    """Return the gradient of table [d, rows].

    dy [d, n] is the gradient of `tnn_get_rows`(table, ids). Only the shape of table is used.
    """
    return built(s, lib.tnn_get_rows_back, handle(s, "dy", dy), handle(s, "ids", ids), handle(s, "table", table))

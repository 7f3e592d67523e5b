# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Convolutions, with strides, paddings and dilations. Errors are as in the group "operators"."""

from __future__ import annotations

from toynn.arguments import int32
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle


def tnn_im2col(
    s: Session, kernel: Tensor, x: Tensor, s0: int, s1: int, p0: int, p1: int, d0: int, d1: int, is_2d: int
) -> Tensor:
    """Return the patches of x that a kernel reads, as rows: [kw kh channels, out_w, out_h, N], or [kw channels, out_w,
    N] in one dimension.

    Only the shape of the kernel is used.

    Args:
        kernel: [kw, kh, channels, ...], or [kw, channels, ...] in one dimension.
        x: [w, h, channels, N], or [w, channels, N] in one dimension.
        s0: stride along w.
        s1: stride along h.
        p0: padding along w.
        p1: padding along h.
        d0: dilation along w.
        d1: dilation along h.
        is_2d: 1: two dimensions; 0: one dimension, so s1, p1 and d1 are ignored.
    """
    return built(
        s,
        lib.tnn_im2col,
        handle(s, "kernel", kernel),
        handle(s, "x", x),
        int32("s0", s0),
        int32("s1", s1),
        int32("p0", p0),
        int32("p1", p1),
        int32("d0", d0),
        int32("d1", d1),
        int32("is_2d", is_2d),
    )


def tnn_conv_1d(s: Session, kernel: Tensor, x: Tensor, s0: int, p0: int, d0: int) -> Tensor:
    """Return the convolution of x: [out_w, out_channels, N].

    The convolution has no derivative, because ggml multiplies f16 patches; `tnn_im2col` followed by `tnn_matmul` has a
    derivative.

    Args:
        kernel: f32 or f16 [kw, channels, out_channels].
        x: [w, channels, N].
        s0: stride.
        p0: padding.
        d0: dilation.
    """
    return built(
        s,
        lib.tnn_conv_1d,
        handle(s, "kernel", kernel),
        handle(s, "x", x),
        int32("s0", s0),
        int32("p0", p0),
        int32("d0", d0),
    )


def tnn_conv_2d(s: Session, kernel: Tensor, x: Tensor, s0: int, s1: int, p0: int, p1: int, d0: int, d1: int) -> Tensor:
    """Return the convolution of x: [out_w, out_h, out_channels, N].

    As in `tnn_conv_1d`, the convolution has no derivative.

    Args:
        kernel: f32 or f16 [kw, kh, channels, out_channels].
        x: [w, h, channels, N].
        s0: stride along w.
        s1: stride along h.
        p0: padding along w.
        p1: padding along h.
        d0: dilation along w.
        d1: dilation along h.
    """
    return built(
        s,
        lib.tnn_conv_2d,
        handle(s, "kernel", kernel),
        handle(s, "x", x),
        int32("s0", s0),
        int32("s1", s1),
        int32("p0", p0),
        int32("p1", p1),
        int32("d0", d0),
        int32("d1", d1),
    )

"""Declaring tensors, flagging and naming them."""

from __future__ import annotations

from toynn.arguments import int32, int64, label
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle, status, string

TNN_F32: int = lib.TNN_F32
TNN_F16: int = lib.TNN_F16
TNN_I32: int = lib.TNN_I32
TNN_BF16: int = lib.TNN_BF16


# ---- persistent tensors: before tnn_finalize_weights, zero until uploaded ----
# All raise TinyNNValueError for a size that is not positive or overflows, SessionError after finalize.


def tnn_input_1d_f32_persistent(s: Session, ne0: int) -> Tensor:
    """A weight, ne=[ne0] f32."""
    return built(s, lib.tnn_input_1d_f32_persistent, int64("ne0", ne0))


def tnn_input_2d_f32_persistent(s: Session, ne0: int, ne1: int) -> Tensor:
    """A weight, ne=[ne0, ne1] f32: a row-major (ne1, ne0) matrix."""
    return built(s, lib.tnn_input_2d_f32_persistent, int64("ne0", ne0), int64("ne1", ne1))


def tnn_input_3d_f32_persistent(s: Session, ne0: int, ne1: int, ne2: int) -> Tensor:
    """A weight, ne=[ne0, ne1, ne2] f32."""
    return built(s, lib.tnn_input_3d_f32_persistent, int64("ne0", ne0), int64("ne1", ne1), int64("ne2", ne2))


def tnn_input_1d_i32_persistent(s: Session, ne0: int) -> Tensor:
    """Ids that outlive the graph, ne=[ne0] i32."""
    return built(s, lib.tnn_input_1d_i32_persistent, int64("ne0", ne0))


def tnn_input_2d_persistent(s: Session, dtype: int, ne0: int, ne1: int) -> Tensor:
    """A weight, ne=[ne0, ne1], of dtype TNN_F32, TNN_F16 or TNN_BF16. Raises TinyNNTypeError for another dtype."""
    return built(s, lib.tnn_input_2d_persistent, int32("dtype", dtype), int64("ne0", ne0), int64("ne1", ne1))


def tnn_finalize_weights(s: Session) -> None:
    """Allocates the weights buffer, once, and zeroes it.

    Raises TinyNNMemoryError, which leaves the session as it was, and SessionError the second time.
    """
    status(s, lib.tnn_finalize_weights)


# ---- inputs of one graph: after tnn_finalize_weights; each must be uploaded before the graph computes ----


def tnn_input_1d_f32(s: Session, ne0: int) -> Tensor:
    """An input of the graph, ne=[ne0] f32."""
    return built(s, lib.tnn_input_1d_f32, int64("ne0", ne0))


def tnn_input_2d_f32(s: Session, ne0: int, ne1: int) -> Tensor:
    """An input of the graph, ne=[ne0, ne1] f32."""
    return built(s, lib.tnn_input_2d_f32, int64("ne0", ne0), int64("ne1", ne1))


def tnn_input_1d_i32(s: Session, ne0: int) -> Tensor:
    """An input of the graph, ne=[ne0] i32."""
    return built(s, lib.tnn_input_1d_i32, int64("ne0", ne0))


def tnn_input_1d_i32_ctx(s: Session, ne0: int) -> Tensor:
    """The reference's second name for `tnn_input_1d_i32`."""
    return built(s, lib.tnn_input_1d_i32_ctx, int64("ne0", ne0))


# ---- flags and names ----


def tnn_set_param(s: Session, t: Tensor) -> None:
    """Makes an f32 input or weight a parameter: it gets a gradient. Raises TinyNNTypeError or TinyNNValueError."""
    status(s, lib.tnn_set_param, handle(s, "t", t))


def tnn_set_loss(s: Session, t: Tensor) -> None:
    """Makes an f32 scalar, made by an operator, the loss. Raises TinyNNValueError for anything else."""
    status(s, lib.tnn_set_loss, handle(s, "t", t))


def tnn_set_output(s: Session, t: Tensor) -> None:
    """Keeps the memory of a computed tensor, so that it can be downloaded."""
    status(s, lib.tnn_set_output, handle(s, "t", t))


def tnn_tensor_set_name(s: Session, t: Tensor, name: str) -> None:
    """Names a tensor: at most 63 bytes of UTF-8, no NUL. Raises TinyNNValueError or TinyNNTypeError."""
    status(s, lib.tnn_tensor_set_name, handle(s, "t", t), label("name", name))


def tnn_tensor_name(s: Session, t: Tensor) -> str:
    """The tensor's name, "" by default."""
    return string(s, lib.tnn_tensor_name, handle(s, "t", t))

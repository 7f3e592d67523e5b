# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Set the role and the name of a tensor."""

from __future__ import annotations

from toynn.arguments import int32, label
from toynn.tinynn.native import lib
from toynn.tinynn.session import Tensor, handle, session_of, status, string


def tnn_set_param(t: Tensor) -> None:
    """Make an f32 input or weight a parameter, which gets a gradient.

    Raises:
        TinyNNTypeError: t is not f32.
        TinyNNValueError: an operator computes t, or t is mapped from a file.
    """
    s = session_of("t", t)
    status(s, lib.tnn_set_param, handle(s, "t", t))


def tnn_set_loss(t: Tensor) -> None:
    """Make t the loss: an f32 scalar that an operator computes.

    Raises:
        TinyNNValueError: t is an input, is not f32, or has more than one element.
    """
    s = session_of("t", t)
    status(s, lib.tnn_set_loss, handle(s, "t", t))


def tnn_set_output(t: Tensor) -> None:
    """Keep the memory of a computed tensor, so that it can be downloaded."""
    s = session_of("t", t)
    status(s, lib.tnn_set_output, handle(s, "t", t))


def tnn_set_recompute(t: Tensor) -> None:
    """Keep t for the backward pass of a fused graph.

    The nodes between two such tensors are not kept: the backward pass computes them again, with the same bits, as far
    as gradients need them.

    Raises:
        TinyNNValueError: t is an input.
    """
    s = session_of("t", t)
    status(s, lib.tnn_set_recompute, handle(s, "t", t))


def tnn_tensor_set_interleaved(t: Tensor, d_head: int) -> None:
    """State that a mapped matrix stores the d_head rows of each head in interleaved order, as llama.cpp does for q and
    k: 0, d_head/2, 1, d_head/2 + 1 and so on.

    After this call, `tnn_fused_linear` uses the rows in the order 0, 1, 2 and so on; other operators and downloads use
    the stored order.

    Raises:
        TinyNNValueError: t is not a mapped matrix, or d_head is odd or does not divide the number of rows.
    """
    s = session_of("t", t)
    status(s, lib.tnn_tensor_set_interleaved, handle(s, "t", t), int32("d_head", d_head))


def tnn_tensor_set_bf16_products(t: Tensor) -> None:
    """Let fused operators round the operands of their products with the matrix t to bfloat16, to nearest even.

    These operands are t, the activations and, in the backward pass, the gradients. The sums and the results are f32,
    and t keeps its values. The call affects operators that are appended later, except `tnn_fused_add_product`.

    Raises:
        TinyNNValueError: t is not a matrix, or an operator computes it.
    """
    s = session_of("t", t)
    status(s, lib.tnn_tensor_set_bf16_products, handle(s, "t", t))


def tnn_tensor_set_name(t: Tensor, name: str) -> None:
    """Name a tensor, in at most 63 bytes of UTF-8."""
    s = session_of("t", t)
    status(s, lib.tnn_tensor_set_name, handle(s, "t", t), label("name", name))


def tnn_tensor_name(t: Tensor) -> str:
    """Return the name of a tensor, "" by default."""
    s = session_of("t", t)
    return string(s, lib.tnn_tensor_name, handle(s, "t", t))

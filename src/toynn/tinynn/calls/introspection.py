# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Inspect tensors and the graph."""

from __future__ import annotations

from toynn.arguments import int32, int64
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle, maybe, number, session_of, string


def tnn_tensor_ne0(t: Tensor) -> int:
    """Return the size of dimension 0, the fastest-varying one."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_ne0, handle(s, "t", t))


def tnn_tensor_ne1(t: Tensor) -> int:
    """Return the size of dimension 1."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_ne1, handle(s, "t", t))


def tnn_tensor_ne2(t: Tensor) -> int:
    """Return the size of dimension 2."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_ne2, handle(s, "t", t))


def tnn_tensor_ne3(t: Tensor) -> int:
    """Return the size of dimension 3."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_ne3, handle(s, "t", t))


def tnn_tensor_nbytes(t: Tensor) -> int:
    """Return the size of the tensor's data in bytes."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_nbytes, handle(s, "t", t))


def tnn_tensor_nelements(t: Tensor) -> int:
    """Return the number of elements."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_nelements, handle(s, "t", t))


def tnn_tensor_dtype(t: Tensor) -> int:
    """Return ggml's id of the dtype: TNN_F32, TNN_F16, TNN_I32 or TNN_BF16."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_dtype, handle(s, "t", t))


def tnn_tensor_flags(t: Tensor) -> int:
    """Return the sum of the flags: 1 input, 2 output, 4 parameter, 8 loss."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_flags, handle(s, "t", t))


def tnn_tensor_op(t: Tensor) -> int:
    """Return ggml's number of the operator that computes the tensor; 0 (NONE) for an input."""
    s = session_of("t", t)
    return number(s, lib.tnn_tensor_op, handle(s, "t", t))


def tnn_tensor_op_name(t: Tensor) -> str:
    """Return ggml's name of the operator that computes the tensor; "NONE" for an input."""
    s = session_of("t", t)
    return string(s, lib.tnn_tensor_op_name, handle(s, "t", t))


def tnn_tensor_src(t: Tensor, i: int) -> Tensor | None:
    """Return operand i of t, or None.

    Raises:
        TinyNNValueError: i is not 0 to 9.
    """
    s = session_of("t", t)
    return maybe(s, lib.tnn_tensor_src, handle(s, "t", t), int32("i", i))


def tnn_graph_n_nodes(s: Session) -> int:
    """Return the number of nodes of the training graph if it is built, else of the forward graph, else 0."""
    return number(s, lib.tnn_graph_n_nodes)


def tnn_graph_node(s: Session, i: int) -> Tensor:
    """Return node i of the graph that `tnn_graph_n_nodes` counts, in the order of computation.

    Raises:
        TinyNNValueError: i is out of range.
    """
    return built(s, lib.tnn_graph_node, int64("i", i))

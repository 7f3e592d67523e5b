"""Running a graph, forward or with its backward, and looking inside it."""

from __future__ import annotations

from toynn.arguments import int32, int64
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle, maybe, number, status, string

# ---- forward ----


def tnn_realize(s: Session, out: Tensor) -> None:
    """Expands the forward graph of out and allocates it; once per graph generation.

    Raises SessionError the second time, TinyNNMemoryError without the memory.
    """
    status(s, lib.tnn_realize, handle(s, "out", out))


def tnn_compute(s: Session) -> None:
    """Runs the forward graph.

    Computes nothing and raises if an input was never uploaded (SessionError) or an id is out of range
    (TinyNNValueError).
    """
    status(s, lib.tnn_compute)


# ---- train ----


def tnn_build_forward_only(s: Session, loss: Tensor) -> None:
    """Expands the forward graph of the loss without allocating it."""
    status(s, lib.tnn_build_forward_only, handle(s, "loss", loss))


def tnn_build_backward(s: Session) -> None:
    """Duplicates the forward graph with gradients (graph b) and lets ggml expand its backward.

    Raises if a node on a gradient path has no derivative in ggml, or graph b would not fit the capacity.
    """
    status(s, lib.tnn_build_backward)


def tnn_tensor_grad(s: Session, t: Tensor) -> Tensor:
    """Gradient of the parameter t in graph b. To download it, flag it as output before `tnn_realize_backward`."""
    return built(s, lib.tnn_tensor_grad, handle(s, "t", t))


def tnn_extend_backward_graph(s: Session, node: Tensor) -> None:
    """Appends an optimizer node to graph b."""
    status(s, lib.tnn_extend_backward_graph, handle(s, "node", node))


def tnn_pin_all_graph_b_nodes(s: Session) -> None:
    """Flags every node of graph b as an output: no memory is shared, everything can be downloaded."""
    status(s, lib.tnn_pin_all_graph_b_nodes)


def tnn_realize_backward(s: Session) -> None:
    """Allocates graph b. Raises TinyNNMemoryError without the memory."""
    status(s, lib.tnn_realize_backward)


def tnn_graph_reset(s: Session) -> None:
    """Gradient of the loss = 1; gradients and the optimizers' moments = 0."""
    status(s, lib.tnn_graph_reset)


def tnn_graph_reset_grads_only(s: Session) -> None:
    """Gradient of the loss = 1; gradients = 0; moments untouched."""
    status(s, lib.tnn_graph_reset_grads_only)


def tnn_compute_backward(s: Session) -> None:
    """Forward, backward, optimizer: one compute. Needs a reset since the last one; raises as `tnn_compute` does."""
    status(s, lib.tnn_compute_backward)


# ---- look inside ----


def tnn_tensor_ne0(s: Session, t: Tensor) -> int:
    """Size of dimension 0, the fastest-varying one."""
    return number(s, lib.tnn_tensor_ne0, handle(s, "t", t))


def tnn_tensor_ne1(s: Session, t: Tensor) -> int:
    """Size of dimension 1."""
    return number(s, lib.tnn_tensor_ne1, handle(s, "t", t))


def tnn_tensor_ne2(s: Session, t: Tensor) -> int:
    """Size of dimension 2."""
    return number(s, lib.tnn_tensor_ne2, handle(s, "t", t))


def tnn_tensor_ne3(s: Session, t: Tensor) -> int:
    """Size of dimension 3."""
    return number(s, lib.tnn_tensor_ne3, handle(s, "t", t))


def tnn_tensor_nbytes(s: Session, t: Tensor) -> int:
    """Bytes of the tensor's data."""
    return number(s, lib.tnn_tensor_nbytes, handle(s, "t", t))


def tnn_tensor_nelements(s: Session, t: Tensor) -> int:
    """Number of elements."""
    return number(s, lib.tnn_tensor_nelements, handle(s, "t", t))


def tnn_tensor_dtype(s: Session, t: Tensor) -> int:
    """ggml's type id: TNN_F32, TNN_F16, TNN_I32, TNN_BF16."""
    return number(s, lib.tnn_tensor_dtype, handle(s, "t", t))


def tnn_tensor_flags(s: Session, t: Tensor) -> int:
    """Flags, or-ed: TNN_FLAG_INPUT 1, TNN_FLAG_OUTPUT 2, TNN_FLAG_PARAM 4, TNN_FLAG_LOSS 8."""
    return number(s, lib.tnn_tensor_flags, handle(s, "t", t))


def tnn_tensor_op_name(s: Session, t: Tensor) -> str:
    """ggml's name of the operator that makes the tensor, "NONE" for inputs."""
    return string(s, lib.tnn_tensor_op_name, handle(s, "t", t))


def tnn_tensor_src(s: Session, t: Tensor, i: int) -> Tensor | None:
    """Operand i (0..9) of t, or None. Raises TinyNNValueError for another i."""
    return maybe(s, lib.tnn_tensor_src, handle(s, "t", t), int32("i", i))


def tnn_graph_n_nodes(s: Session) -> int:
    """Number of nodes of graph b if it is built, else of the forward graph; 0 before either."""
    return number(s, lib.tnn_graph_n_nodes)


def tnn_graph_node(s: Session, i: int) -> Tensor:
    """Node i of that graph, in order of computation. Raises TinyNNValueError out of range."""
    return built(s, lib.tnn_graph_node, int64("i", i))

# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Build, allocate and run a graph with its backward pass and its optimizer."""

from __future__ import annotations

from toynn.arguments import int32, int64
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle, number, optional_handle, status


def tnn_build_forward_only(s: Session, loss: Tensor) -> None:
    """Build the forward graph of the loss without allocating it."""
    status(s, lib.tnn_build_forward_only, handle(s, "loss", loss))


def tnn_build_backward(s: Session) -> None:
    """Build the training graph ("graph b"): a copy of the forward graph with gradients.

    First check that every node between a parameter and the loss has a derivative, and that the graph fits the capacity.
    """
    status(s, lib.tnn_build_backward)


def tnn_tensor_grad(s: Session, t: Tensor) -> Tensor:
    """Return the gradient of a parameter.

    To download the gradient, flag it with `tnn_set_output` before `tnn_realize_backward`.
    """
    return built(s, lib.tnn_tensor_grad, handle(s, "t", t))


def tnn_extend_backward_graph(s: Session, node: Tensor) -> None:
    """Append an optimizer node to the training graph."""
    status(s, lib.tnn_extend_backward_graph, handle(s, "node", node))


def tnn_pin_all_graph_b_nodes(s: Session) -> None:
    """Flag every node of the training graph as an output.

    Then no nodes share memory, and each can be downloaded.
    """
    status(s, lib.tnn_pin_all_graph_b_nodes)


def tnn_realize_backward(s: Session) -> None:
    """Allocate the training graph."""
    status(s, lib.tnn_realize_backward)


def tnn_graph_reset(s: Session) -> None:
    """Set the gradient of the loss to 1, and all other gradients and the moments of the optimizer to 0."""
    status(s, lib.tnn_graph_reset)


def tnn_graph_reset_grads_only(s: Session) -> None:
    """Set the gradient of the loss to 1 and all other gradients to 0; leave the moments as they are."""
    status(s, lib.tnn_graph_reset_grads_only)


def tnn_compute_backward(s: Session) -> None:
    """Run forward, backward and optimizer in one compute.

    Reset the graph before each call. Raises the errors of `tnn_compute`.
    """
    status(s, lib.tnn_compute_backward)


def tnn_continue_step(s: Session, t: Tensor | None = None) -> None:
    """Continue the batch that `tnn_begin_step` has begun: compute until the gradient of t is complete, or until the end
    of the batch if t is left out.

    `tnn_download_window_sum` can read complete gradients before the end of the batch. If the call fails while it
    computes, the batch is abandoned.

    Args:
        t: a parameter, or None.

    Raises:
        SessionError: no batch has been begun.
    """
    status(s, lib.tnn_continue_step, optional_handle(s, "t", t))


def tnn_reserve_batches(s: Session, batches: int) -> None:
    """Allocate the memory that a step of this number of batches needs between its batches.

    Without this call, a step allocates the memory when it needs it.

    Raises:
        SessionError: the gradients are not flagged with `tnn_set_output`.
    """
    status(s, lib.tnn_reserve_batches, int64("batches", batches))


def tnn_gradient_parts(s: Session, t: Tensor) -> int:
    """Return the number of sums over the windows that together form the gradient of a parameter.

    There are 2 sums if the graph uses the parameter in two kinds of operators, for example an embedding that is also
    the output matrix. Otherwise there is 1 sum. The sums are added in their order. Elements of the second sum that are
    0 do not change the first sum.

    Raises:
        SessionError: the training graph is not realized.
    """
    return number(s, lib.tnn_gradient_parts, handle(s, "t", t))


def tnn_gradient_place(s: Session, t: Tensor, part: int) -> int:
    """Return the place of a sum of `tnn_gradient_parts` in a node of `tnn_download_window_sum`: the value of `at` for
    its first element.

    part: the number of the sum, from 0.
    """
    return number(s, lib.tnn_gradient_place, handle(s, "t", t), int32("part", part))

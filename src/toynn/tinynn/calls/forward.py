# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Allocate and run a graph without gradients."""

from __future__ import annotations

from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, handle, status


def tnn_realize(s: Session, out: Tensor) -> None:
    """Build the forward graph of out and allocate it.

    A second call is allowed only after `tnn_reset_for_rebuild`.
    """
    status(s, lib.tnn_realize, handle(s, "out", out))


def tnn_add_to_graph(s: Session, t: Tensor) -> None:
    """Add a node to the forward graph, although the result of the graph does not depend on the node: for example a
    `tnn_cpy` into a weight.

    Make this call before `tnn_realize`, once for each such node. These nodes are computed first, in the order of the
    calls.
    """
    status(s, lib.tnn_add_to_graph, handle(s, "t", t))


def tnn_compute(s: Session) -> None:
    """Run the forward graph.

    If the call raises an error, nothing was computed.

    Raises:
        SessionError: an input was never uploaded.
        TinyNNValueError: an id is out of range.
    """
    status(s, lib.tnn_compute)


def tnn_realize_b(s: Session, out: Tensor) -> None:
    """Build a second forward graph, which computes out, from nodes appended before or after `tnn_realize`.

    Nothing can be appended after this call. Only one of the two graphs has memory at a time; at the start, the first
    graph has it.
    """
    status(s, lib.tnn_realize_b, handle(s, "out", out))


def tnn_switch_a(s: Session) -> None:
    """Give the memory to the first forward graph.

    All inputs and results lose their values, so upload the inputs of the first graph before its next compute. Weights
    keep their values. If the first graph already has the memory, the call does nothing.
    """
    status(s, lib.tnn_switch_a)


def tnn_switch_b(s: Session) -> None:
    """Give the memory to the second forward graph, as `tnn_switch_a` does."""
    status(s, lib.tnn_switch_b)


def tnn_compute_b(s: Session) -> None:
    """Run the second forward graph.

    Raises the errors of `tnn_compute`.
    """
    status(s, lib.tnn_compute_b)

# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""A session owns the weights, and one graph at a time over them."""

from __future__ import annotations

from toynn.arguments import int64
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, number, status, string


def tnn_session_set_graph_capacity(s: Session, n_nodes: int) -> None:
    """Set the number of nodes that a graph may have, forward and backward together: 16384 by default, at most 2^21.

    Raises:
        SessionError: tensors of a graph exist. Set the capacity before the first tensor of a graph, or right after
        `tnn_reset_for_rebuild`.
    """
    status(s, lib.tnn_session_set_graph_capacity, int64("n_nodes", n_nodes))


def tnn_session_graph_capacity(s: Session) -> int:
    """Return the number of nodes that a graph may have."""
    return number(s, lib.tnn_session_graph_capacity)


def tnn_session_set_windows(s: Session, n: int, first: int) -> None:
    """Divide the rows of each batch of the fused operators into n windows of equal size: 1 by default.

    A gradient and a loss are added up in each window first. Then the sums of the windows are added as a binary tree
    over the numbers of the windows in the step, so the bits do not depend on the sizes of the batches
    (`tnn_train_step`). This session computes some windows of each step, or all of them. first: the number of the first
    window that this session computes.

    Raises:
        SessionError: tensors of a graph exist, as for `tnn_session_set_graph_capacity`.
    """
    status(s, lib.tnn_session_set_windows, int64("n", n), int64("first", first))


def tnn_backend_name(s: Session) -> str:
    """Return the name of the backend that computes: "CPU"."""
    return string(s, lib.tnn_backend_name)


def tnn_session_n_threads(s: Session) -> int:
    """Return the number of threads that compute."""
    return number(s, lib.tnn_session_n_threads)


def tnn_session_weights_nbytes(s: Session) -> int:
    """Return the size of the weights buffer in bytes, without caches and mapped weights; 0 before the buffer is
    allocated.
    """
    return number(s, lib.tnn_session_weights_nbytes)


def tnn_session_compute_nbytes(s: Session) -> int:
    """Return the size of the realized graph's compute buffer in bytes; 0 before a graph is realized."""
    return number(s, lib.tnn_session_compute_nbytes)

# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Allocate and run a graph without gradients."""

from __future__ import annotations

from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, handle, status


def tnn_realize(s: Session, out: Tensor) -> None:
    """Expand the forward graph of out and allocate it.

    This can be done once, until `tnn_reset_for_rebuild`.
    """
    status(s, lib.tnn_realize, handle(s, "out", out))


def tnn_compute(s: Session) -> None:
    """Run the forward graph.

    If it raises, nothing was computed.

    Raises:
        SessionError: an input was never uploaded.
        TinyNNValueError: an id is out of range.
    """
    status(s, lib.tnn_compute)

# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Copy values between arrays and tensors. ne0 varies fastest. n must be the tensor's number of elements."""

from __future__ import annotations

from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, handle, status


def tnn_zero_tensor(s: Session, t: Tensor) -> None:
    """Set all elements to zero."""
    status(s, lib.tnn_zero_tensor, handle(s, "t", t))

"""tnn_fused_linear, which is written by hand because its arguments do not fit the generator."""

from __future__ import annotations

from collections.abc import Sequence

from toynn.errors import TinyNNValueError
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, Tensor, built, handle, handles, optional_handle

__all__ = ["tnn_fused_linear"]


def tnn_fused_linear(
    s: Session,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """Return the products x W_i^T + b_i of one to three weights, side by side, plus add: [sum of m_i, rows].

    Args:
        x: [k, rows].
        weights: one to three matrices of shape [k, m_i].
        biases: None, or one bias of shape [m_i] for each weight.
        add: [sum of m_i, rows], or None.
    """
    w, n = handles(s, "weights", weights)
    b, n_biases = (ffi.NULL, n) if biases is None else handles(s, "biases", biases)
    if n_biases != n:
        raise TinyNNValueError(f"biases must have one tensor for each of the {n} weights, got {n_biases} tensors")
    return built(s, lib.tnn_fused_linear, handle(s, "x", x), w, b, n, optional_handle(s, "add", add))

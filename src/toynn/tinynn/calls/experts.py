# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Sorting and routing, for mixtures of experts. Errors are as in the group "operators"."""

from __future__ import annotations

from toynn.arguments import int32
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle


def tnn_argsort(s: Session, a: Tensor, order: int) -> Tensor:
    """Return the order of the elements of each row, i32 in the shape of a: order 0 is ascending, 1 is descending.

    Equal elements keep their order, and NaN comes last.
    """
    return built(s, lib.tnn_argsort, handle(s, "a", a), int32("order", order))


def tnn_top_k(s: Session, a: Tensor, k: int) -> Tensor:
    """Return the places of the k largest elements of each row, i32 [k, ...], the largest first.

    NaN comes last.
    """
    return built(s, lib.tnn_top_k, handle(s, "a", a), int32("k", k))


def tnn_mul_mat_id(s: Session, matrices: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """Return the products of b with the matrices that ids select: [m, n_used, T].

    This operator has no derivative.

    Args:
        matrices: [k, m, n_experts], with a dtype that `tnn_matmul` accepts for a.
        b: [k, n_used or a divisor of it, T].
        ids: i32 [n_used, T]: an input, or a result of `tnn_argsort` or `tnn_top_k`.
    """
    return built(s, lib.tnn_mul_mat_id, handle(s, "matrices", matrices), handle(s, "b", b), handle(s, "ids", ids))


def tnn_add_id(s: Session, a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """Return the sum of each row (i, t) of the tensor a and row ids[i, t] of b.

    This operator has no derivative.

    Args:
        a: [d, n_used, T].
        b: [d, n_experts].
        ids: i32 [n_used, T], as for `tnn_mul_mat_id`.
    """
    return built(s, lib.tnn_add_id, handle(s, "a", a), handle(s, "b", b), handle(s, "ids", ids))

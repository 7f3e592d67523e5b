"""Rotary position embedding, NEOX style: element i turns with element i + d_head/2."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.model.config import RopeScaling
from toynn.tinynn import Session, Tensor, tnn_reshape_2d, tnn_reshape_3d, tnn_rope_ext, tnn_tensor_ne1

_NEOX = 2
_N_CTX_ORIG = 0


@dataclass(frozen=True)
class Rope:
    """How to rotate: positions i32 ne=[T*B], the head's size, the base, the scaling and, where it has any, its
    frequency factors f32 ne=[d_head/2]."""

    positions: Tensor
    d_head: int
    base: float
    scaling: RopeScaling
    freq_factors: Tensor | None


def rope(s: Session, x: Tensor, r: Rope) -> Tensor:
    """x rotated by the position of its column. x: ne=[d_head, T*B]. Returns ne=[d_head, T*B]."""
    columns = tnn_tensor_ne1(s, x)
    x = tnn_reshape_3d(s, x, r.d_head, 1, columns)  # ne=[d_head, 1, T*B]
    x = tnn_rope_ext(
        s,
        x,
        r.positions,
        r.freq_factors,
        r.d_head,
        _NEOX,
        _N_CTX_ORIG,
        r.base,
        r.scaling.freq_scale,
        r.scaling.ext_factor,
        r.scaling.attn_factor,
        r.scaling.beta_fast,
        r.scaling.beta_slow,
    )
    return tnn_reshape_2d(s, x, r.d_head, columns)  # ne=[d_head, T*B]

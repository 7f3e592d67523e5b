"""Tensors of sessions from numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toynn import Session, Tensor
from toynn import tinynn as nn

Array = npt.NDArray[np.float64]


Ids = npt.NDArray[np.int32]


def declare(s: Session, array: npt.NDArray[Any]) -> Tensor:
    ne = array.shape[::-1]
    if array.dtype == np.int32:
        return nn.tnn_input_1d_i32_persistent(s, ne[0])
    if len(ne) == 1:
        return nn.tnn_input_1d_f32_persistent(s, ne[0])
    if len(ne) == 2:
        return nn.tnn_input_2d_f32_persistent(s, ne[1], ne[0])
    return nn.tnn_input_3d_f32_persistent(s, ne[2], ne[1], ne[0])


def fill(s: Session, t: Tensor, array: npt.NDArray[Any]) -> None:
    if array.dtype == np.int32:
        nn.upload_int_array(s, t, array)
    else:
        nn.tnn_upload_from_float_array(s, t, array)


def row_major_shape(t: Tensor) -> tuple[int, ...]:
    return t.ne[::-1]

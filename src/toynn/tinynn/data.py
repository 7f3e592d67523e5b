"""Copy data between numpy arrays and tensors. A row-major (rows, cols) matrix is a tensor of shape [cols, rows]."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray, int64
from toynn.errors import SessionError, TinyNNValueError
from toynn.tinynn.arrays import float_array, int_array
from toynn.tinynn.memory import new_array
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, Tensor, handle, status

__all__ = [
    "download_row_major",
    "tnn_download",
    "tnn_download_to_int_array",
    "tnn_upload_from_float_array",
    "tnn_upload_from_int_array",
    "upload_int_array",
    "upload_row_major",
]


def tnn_upload_from_float_array(s: Session, t: Tensor, data: npt.ArrayLike) -> None:
    """Upload real numbers to an f32, f16 or bf16 tensor with the same number of elements. Dimension ne0 varies fastest.

    `data` is any array-like of floating or integer dtype, of any shape. It is rounded to f32 and then to the tensor's
    dtype.

    Raises:
        TinyNNValueError: `data` has another number of elements than the tensor, or a number that does not fit f32.
        TinyNNTypeError: `data` or the tensor has another dtype.
        SessionError: the handle is stale or foreign, or the tensor has no memory yet.
    """
    t_handle = handle(s, "t", t)
    buffer = ffi.from_buffer("float[]", float_array("data", data, size_of(t)))
    status(s, lib.tnn_upload_from_float_array, t_handle, buffer, len(buffer))


def tnn_upload_from_int_array(s: Session, t: Tensor, data: npt.ArrayLike) -> None:
    """Upload integers to an i32 tensor with the same number of elements. Dimension ne0 varies fastest.

    Raises as `tnn_upload_from_float_array` does.
    """
    _upload_integers(s, t, "data", data)


def upload_int_array(s: Session, t: Tensor, ids: npt.ArrayLike) -> None:
    """Upload integers as `tnn_upload_from_int_array` does; errors name them `ids`."""
    _upload_integers(s, t, "ids", ids)


def _upload_integers(s: Session, t: Tensor, name: str, values: npt.ArrayLike) -> None:
    t_handle = handle(s, "t", t)
    buffer = ffi.from_buffer("int32_t[]", int_array(name, values, size_of(t)))
    status(s, lib.tnn_upload_from_int_array, t_handle, buffer, len(buffer))


def tnn_download(s: Session, t: Tensor) -> FloatArray:
    """Return the elements of an f32, f16 or bf16 tensor as float32 (n,). Dimension ne0 varies fastest.

    Raises:
        TinyNNTypeError: the tensor is i32.
        SessionError: the handle is stale or foreign, the tensor has no memory yet, or it is the result of an operator
            and was not flagged with `tnn_set_output`.
    """
    t_handle = handle(s, "t", t)
    n = math.prod(t.ne)
    array = new_array("t", n, np.float32, f"{n} elements")
    status(s, lib.tnn_download, t_handle, ffi.from_buffer("float[]", array, require_writable=True), n)
    return array


def tnn_download_to_int_array(s: Session, t: Tensor) -> IntArray:
    """Return the elements of an i32 tensor as int32 (n,). Raises as `tnn_download` does."""
    t_handle = handle(s, "t", t)
    n = math.prod(t.ne)
    array = new_array("t", n, np.int32, f"{n} elements")
    status(s, lib.tnn_download_to_int_array, t_handle, ffi.from_buffer("int32_t[]", array, require_writable=True), n)
    return array


def upload_row_major(s: Session, t: Tensor, m: npt.ArrayLike) -> None:
    """Upload a row-major matrix (rows, cols) to a tensor of shape [cols, rows].

    If the tensor has more dimensions, rows is ne1 * ne2 * ne3. A tensor of one row accepts m of shape (cols,) as well.

    Raises:
        TinyNNValueError: m has another shape, or contains a number that does not fit f32.
        TinyNNTypeError: m does not have a real floating or integer dtype, or the tensor is i32.
    """
    t_handle = handle(s, "t", t)
    array = float_array("m", m, size_of(t))
    rows, cols = _rows_cols(t)
    if array.shape != (rows, cols) and not (rows == 1 and array.shape == (cols,)):
        raise TinyNNValueError(f"m must have shape ({rows}, {cols}), that of {t!r}, got {array.shape}")
    buffer = ffi.from_buffer("float[]", array)
    status(s, lib.tnn_upload_from_float_array, t_handle, buffer, len(buffer))


def download_row_major(s: Session, t: Tensor, rows: int, cols: int) -> FloatArray:
    """Return a tensor of shape [cols, rows] as float32 (rows, cols). If it has more dimensions, rows is ne1 * ne2 *
    ne3.

    Raises:
        TinyNNValueError: rows or cols differ from the tensor's.
        TinyNNTypeError, SessionError: as `tnn_download` does.
    """
    handle(s, "t", t)
    want = (int64("rows", rows), int64("cols", cols))
    have = _rows_cols(t)
    if want != have:
        wrong = "rows" if want[0] != have[0] else "cols"
        raise TinyNNValueError(f"{wrong}: rows and cols must be {have}, those of {t!r}, got {want}")
    return tnn_download(s, t).reshape(want)


def size_of(t: Tensor) -> int:
    """Return the number of elements, or 0 for a stale handle: the C call that follows reports it."""
    try:
        return math.prod(t.ne)
    except SessionError:
        return 0


def _rows_cols(t: Tensor) -> tuple[int, int]:
    ne = t.ne
    return math.prod(ne[1:]), ne[0]

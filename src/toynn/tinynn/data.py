"""Moving data between numpy arrays and tensors. A row-major (rows, cols) matrix is a tensor with ne = [cols, rows]."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray, int64
from toynn.errors import TinyNNValueError
from toynn.tinynn.graph import tnn_tensor_nelements
from toynn.tinynn.memory import float_array, int_array, new_array
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, Tensor, handle, status


def tnn_upload_from_float_array(s: Session, t: Tensor, data: npt.ArrayLike) -> None:
    """Copies real numbers, ne0 fastest, into an f32, f16 or bf16 tensor of as many elements.

    `data`: any array-like of floating or integer dtype, of any shape; rounded to f32 and on to the tensor's dtype.

    Raises:
        TinyNNValueError: the number of elements differs, or a number does not fit f32.
        TinyNNTypeError: `data` or the tensor is of another dtype.
        SessionError: a stale or foreign handle, or a tensor without memory yet.
    """
    t_handle = handle(s, "t", t)
    buffer = ffi.from_buffer("float[]", float_array("data", data))
    status(s, lib.tnn_upload_from_float_array, t_handle, buffer, len(buffer))


def tnn_upload_from_int_array(s: Session, t: Tensor, data: npt.ArrayLike) -> None:
    """Copies integers, ne0 fastest, into an i32 tensor of as many elements; raises as the float call does."""
    t_handle = handle(s, "t", t)
    buffer = ffi.from_buffer("int32_t[]", int_array("data", data))
    status(s, lib.tnn_upload_from_int_array, t_handle, buffer, len(buffer))


def tnn_download(s: Session, t: Tensor) -> FloatArray:
    """The elements of an f32, f16 or bf16 tensor as float32 (n,), ne0 fastest.

    Raises:
        TinyNNTypeError: the tensor is i32.
        SessionError: a stale or foreign handle, no memory yet, or a computed tensor not flagged as output.
    """
    t_handle = handle(s, "t", t)
    n = tnn_tensor_nelements(s, t)
    array = new_array("t", n, np.float32, f"{n} elements")
    status(s, lib.tnn_download, t_handle, ffi.from_buffer("float[]", array, require_writable=True), array.size)
    return array


def tnn_download_to_int_array(s: Session, t: Tensor) -> IntArray:
    """The elements of an i32 tensor as int32 (n,); raises as `tnn_download` does."""
    t_handle = handle(s, "t", t)
    n = tnn_tensor_nelements(s, t)
    array = new_array("t", n, np.int32, f"{n} elements")
    buffer = ffi.from_buffer("int32_t[]", array, require_writable=True)
    status(s, lib.tnn_download_to_int_array, t_handle, buffer, array.size)
    return array


def tnn_zero_tensor(s: Session, t: Tensor) -> None:
    """Sets all elements to zero."""
    status(s, lib.tnn_zero_tensor, handle(s, "t", t))


def upload_int_array(s: Session, t: Tensor, ids: npt.ArrayLike) -> None:
    """Copies integers into an i32 tensor, as `tnn_upload_from_int_array` does, but names them `ids`."""
    t_handle = handle(s, "t", t)
    buffer = ffi.from_buffer("int32_t[]", int_array("ids", ids))
    status(s, lib.tnn_upload_from_int_array, t_handle, buffer, len(buffer))


def upload_row_major(s: Session, t: Tensor, m: npt.ArrayLike) -> None:
    """Copies a row-major matrix (rows, cols) into a tensor with ne = [cols, rows].

    For a tensor of higher dimension, rows counts all of ne1*ne2*ne3. A tensor of one row also takes m of shape (cols,).

    Raises:
        TinyNNValueError: another shape, or a number that does not fit f32.
        TinyNNTypeError: m is not of a real floating or integer dtype, or the tensor is i32.
    """
    t_handle = handle(s, "t", t)
    array = float_array("m", m)
    rows, cols = _rows_cols(t)
    if array.shape != (rows, cols) and not (rows == 1 and array.shape == (cols,)):
        raise TinyNNValueError(f"m has shape {array.shape}, but {t!r} takes ({rows}, {cols})")
    buffer = ffi.from_buffer("float[]", array)
    status(s, lib.tnn_upload_from_float_array, t_handle, buffer, len(buffer))


def download_row_major(s: Session, t: Tensor, rows: int, cols: int) -> FloatArray:
    """The tensor, ne = [cols, rows], as float32 (rows, cols). For higher dimensions rows counts all of ne1*ne2*ne3.

    Raises:
        TinyNNValueError: rows or cols differ from the tensor's.
        As `tnn_download` besides.
    """
    handle(s, "t", t)
    want = (int64("rows", rows), int64("cols", cols))
    have = _rows_cols(t)
    if want != have:
        wrong = "rows" if want[0] != have[0] else "cols"
        raise TinyNNValueError(f"{wrong}: asked for {want}, but {t!r} has {have}")
    return tnn_download(s, t).reshape(want)


def _rows_cols(t: Tensor) -> tuple[int, int]:
    ne = t.ne
    return math.prod(ne[1:]), ne[0]

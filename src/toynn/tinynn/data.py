"""Copy data between numpy arrays and tensors. A row-major (rows, cols) matrix is a tensor of shape [cols, rows]."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray, int32, int64, integer, kind_of
from toynn.errors import SessionError, TinyNNTypeError, TinyNNValueError
from toynn.tinynn.arrays import float_array, int_array, is_ready
from toynn.tinynn.memory import memory_for, new_array
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, Tensor, handle, status

__all__ = [
    "download_matmul",
    "download_row_major",
    "download_to_mat",
    "tnn_download",
    "tnn_download_to_int_array",
    "tnn_download_window_sum",
    "tnn_upload_from_float_array",
    "tnn_upload_from_int_array",
    "upload_int_array",
    "upload_row_major",
    "upload_transposed",
]


def tnn_upload_from_float_array(s: Session, t: Tensor, data: npt.ArrayLike, n: int | None = None) -> None:
    """Upload real numbers to an f32, f16 or bf16 tensor with the same number of elements. Dimension ne0 varies fastest.

    `data` is any array-like of floating or integer dtype. The numbers are rounded to f32 and then to the tensor's
    dtype. For a tensor of shape [cols, rows], an array (cols, rows) is refused: use `upload_transposed` for it. Any
    other shape is accepted. The optional argument `n`, which the Ruby project toy has too, is the number of elements
    of `data`.

    Raises:
        TinyNNValueError: `data` has another number of elements than the tensor, a number that does not fit f32, or the
            shape of the transposed matrix; or n is not the number of its elements.
        TinyNNTypeError: `data` or the tensor has another dtype.
        SessionError: the handle is stale or foreign, or the tensor has no memory yet.
    """
    t_handle = handle(s, "t", t)
    array = float_array("data", data, size_of(t))
    buffer = ffi.from_buffer("float[]", array)
    _same_count(n, len(buffer))
    _not_transposed(t, array)
    status(s, lib.tnn_upload_from_float_array, t_handle, buffer, len(buffer))


def _same_count(n: object, count: int) -> None:
    if n is not None and int64("n", n) != count:
        raise TinyNNValueError(f"n must be the number of elements of data, {count}, got {n}")


def _not_transposed(t: Tensor, array: FloatArray) -> None:
    """Raise TinyNNValueError for a matrix whose rows and cols are exchanged, which is a common mistake."""
    if array.ndim != 2 or 1 in array.shape or array.shape[0] == array.shape[1] or size_of(t) != array.size:
        return
    if t.ne == (*array.shape, 1, 1):
        raise TinyNNValueError(
            f"data has shape {array.shape}, but {t!r} is a matrix of {t.ne[1]} rows and {t.ne[0]} cols; "
            "upload_transposed uploads the transposed matrix"
        )


def tnn_upload_from_int_array(s: Session, t: Tensor, data: npt.ArrayLike, n: int | None = None) -> None:
    """Upload integers to an i32 tensor with the same number of elements. Dimension ne0 varies fastest.

    The optional argument `n`, which the Ruby project toy has too, is the number of elements of `data`.

    Raises the errors of `tnn_upload_from_float_array`.
    """
    _upload_integers(s, t, "data", data, n)


def upload_int_array(s: Session, t: Tensor, ids: npt.ArrayLike) -> None:
    """Upload integers as `tnn_upload_from_int_array` does; errors call the argument `ids`."""
    _upload_integers(s, t, "ids", ids)


def _upload_integers(s: Session, t: Tensor, name: str, values: npt.ArrayLike, n: int | None = None) -> None:
    t_handle = handle(s, "t", t)
    buffer = ffi.from_buffer("int32_t[]", int_array(name, values, size_of(t)))
    _same_count(n, len(buffer))
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
    """Return the elements of an i32 tensor as int32 (n,).

    Raises TinyNNTypeError if the tensor is not i32, and SessionError as `tnn_download` does.
    """
    t_handle = handle(s, "t", t)
    n = math.prod(t.ne)
    array = new_array("t", n, np.int32, f"{n} elements")
    status(s, lib.tnn_download_to_int_array, t_handle, ffi.from_buffer("int32_t[]", array, require_writable=True), n)
    return array


def tnn_download_window_sum(
    s: Session, first: int, level: int, at: int, n: int, out: FloatArray | None = None
) -> FloatArray:
    """Return n elements, from element `at` on, of the sum of the gradients in some windows of a step, float32 (n,).

    out: a contiguous, writable float32 array (n,), which receives the elements and is returned; None for a new array.

    The windows are first to first + 2^level - 1, and all of them belong to batches of the unfinished step. The sum is a
    node of the binary tree in which the windows are added. `tnn_gradient_place` returns the place of the gradient of a
    parameter in a node.

    Raises:
        TinyNNValueError: the session does not have the node, or the elements are outside of it.
        TinyNNTypeError: an argument has the wrong type, or out has another shape.
        SessionError: there is no unfinished step, or the gradients are not flagged with `tnn_set_output`.
    """
    first_, level_, at_ = int64("first", first), int32("level", level), int64("at", at)
    count = integer("n", n, 0)
    array = new_array("n", count, np.float32, f"{count} elements") if out is None else out
    if out is not None and not (is_ready(out, np.float32) and out.shape == (count,) and out.flags.writeable):
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else kind_of(out)
        raise TinyNNTypeError(
            f"out must be a writable, contiguous array of float32 with the shape ({count},), got {found}"
        )
    buffer = ffi.from_buffer("float[]", array, require_writable=True)
    status(s, lib.tnn_download_window_sum, first_, level_, at_, buffer, len(buffer))
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
        raise TinyNNValueError(f"m must have shape ({rows}, {cols}), the shape of {t!r}, got {array.shape}")
    buffer = ffi.from_buffer("float[]", array)
    status(s, lib.tnn_upload_from_float_array, t_handle, buffer, len(buffer))


def upload_transposed(s: Session, t: Tensor, m: npt.ArrayLike) -> None:
    """Upload the transpose of a matrix: m (cols, rows) to a tensor of shape [cols, rows].

    So `tnn_matmul(s, a, b)` is the product of matrices: a is uploaded with `upload_row_major`, b with this call.

    Raises:
        TinyNNValueError: m has another shape, or contains a number that does not fit f32.
        TinyNNTypeError: m does not have a real floating or integer dtype, or the tensor is i32.
    """
    t_handle = handle(s, "t", t)
    array = float_array("m", m, size_of(t))
    rows, cols = _rows_cols(t)
    if array.shape != (cols, rows):
        raise TinyNNValueError(f"m has shape {array.shape}, but it must be ({cols}, {rows}), the transpose of {t!r}")
    with memory_for("m", array.nbytes, "the transposed matrix"):
        transposed = np.ascontiguousarray(array.T)
    buffer = ffi.from_buffer("float[]", transposed)
    status(s, lib.tnn_upload_from_float_array, t_handle, buffer, len(buffer))


def download_to_mat(s: Session, t: Tensor, rows: int, cols: int) -> FloatArray:
    """Return the array that `download_row_major` returns. The Ruby project toy uses this name for large tensors."""
    return download_row_major(s, t, rows, cols)


def download_matmul(s: Session, t: Tensor, m: int, n: int) -> FloatArray:
    """Return the product of `tnn_matmul(s, a, b)`, of shape [m, n], as float32 (m, n): a @ b^T of row-major a and b.

    Raises the errors of `download_row_major`.
    """
    handle(s, "t", t)
    want = (int64("m", m), int64("n", n))
    rows, cols = _rows_cols(t)
    if want != (cols, rows):
        wrong = "m" if want[0] != cols else "n"
        raise TinyNNValueError(f"{wrong}: m and n must be {(cols, rows)} for {t!r}, got {want}")
    values = tnn_download(s, t)
    with memory_for("t", values.nbytes, "the transposed matrix"):
        return np.ascontiguousarray(values.reshape(rows, cols).T)


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
        raise TinyNNValueError(f"{wrong}: rows and cols must be {have} for {t!r}, got {want}")
    return tnn_download(s, t).reshape(want)


def size_of(t: Tensor) -> int:
    """Return the number of elements. Return 0 for a stale handle; the next C call then raises the error."""
    try:
        return math.prod(t.ne)
    except SessionError:
        return 0


def _rows_cols(t: Tensor) -> tuple[int, int]:
    ne = t.ne
    return math.prod(ne[1:]), ne[0]

"""Memory is asked for before it is used, and arrays get the form that C reads: contiguous float32 or int32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from toynn import _tinynn
from toynn.arguments import FloatArray, IntArray, integer_array, real_array
from toynn.errors import TinyNNMemoryError, TinyNNValueError

_Number = TypeVar("_Number", bound=np.generic)

_WORTH_ASKING = 1 << 24  # bytes


def want_memory(name: str, nbytes: int, what: str) -> None:
    """Raise TinyNNMemoryError if fewer than `nbytes` bytes are available.

    The kernel promises memory that it does not have. If it breaks the promise later, while an array is filled, it
    kills the process.
    """
    if nbytes < _WORTH_ASKING:
        return
    available = int(_tinynn.lib.tnn_available_memory())
    if nbytes > available:
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, {available} are available")


@contextmanager
def memory_for(name: str, nbytes: int, what: str) -> Iterator[None]:
    """Guard code that allocates `nbytes` bytes: TinyNNMemoryError, naming `name`, if they cannot be allocated."""
    want_memory(name, nbytes, what)
    try:
        yield
    except TinyNNMemoryError:
        raise
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, which the system refused") from error


def new_array(name: str, n: int, dtype: type[_Number], what: str) -> npt.NDArray[_Number]:
    """Return an uninitialised array of shape (n,). Raises TinyNNMemoryError, naming `name`, without the memory."""
    nbytes = n * np.dtype(dtype).itemsize
    want_memory(name, nbytes, what)
    try:
        return np.empty(n, dtype=dtype)
    except (MemoryError, ValueError) as error:  # ValueError: more than numpy's largest array
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, which the system refused") from error


def _is_ready(value: object, dtype: type[_Number]) -> TypeGuard[npt.NDArray[_Number]]:
    """Return whether C can read the value as it is, the usual case in a training step."""
    return type(value) is np.ndarray and value.dtype == dtype and value.ndim > 0 and value.flags.c_contiguous


def float_array(name: str, value: object) -> FloatArray:
    """Return a C-contiguous float32 array of at least one dimension, copied only if needed.

    Floating and integer dtypes of any byte order and layout are rounded to float32. Raises TinyNNTypeError for other
    dtypes, TinyNNValueError if a finite number overflows float32.
    """
    if _is_ready(value, np.float32):
        return value
    array = real_array(name, value)
    if array.dtype == np.float32:
        return _contiguous(name, array, np.float32)
    want_memory(name, 6 * array.size, "its numbers as float32, and a check of them,")
    with np.errstate(over="ignore"):
        result = _contiguous(name, array, np.float32)
    if array.dtype.kind == "f" and bool(np.any(np.isinf(result) & np.isfinite(array))):
        raise TinyNNValueError(f"{name} holds a number out of the range of a 32-bit float (dtype {array.dtype})")
    return result


def int_array(name: str, value: object) -> IntArray:
    """Return a C-contiguous int32 array of at least one dimension, copied only if needed.

    Raises TinyNNTypeError unless the dtype is an integer one, TinyNNValueError if a number does not fit int32.
    """
    if _is_ready(value, np.int32):
        return value
    array = integer_array(name, value)
    if array.size == 0:
        return np.zeros(0, dtype=np.int32)
    if not np.can_cast(array.dtype, np.int32):
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise TinyNNValueError(f"{name} must fit 32-bit integers, got values from {low} to {high}")
    return _contiguous(name, array, np.int32)


def _contiguous(name: str, array: npt.NDArray[Any], dtype: type[_Number]) -> npt.NDArray[_Number]:
    try:
        return np.ascontiguousarray(array, dtype=dtype)
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: out of memory while converting {array.size} numbers") from error

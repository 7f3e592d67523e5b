"""Convert a caller's values to arrays of bounded length, in the form that C reads: contiguous float32 or int32.

Each function takes the largest number of elements that the caller can use. A value with more elements is refused before
any element is read, because an array of a few bytes (`numpy.broadcast_to`) or a range may have 2^40 elements.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, FloatArray, IntArray, kind_of, shown_integer
from toynn.errors import TinyNNError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError
from toynn.tinynn.memory import want_memory

_Number = TypeVar("_Number", bound=np.generic)

# Converting this number of elements takes milliseconds, so smaller limits are not checked here. The caller checks the
# shape.
_FEW = 1 << 16
_DEEPEST = 64  # numpy's largest number of dimensions
_BYTES_OF_ITEM = 16  # bytes for an item of a list: a pointer, and a number in the array
_BYTES_OF_NEW_ITEM = 48  # bytes for an item of another sequence: also the object that is created when the item is read
_NOT_NUMBERS = (str, bytes, dict, set, frozenset)
_SCALARS = (bool, int, float, complex, str, bytes, type(None), np.generic)
_ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__")


# ---- arrays of any dtype ----


def array_of(name: str, value: object, most: int, deepest: int = _DEEPEST) -> npt.NDArray[Any]:
    """Return the value as an array of any dtype.

    Raises:
        TinyNNValueError: the value has more than `most` elements (values of at most _FEW elements are always accepted),
            or sequences are nested more than `deepest` times, or rows have different lengths.
        TinyNNTypeError: the value is not an array or a sequence.
        TinyNNMemoryError: the memory cannot be allocated.
    """
    if value is None or isinstance(value, _NOT_NUMBERS):
        raise TinyNNTypeError(f"{name} must be an array or a sequence of numbers, got {kind_of(value)}")
    try:
        array = (
            value if type(value) is np.ndarray else np.asarray(_Sequences(name, most, deepest).without_excess(value))
        )
    except TinyNNError:
        raise
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: out of memory while converting the value to an array") from error
    except (ValueError, OverflowError) as error:
        raise TinyNNValueError(f"{name} must be a regular array, but numpy cannot convert it: {error}") from error
    except Exception as error:
        raise TinyNNTypeError(
            f"{name} must be an array or a sequence of numbers, but converting it failed: {kind_of(error)}: {error}"
        ) from error
    if array.size > max(most, _FEW):
        raise TinyNNValueError(f"{name} must hold at most {most} numbers, got shape {array.shape}")
    return array


class _Sequences:
    """Counts the elements of nested sequences before numpy reads them."""

    def __init__(self, name: str, most: int, deepest: int) -> None:
        self._name, self._most, self._deepest = name, most, deepest
        # This limit also counts nested sequences, so it is larger than `most`. `array_of` checks the number of
        # elements.
        self._room = 4 * max(most, _FEW)

    def without_excess(self, value: object, depth: int = 0) -> object:
        """Return a value with the same elements that is safe to give to numpy: an array, or a list of counted length.

        Other sequences are not safe, because numpy reads them until their iterator ends, whatever their len() is.
        """
        if isinstance(value, np.ndarray):
            return self._counted(np.asarray(value))
        if isinstance(value, list | tuple):
            # Call the methods of list or tuple itself, even if a subclass overrides them.
            kind: Any = list if isinstance(value, list) else tuple
            self._count(kind.__len__(value), _BYTES_OF_ITEM)
            items: Any = value if type(value) is kind else list(kind.__iter__(value))
            if all(issubclass(one, _SCALARS) for one in set(map(type, items))):
                return items
            if depth + 1 >= self._deepest:
                raise TinyNNValueError(f"{self._name} must have at most {self._deepest} dimension(s), got more")
            return [item if isinstance(item, _SCALARS) else self.without_excess(item, depth + 1) for item in items]
        if isinstance(value, range):
            # len() raises OverflowError for a range that is too long
            self._count(max(0, -((value.start - value.stop) // value.step)), _BYTES_OF_NEW_ITEM)
            return value
        if _is_buffer(value) or any(hasattr(value, protocol) for protocol in _ARRAY_PROTOCOLS):
            return self._counted(np.asarray(value))
        if isinstance(value, _NOT_NUMBERS) or not (hasattr(type(value), "__getitem__") and hasattr(value, "__len__")):
            return value
        n = len(value)
        self._count(n, _BYTES_OF_NEW_ITEM)
        return self.without_excess(list(islice(iter(value), n)), depth)  # type: ignore[call-overload]

    def _count(self, n: int, bytes_of_item: int) -> None:
        if n > self._room:
            raise TinyNNValueError(
                f"{self._name} must hold at most {self._most} numbers, got a sequence of {shown_integer(n)}"
            )
        self._room -= n
        want_memory(self._name, bytes_of_item * n, f"an array of {n} numbers")

    def _counted(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if array.size > self._room:
            raise TinyNNValueError(f"{self._name} must hold at most {self._most} numbers, got shape {array.shape}")
        self._room -= array.size
        return array


def _is_buffer(value: object) -> bool:
    try:
        memoryview(value).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def real_array(name: str, value: object, most: int) -> npt.NDArray[Any]:
    """Return the value as an array of floating or integer dtype. The dtypes bool, complex and object are refused."""
    array = array_of(name, value, most)
    if array.dtype.kind not in "fiu":
        raise TinyNNTypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def integer_array(name: str, value: object, most: int) -> npt.NDArray[Any]:
    """Return the value as an array of integer dtype.

    An empty sequence is accepted, because it has no dtype of its own.
    """
    array = array_of(name, value, most)
    if array.size == 0:
        return array.astype(np.int32)
    # Python integers beyond 64 bits arrive as objects: they are integers, but too large.
    if array.dtype.kind == "O" and all(type(item) is int for item in array.flat):
        raise TinyNNValueError(
            f"{name} must hold integers that fit int64, got {shown_integer(max(array.flat, key=abs))}"
        )
    if array.dtype.kind not in "iu":
        raise TinyNNTypeError(f"{name} must hold integers, got dtype {array.dtype}")
    return array


# ---- token ids ----


def flat_ids(name: str, value: npt.ArrayLike, n: int, n_is: str) -> npt.NDArray[np.int64]:
    """Return n ids in an array of shape (n,). `n_is` describes n in the message, for example "context * batch"."""
    ids = array_of(name, value, n)
    if ids.ndim != 1 or ids.size != n:
        raise TinyNNValueError(f"{name} must be a flat sequence of {n_is} = {n} ids, got shape {ids.shape}")
    ids = integer_array(name, ids, n)
    if ids.dtype.kind == "u" and int(ids.max()) > INT31_MAX:
        raise TinyNNValueError(f"{name} must hold ids below 2^31, got {int(ids.max())}")
    return ids.astype(np.int64)


def ids_in_vocab(name: str, ids: npt.NDArray[np.int64], vocab: int) -> None:
    """Raise TinyNNValueError, which names the first id outside the vocabulary, if there is one."""
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab))
    if wrong.size:
        at = int(wrong[0])
        raise TinyNNValueError(
            f"{name}[{at}] must be an id of the vocabulary, from 0 to {vocab - 1}, got {int(ids[at])}"
        )


# ---- arrays that C reads ----


def float_array(name: str, value: object, most: int) -> FloatArray:
    """Return a C-contiguous float32 array of at least one dimension, copied only if needed.

    Numbers of any floating or integer dtype, byte order and layout are rounded to float32. Raises TinyNNTypeError for
    other dtypes, or TinyNNValueError if a finite number overflows float32. Also raises the errors of `array_of`.
    """
    if is_ready(value, np.float32):
        return value
    array = real_array(name, value, most)
    if array.dtype == np.float32:
        return _contiguous(name, array, np.float32)
    want_memory(name, 6 * array.size, "its numbers as float32, and a check of them,")
    with np.errstate(over="ignore"):
        result = _contiguous(name, array, np.float32)
    if array.dtype.kind == "f" and bool(np.any(too_large := np.isinf(result) & np.isfinite(array))):
        raise TinyNNValueError(
            f"{name} must hold numbers in the range of a 32-bit float, got {array[too_large][0]} of dtype {array.dtype}"
        )
    return result


def int_array(name: str, value: object, most: int) -> IntArray:
    """Return a C-contiguous int32 array of at least one dimension, copied only if needed.

    Raises TinyNNTypeError for a dtype that is not an integer dtype, or TinyNNValueError if a number does not fit int32.
    Also raises the errors of `array_of`.
    """
    if is_ready(value, np.int32):
        return value
    array = integer_array(name, value, most)
    if array.size == 0:
        return np.zeros(0, dtype=np.int32)
    if not np.can_cast(array.dtype, np.int32):
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise TinyNNValueError(f"{name} must fit 32-bit integers, got values from {low} to {high}")
    return _contiguous(name, array, np.int32)


def is_ready(value: object, dtype: type[_Number]) -> TypeGuard[npt.NDArray[_Number]]:
    """Return whether C can read the value without a conversion, as is usual in a training step."""
    return type(value) is np.ndarray and value.dtype == dtype and value.ndim > 0 and value.flags.c_contiguous


def _contiguous(name: str, array: npt.NDArray[Any], dtype: type[_Number]) -> npt.NDArray[_Number]:
    want_memory(name, math.prod(array.shape) * np.dtype(dtype).itemsize, f"a copy of {array.size} numbers")
    try:
        return np.ascontiguousarray(array, dtype=dtype)
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: out of memory while converting {array.size} numbers") from error

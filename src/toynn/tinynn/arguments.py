"""Checks that turn what a caller passed into what C takes, or into an exception that names the argument."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from toynn import _tinynn
from toynn.arguments import array_of
from toynn.errors import TinyNNMemoryError, TinyNNTypeError, TinyNNValueError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

_Number = TypeVar("_Number", np.float32, np.int32)

_FLOAT32_MAX = float(np.finfo(np.float32).max)


_NAME = type.__dict__["__name__"]  # not what a caller's metaclass makes of it


def kind_of(value: object) -> str:
    """The type's name, as messages show it."""
    return str(_NAME.__get__(type(value)))


def integer(name: str, value: object, bits: int) -> int:
    """An int that fits a signed integer of `bits` bits.

    Takes int and numpy integers, not bool. Raises TinyNNTypeError or TinyNNValueError naming `name`.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TinyNNTypeError(f"{name} must be an int, got {kind_of(value)}")
    try:
        number = operator.index(value)  # of an int: its value, whatever a subclass makes of __int__ and __index__
    except Exception as error:
        raise TinyNNTypeError(f"{name} must be an int, got {kind_of(value)}") from error
    limit = 1 << (bits - 1)
    if not -limit <= number < limit:
        raise TinyNNValueError(f"{name} does not fit a signed {bits}-bit integer")
    return number


def int32(name: str, value: object) -> int:
    """An int that fits int32; see `integer`."""
    return integer(name, value, 32)


def int64(name: str, value: object) -> int:
    """An int that fits int64; see `integer`."""
    return integer(name, value, 64)


def boolean(name: str, value: object) -> bool:
    """A bool, Python's or numpy's. Raises TinyNNTypeError naming `name`."""
    if not isinstance(value, (bool, np.bool_)):
        raise TinyNNTypeError(f"{name} must be True or False, got {kind_of(value)}")
    return bool(value)


def real(name: str, value: object) -> float:
    """A real number in the range of f64; infinities and NaN pass. Not bool.

    Raises TinyNNTypeError or TinyNNValueError naming `name`.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TinyNNTypeError(f"{name} must be a real number, got {kind_of(value)}")
    try:
        return float(value)
    except OverflowError:
        raise TinyNNValueError(f"{name} is too large for a float") from None
    except Exception as error:  # of a subclass's __float__
        raise TinyNNTypeError(f"{name} must be a real number, got {kind_of(value)}") from error


def float32(name: str, value: object) -> float:
    """A real number in the range of f32; infinities and NaN pass (C refuses them where they mean nothing)."""
    number = real(name, value)
    if _FLOAT32_MAX < abs(number) < float("inf"):
        raise TinyNNValueError(f"{name} is {number!r}, out of the range of a 32-bit float")
    return number


def text(name: str, value: object) -> str:
    """A str. Raises TinyNNTypeError naming `name`."""
    if not isinstance(value, str):
        raise TinyNNTypeError(f"{name} must be a str, got {kind_of(value)}")
    return str.__str__(value)  # a plain one, whatever a subclass makes of its methods


def label(name: str, value: object) -> bytes:
    """A str without NUL, as UTF-8. Raises TinyNNTypeError or TinyNNValueError naming `name`."""
    words = text(name, value)
    if "\0" in words:
        raise TinyNNValueError(f"{name} must not contain a NUL character, got {words!r}")
    try:
        return words.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TinyNNValueError(f"{name} cannot be encoded as UTF-8: {error.reason} in {words!r}") from None


def _array(name: str, value: object) -> npt.NDArray[Any]:
    """`value` as an array of any dtype; ragged nesting and the like become errors naming `name`."""
    if value is None or isinstance(value, (str, bytes, dict, set, frozenset)):
        raise TinyNNTypeError(f"{name} must be an array or a sequence of numbers, got {kind_of(value)}")
    return array_of(name, value)


_WORTH_ASKING = 1 << 24  # bytes


def want_memory(name: str, nbytes: int, what: str) -> None:
    """Raises TinyNNMemoryError where so many bytes are not there.

    numpy gets any promise from the kernel; when it is broken later, while the array is filled, the process is killed.
    """
    if nbytes < _WORTH_ASKING:
        return
    available = int(_tinynn.lib.tnn_available_memory())
    if nbytes > available:
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, {available} are available")


@contextmanager
def memory_for(name: str, nbytes: int, what: str) -> Iterator[None]:
    """Around what makes so many bytes: TinyNNMemoryError, naming `name`, if they are not there or are refused."""
    want_memory(name, nbytes, what)
    try:
        yield
    except TinyNNMemoryError:
        raise
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, which the system refused") from error


def _is_ready(value: object, dtype: type[_Number]) -> TypeGuard[npt.NDArray[_Number]]:
    """Is `value` what C takes as it is? It mostly is, several times a step."""
    return type(value) is np.ndarray and value.dtype == dtype and value.ndim > 0 and value.flags.c_contiguous


def float_array(name: str, value: object) -> FloatArray:
    """`value` as a C-contiguous native float32 array of at least one dimension, copied only when needed.

    Takes floating and integer dtypes of any byte order and layout and rounds them to f32. Raises TinyNNTypeError for
    bool, complex, object and all else, and TinyNNValueError where a finite number would overflow f32.
    """
    if _is_ready(value, np.float32):
        return value
    array = _array(name, value)
    if array.dtype.kind not in "fiu":
        raise TinyNNTypeError(f"{name} must have a real floating or integer dtype, got {array.dtype}")
    if array.dtype != np.float32:
        want_memory(name, 6 * array.size, "its numbers as float32, and a check of them,")
    try:
        with np.errstate(over="ignore"):
            result = np.ascontiguousarray(array, dtype=np.float32)
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: no memory to convert {array.size} numbers to float32") from error
    if array.dtype != np.float32 and array.dtype.kind == "f" and bool(np.any(np.isinf(result) & np.isfinite(array))):
        raise TinyNNValueError(f"{name} holds a number out of the range of a 32-bit float (dtype {array.dtype})")
    return result


def int_array(name: str, value: object) -> IntArray:
    """`value` as a C-contiguous native int32 array of at least one dimension, copied only when needed.

    Takes integer dtypes only (an empty sequence, whose dtype says nothing, passes). Raises TinyNNTypeError for all
    others, and TinyNNValueError where a number does not fit int32.
    """
    if _is_ready(value, np.int32):
        return value
    array = _array(name, value)
    if array.size == 0:
        return np.zeros(0, dtype=np.int32)
    if array.dtype.kind == "O" and all(type(item) is int for item in array.flat):  # ints beyond 64 bits arrive so
        raise TinyNNValueError(f"{name} must fit 32-bit integers")
    if array.dtype.kind not in "iu":
        raise TinyNNTypeError(f"{name} must have an integer dtype, got {array.dtype}")
    if not np.can_cast(array.dtype, np.int32):
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise TinyNNValueError(f"{name} must fit 32-bit integers, got values from {low} to {high}")
    try:
        return np.ascontiguousarray(array, dtype=np.int32)
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: no memory to convert {array.size} numbers to int32") from error

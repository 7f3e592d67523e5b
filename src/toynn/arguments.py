"""Check single values. Each function returns the value in the type that toynn computes with, or raises an error that
names the argument.

A value of the wrong type (a bool or a float instead of an integer) raises TinyNNTypeError, and a value out of range
raises TinyNNValueError. A method of a caller's object may raise any exception. This exception becomes the cause of an
error that names the argument. Every other module may import this module, because it imports only the error classes and
numpy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.errors import TinyNNTypeError, TinyNNValueError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

INT31_MAX = 2**31 - 1  # ids, positions and row counts are C ints in ggml
FLOAT32_MAX = float(np.finfo(np.float32).max)

_CHECKED_AT_ONCE = 1 << 16  # numbers
_BOOLS = (bool, np.bool_)
_HEX_DIGITS = frozenset("0123456789abcdef")
# refused types, although float() accepts some of them
_NOT_REAL = (*_BOOLS, str, bytes, bytearray, complex, np.complexfloating)
_NAME = type.__dict__["__name__"]  # reads the name of a type correctly even if its metaclass defines __name__


# ---- showing values in messages ----


def kind_of(value: object) -> str:
    """Return the name of the value's type."""
    return str(_NAME.__get__(type(value)))


def shown(value: object) -> str:
    """Return the first 60 characters of the value, and its type.

    If the value cannot be printed, return only its type.
    """
    try:
        text = repr(str(value) if isinstance(value, PurePath) else value)
    except Exception:  # __repr__ raised, or the value contains a number with too many digits to print
        return f"a value of type {kind_of(value)}"
    return f"{text:.60} ({kind_of(value)})"


def shown_integer(number: int) -> str:
    """Return the digits of the number, or only its length in bits if it has more than 128 bits."""
    return str(number) if number.bit_length() <= 128 else f"a number of {number.bit_length()} bits"


def not_finite(values: npt.NDArray[Any]) -> str | None:
    """Return the first NaN or infinite number of an array and its position, like "nan at [3, 4]", or None."""
    if _all_finite(values):
        return None
    finite = np.isfinite(values)
    at = tuple(int(i) for i in np.unravel_index(finite.argmin(), finite.shape))
    return f"{values[at]} at {list(at)}"


def _all_finite(values: npt.NDArray[Any]) -> bool:
    """Return whether an array has only finite numbers.

    A large array is checked in parts, so that the intermediate results stay in the CPU's cache.
    """
    if values.size <= _CHECKED_AT_ONCE or not values.flags.c_contiguous:
        return bool(np.isfinite(values).all())
    flat, finite = values.reshape(-1), np.empty(_CHECKED_AT_ONCE, dtype=np.bool_)
    parts = (flat[at : at + _CHECKED_AT_ONCE] for at in range(0, flat.size, _CHECKED_AT_ONCE))
    return all(np.isfinite(part, out=finite[: part.size]).all() for part in parts)


# ---- numbers ----


def integer(name: str, value: object, least: int, most: int = INT31_MAX) -> int:
    """Return an integer from least to most. Python's and numpy's integers are accepted, a bool is not."""
    if isinstance(value, _BOOLS):
        raise TinyNNTypeError(f"{name} must be an integer, got {shown(value)}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except Exception as error:
        raise TinyNNTypeError(f"{name} must be an integer, got {shown(value)}") from error
    if not least <= number <= most:
        raise TinyNNValueError(f"{name} must be an integer from {least} to {most}, got {shown_integer(number)}")
    return number


def int32(name: str, value: object) -> int:
    """Return an integer that fits int32; see `integer`."""
    return integer(name, value, -(2**31), 2**31 - 1)


def int64(name: str, value: object) -> int:
    """Return an integer that fits int64; see `integer`."""
    return integer(name, value, -(2**63), 2**63 - 1)


def float64(name: str, value: object) -> float:
    """Return a real number as a float; infinities and NaN are accepted. A bool, a str and a complex are refused."""
    if isinstance(value, _NOT_REAL) or (isinstance(value, np.ndarray) and value.shape != ()) or value is np.ma.masked:
        raise TinyNNTypeError(f"{name} must be a number, got {shown(value)}")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError as error:
        raise TinyNNValueError(f"{name} must fit a 64-bit float, got {shown(value)}") from error
    except Exception as error:
        raise TinyNNTypeError(f"{name} must be a number, got {shown(value)}") from error


def float32(name: str, value: object) -> float:
    """Return a real number in the range of a 32-bit float; infinities and NaN are accepted."""
    number = float64(name, value)
    if FLOAT32_MAX < abs(number) < float("inf"):
        raise TinyNNValueError(f"{name} must be in the range of a 32-bit float, got {number!r}")
    return number


def real(name: str, value: object, fits: Callable[[float], bool], expected: str) -> float:
    """Return a finite number for which fits() is true after rounding to float32, the type that ggml computes with.

    `expected` describes the accepted numbers in the message, for example "from 0 to 1".
    """
    number = float64(name, value)
    in_range = abs(number) <= FLOAT32_MAX  # this is also False for NaN
    if not (in_range and fits(float(np.float32(number)))):
        raise TinyNNValueError(f"{name} must be {expected} (as a float32), got {number!r}")
    return number


def positive(name: str, value: object) -> float:
    """Return a finite number above 0; see `real`."""
    return real(name, value, lambda x: x > 0, "a finite number above 0")


def not_negative(name: str, value: object) -> float:
    """Return a finite number of at least 0; see `real`."""
    return real(name, value, lambda x: x >= 0, "a finite number, 0 or above")


def sha256_digest(name: str, value: object) -> str:
    """Return a SHA-256 as a str of 64 lower-case hexadecimal digits."""
    if not isinstance(value, str):
        raise TinyNNTypeError(f"{name} must be a str, got {shown(value)}")
    if len(value) != 64 or not set(value) <= _HEX_DIGITS:
        raise TinyNNValueError(f"{name} must be a SHA-256 of 64 lower-case hexadecimal digits, got {value!r:.80}")
    return value


def boolean(name: str, value: object) -> bool:
    """Return a bool. Python's and numpy's bools are accepted."""
    if not isinstance(value, _BOOLS):
        raise TinyNNTypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


# ---- objects ----


def instance_of(name: str, value: object, kind: type) -> None:
    """Raise TinyNNTypeError unless the value is an object of the class `kind`."""
    if not isinstance(value, kind):
        raise TinyNNTypeError(f"{name} must be a {kind.__name__}, got {kind_of(value)}")


# ---- text ----


def text(name: str, value: object) -> str:
    """Return the value as a plain str, even if it is an object of a subclass of str."""
    if not isinstance(value, str):
        raise TinyNNTypeError(f"{name} must be a str, got {shown(value)}")
    return str.__str__(value)  # calls str's own method, even if a subclass overrides it


def label(name: str, value: object) -> bytes:
    """Return the bytes of a str in UTF-8. A str with a NUL character is refused."""
    plain = text(name, value)
    if "\0" in plain:
        raise TinyNNValueError(f"{name} must not contain a NUL character, got {plain!r}")
    try:
        return plain.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TinyNNValueError(f"{name} cannot be encoded as UTF-8: {error.reason} in {plain!r}") from None


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return a str that is one of the allowed strings. Any other value, of any type, raises TinyNNValueError."""
    if not (isinstance(value, str) and str.__str__(value) in allowed):
        raise TinyNNValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}")
    return str.__str__(value)


# ---- weights by name ----


def weights_by_name(weights: object) -> Mapping[str, npt.ArrayLike]:
    """Return a mapping of names to arrays."""
    if not isinstance(weights, Mapping):
        raise TinyNNTypeError(f"weights must be a mapping of names to arrays, got {kind_of(weights)}")
    return weights


def same_weights(given: Collection[str], wanted: Collection[str]) -> None:
    """Raise TinyNNValueError unless the given names are exactly those of the model's weights."""
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        what = f"{missing[0]!r} is missing" if missing else f"{unknown[0]!r} is unknown"
        raise TinyNNValueError(
            f"weights must have the names of the model's weights, but {what} ({len(missing)} missing, {len(unknown)} "
            "unknown)"
        )

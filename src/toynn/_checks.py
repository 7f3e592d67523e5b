"""Checks shared by the value objects: each returns the value in its plain Python type, or raises naming it.

A thing of the wrong kind (a bool or a float where an integer belongs) is a TinyNNTypeError, a value out of range a
TinyNNValueError.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from toynn.errors import TinyNNTypeError, TinyNNValueError

INT31_MAX = 2**31 - 1  # ggml's ids, positions and row counts are C ints
FLOAT32_MAX = float(np.finfo(np.float32).max)


def whole(name: str, value: object, least: int, most: int = INT31_MAX) -> int:
    """An integer (Python's or numpy's, never a bool) from least to most."""
    if isinstance(value, bool):
        raise TinyNNTypeError(f"{name} must be an integer, got the bool {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TinyNNTypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if not least <= number <= most:
        raise TinyNNValueError(f"{name} must be an integer from {least} to {most}, got {_shown(number)}")
    return number


def _shown(number: int) -> str:
    """The number, or how long it is: Python refuses to print more than 4300 digits."""
    return str(number) if number.bit_length() <= 128 else f"a number of {number.bit_length()} bits"


def real(name: str, value: object, fits: Callable[[float], bool], expected: str) -> float:
    """A number for which fits() holds after rounding to float32, which is what ggml computes with."""
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise TinyNNTypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise TinyNNTypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})") from None
    in_range = abs(number) <= FLOAT32_MAX  # False for NaN too
    if not (in_range and fits(float(np.float32(number)))):
        raise TinyNNValueError(f"{name} must be {expected} (as a float32), got {number!r}")
    return number


def positive(name: str, value: object) -> float:
    return real(name, value, lambda x: x > 0, "a finite number above 0")


def not_negative(name: str, value: object) -> float:
    return real(name, value, lambda x: x >= 0, "a finite number, 0 or above")


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TinyNNTypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")
    return bool(value)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if not (isinstance(value, str) and value in allowed):
        raise TinyNNValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def flat_ids(name: str, value: npt.ArrayLike, n: int, n_is: str) -> npt.NDArray[np.int64]:
    """n whole numbers in one flat array; n_is says in words where n comes from."""
    try:
        ids = np.asarray(value)
    except ValueError as error:
        raise TinyNNValueError(f"{name} is not a regular array: {error}") from None
    if ids.ndim != 1 or ids.size != n:
        raise TinyNNValueError(f"{name} must be flat with {n_is} = {n} ids, got shape {ids.shape}")
    if ids.dtype.kind not in "iu":
        # Python integers beyond 64 bits arrive as objects: they are whole, but no id is that large.
        if ids.dtype.kind == "O" and all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise TinyNNValueError(f"{name} has an id that does not fit 64 bits: {_shown(max(ids, key=abs))}")
        raise TinyNNTypeError(f"{name} must hold integers, got dtype {ids.dtype}")
    if ids.dtype.kind == "u" and int(ids.max()) > INT31_MAX:
        raise TinyNNValueError(f"{name} has the id {int(ids.max())}: ids fit 31 bits")
    return ids.astype(np.int64)


def ids_in_vocab(name: str, ids: npt.NDArray[np.int64], vocab: int) -> None:
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab))
    if wrong.size:
        at = int(wrong[0])
        raise TinyNNValueError(f"{name}[{at}] is {int(ids[at])}, not an id of the vocabulary: 0 to {vocab - 1}")

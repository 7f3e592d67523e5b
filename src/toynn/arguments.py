"""Checks shared by the value objects: each returns the value in its plain Python type, or raises naming it.

A thing of the wrong kind (a bool or a float where an integer belongs) is a TinyNNTypeError, a value out of range a
TinyNNValueError.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.errors import TinyNNMemoryError, TinyNNTypeError, TinyNNValueError

INT31_MAX = 2**31 - 1  # ggml's ids, positions and row counts are C ints
FLOAT32_MAX = float(np.finfo(np.float32).max)


def whole(name: str, value: object, least: int, most: int = INT31_MAX) -> int:
    """An integer (Python's or numpy's, never a bool) from least to most."""
    if isinstance(value, bool):
        raise TinyNNTypeError(f"{name} must be an integer, got the bool {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except Exception as error:  # what a caller's __index__ raises comes along as the cause
        raise TinyNNTypeError(f"{name} must be an integer, got {_repr(value)}") from error
    if not least <= number <= most:
        raise TinyNNValueError(f"{name} must be an integer from {least} to {most}, got {_shown(number)}")
    return number


def _repr(value: object) -> str:
    """The value as far as it can be shown in a line, and its type."""
    try:
        text = repr(value)
    except Exception:  # a number in it too long to print, or a caller's own __repr__
        return f"a {type(value).__name__}"
    return f"{text:.60} ({type(value).__name__})"


def _shown(number: int) -> str:
    """The number, or how long it is: Python refuses to print more than 4300 digits."""
    return str(number) if number.bit_length() <= 128 else f"a number of {number.bit_length()} bits"


def real(name: str, value: object, fits: Callable[[float], bool], expected: str) -> float:
    """A number for which fits() holds after rounding to float32, which is what ggml computes with."""
    if isinstance(value, bool | np.bool_ | str | bytes) or (isinstance(value, np.ndarray) and value.shape != ()):
        raise TinyNNTypeError(f"{name} must be a number, got {_repr(value)}")
    if value is np.ma.masked:
        raise TinyNNTypeError(f"{name} must be a number, got a masked one")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    except Exception as error:  # what a caller's __float__ raises comes along as the cause
        raise TinyNNTypeError(f"{name} must be a number, got {_repr(value)}") from error
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
        raise TinyNNTypeError(f"{name} must be True or False, got {_repr(value)}")
    return bool(value)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if not (isinstance(value, str) and value in allowed):
        raise TinyNNValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {_repr(value)}")
    return value


def weights_by_name(weights: object) -> Mapping[str, npt.ArrayLike]:
    if not isinstance(weights, Mapping):
        raise TinyNNTypeError(f"weights must be a mapping of names to arrays, got {type(weights).__name__}")
    return weights


def same_weights(given: Collection[str], wanted: Collection[str]) -> None:
    """That the names are those of the model's weights, none missing and none unknown."""
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        what = f"lack {missing[0]!r}" if missing else f"hold {unknown[0]!r}, which this model has not"
        raise TinyNNValueError(f"weights {what} ({len(missing)} missing, {len(unknown)} unknown)")


def array_of(name: str, value: object) -> npt.NDArray[Any]:
    """`value` as an array of any dtype; whatever goes wrong on the way, in a caller's `__array__` too, names `name`."""
    try:
        return np.asarray(value)
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: no memory to make an array of it") from error
    except (ValueError, OverflowError) as error:
        raise TinyNNValueError(f"{name} is not a regular array: {error}") from error
    except Exception as error:
        raise TinyNNTypeError(f"{name} is not an array: {type(error).__name__}: {error}") from error


def flat_ids(name: str, value: npt.ArrayLike, n: int, n_is: str) -> npt.NDArray[np.int64]:
    """n whole numbers in one flat array; n_is says in words where n comes from."""
    ids = array_of(name, value)
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

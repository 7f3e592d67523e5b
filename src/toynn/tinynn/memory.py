"""Check that memory is available before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from toynn import _tinynn
from toynn.errors import TinyNNMemoryError

_Number = TypeVar("_Number", bound=np.generic)

_WORTH_ASKING = 1 << 24  # bytes


def want_memory(name: str, nbytes: int, what: str) -> None:
    """Raise TinyNNMemoryError if fewer than `nbytes` bytes are available.

    Without this check Linux would let the process allocate more memory than the machine has, and kill the process when
    it fills the array.
    """
    if nbytes < _WORTH_ASKING:
        return
    available = int(_tinynn.lib.tnn_available_memory())
    if nbytes > available:
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, but only {available} are available")


@contextmanager
def memory_for(name: str, nbytes: int, what: str) -> Iterator[None]:
    """Guard a block that allocates `nbytes` bytes: raise TinyNNMemoryError, naming `name`, if they cannot be
    allocated.
    """
    want_memory(name, nbytes, what)
    try:
        yield
    except TinyNNMemoryError:
        raise
    except MemoryError as error:
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, which the system refused") from error


def new_array(name: str, n: int, dtype: type[_Number], what: str) -> npt.NDArray[_Number]:
    """Return an uninitialised array of shape (n,). Raises TinyNNMemoryError, naming `name`, if memory is lacking."""
    nbytes = n * np.dtype(dtype).itemsize
    want_memory(name, nbytes, what)
    try:
        return np.empty(n, dtype=dtype)
    except (MemoryError, ValueError) as error:  # numpy raises ValueError for an array above its largest size
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, which the system refused") from error


def new_arrays(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """Return uninitialised float32 arrays of these shapes, by name. They are views of one array.

    The memory of one large array consists of huge pages, if the system has them, and goes back to the system when the
    array is freed. The memory of many small arrays does not always go back.

    Raises TinyNNMemoryError, naming `name`, if memory is lacking.
    """
    n = sum(map(prod, shapes.values()))
    memory = new_array(name, n, np.float32, f"{n} numbers as f32")
    arrays, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + prod(shape)
        arrays[key] = memory[start:end].reshape(shape)
    return arrays

"""Check the files of a data folder, and map them into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from toynn.errors import FileFormatError
from toynn.storage.regular_files import open_regular

# A function that returns what is wrong with a part of a file, or None.
Check: TypeAlias = Callable[[npt.NDArray[Any]], str | None]
_PART = 1 << 22  # number of bytes that are checked at once, a multiple of the size of every element


def mapped_file(path: Path, dtype: str, n: int, what: str, sha256: str, check: Check) -> npt.NDArray[Any]:
    """Return the content of a file as an array (n,), read-only and mapped into memory.

    dtype: the type of an element, which the file stores in little-endian order.
    what: the elements, for a message.
    check: called with each part of the array.

    Raises FileFormatError if the file is missing or damaged, or if its sha256 differs.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != n * kind.itemsize:
                raise FileFormatError(
                    f"{path} is damaged: it must have {n * kind.itemsize} bytes ({n} {what} of {dtype}), but has "
                    f"{size} bytes; prepare the data again"
                )
            found, wrong = _read(file, kind, check)
            if found != sha256:
                raise FileFormatError(
                    f"{path} is damaged: its sha256 differs from the one in meta.json; prepare the data again"
                )
            if wrong is not None:
                raise FileFormatError(f"{path} is damaged: {wrong}; prepare the data again")
            return _mapped(file, path, kind, n)
    except FileNotFoundError:
        raise FileFormatError(
            f"{path.parent} is damaged: the file {path.name} is missing; prepare the data again"
        ) from None
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error}") from None


def _read(file: BinaryIO, kind: np.dtype[Any], check: Check) -> tuple[str, str | None]:
    """Return the sha256 of a file, and a text that says what is wrong with its content (None: nothing is wrong)."""
    digest, wrong = hashlib.sha256(), None
    while part := file.read(_PART):
        digest.update(part)
        if wrong is None and len(part) % kind.itemsize == 0:
            wrong = check(np.frombuffer(part, dtype=kind))
    return digest.hexdigest(), wrong


def _mapped(file: BinaryIO, path: Path, kind: np.dtype[Any], n: int) -> npt.NDArray[Any]:
    if n == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype=kind)
    try:
        return np.memmap(file, dtype=kind, mode="r", shape=(n,))
    except ValueError as error:
        raise FileFormatError(f"{path} was changed by another program while toynn opened it ({error}); retry") from None

"""Files of packed token ids, as the Ruby project toy and other programs write them.

The ids are little-endian int32. A file may begin with toy's header of 16 bytes, which contains the magic "TOYC" and
three unsigned 32-bit numbers: the version 1, the number of ids of the vocabulary, and a reserved 0. A file without
the header is flat: its first byte belongs to its first id.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.storage.regular_files import open_regular, path_of, refuse_lfs_pointer

MAGIC = b"TOYC"
HEADER = struct.Struct("<4sIII")
_VERSION = 1
_CHUNK = 1 << 20  # number of ids that are checked at once
_ID = np.dtype("<i4")


@dataclass(frozen=True)
class TokenFile:
    """An open file of n packed ids.

    vocab: the vocabulary size in the header of the file, or None without a header. start: position of the first id in
        bytes.
    """

    path: Path
    file: BinaryIO
    vocab: int | None
    start: int
    n: int

    def vocab_of(self, given: int | None, name: str) -> int:
        """Return the vocabulary size: the number in the header, or the given number.

        name: the argument that contains `given`, for messages. Raises TinyNNValueError if the two numbers differ, or if
        neither is known.
        """
        vocab = self.vocab if given is None else given
        if vocab is None:
            raise TinyNNValueError(f"{name}: {self.path} has no header with the size of the vocabulary; give {name}")
        if self.vocab not in (None, vocab):
            raise TinyNNValueError(
                f"{name} = {given} differs from {self.vocab}, the size in the header of {self.path}; leave out {name}"
            )
        return vocab

    def pieces(self, vocab: int) -> Iterator[npt.NDArray[np.int32]]:
        """Yield all ids, int32, in pieces. Raises FileFormatError for an id outside the vocabulary of `vocab` ids."""
        for at in range(0, self.n, _CHUNK):
            yield self.read(at, min(_CHUNK, self.n - at), vocab)

    def read(self, first: int, n: int, vocab: int) -> npt.NDArray[np.int32]:
        """Return n ids from position `first`, which must be in the file. Raises the errors of `pieces`."""
        self.file.seek(self.start + first * _ID.itemsize)
        content = self.file.read(n * _ID.itemsize)
        if len(content) != n * _ID.itemsize:
            raise FileFormatError(f"another program has shortened {self.path} while it was read; try again")
        return self._checked(np.frombuffer(content, dtype=_ID), first, vocab)

    def _checked(self, ids: npt.NDArray[np.int32], first: int, vocab: int) -> npt.NDArray[np.int32]:
        wrong = np.flatnonzero((ids < 0) | (ids >= vocab))
        if wrong.size:
            at = int(wrong[0])
            raise FileFormatError(
                f"{self.path}: the id {ids[at]} at position {first + at} is outside the vocabulary, 0 to {vocab - 1}"
            )
        return ids.astype(np.int32)


@contextmanager
def open_token_file(name: str, path: object) -> Iterator[TokenFile]:
    """Open a file of packed ids and yield it. name: the argument that contains the path, for messages.

    Raises FileFormatError for a file that is damaged, has no ids, or has a header of another version; TinyNNTypeError
    or TinyNNValueError for an invalid path; or OSError if the file cannot be read.
    """
    place = path_of(name, path)
    with open_regular(place) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(256)
        refuse_lfs_pointer(head, str(place))
        vocab = _vocab_in(head, place) if head.startswith(MAGIC) else None
        start = 0 if vocab is None else HEADER.size
        n, rest = divmod(size - start, _ID.itemsize)
        if rest:
            raise FileFormatError(
                f"{place} is cut off or not a file of packed ids: {size - start} bytes of ids are not a multiple of 4; "
                f"for a text, make a data folder with `toynn prepare {place} --out DATA`"
            )
        if n < 1:
            raise FileFormatError(f"{place} must contain at least one id, but contains none")
        yield TokenFile(place, file, vocab, start, n)


def has_header(path: Path) -> bool:
    """Return whether a regular file begins with the header of packed ids, of any version.

    Raises OSError if the file cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(8)
    return head.startswith(MAGIC) and len(head) == 8 and head[5:8] == b"\0\0\0"


def _vocab_in(head: bytes, path: Path) -> int:
    if len(head) < HEADER.size:
        raise FileFormatError(
            f"{path} is cut off: its header must have {HEADER.size} bytes, but the file has only {len(head)}; use an "
            "intact copy of the file"
        )
    numbers: tuple[bytes, int, int, int] = HEADER.unpack(head[: HEADER.size])
    _, version, vocab, reserved = numbers
    if version != _VERSION:
        raise FileFormatError(f"{path}: the version of the header is {version}, but toynn reads only {_VERSION}")
    if reserved != 0:
        raise FileFormatError(f"{path}: the reserved number in the header must be 0, got {reserved}")
    if not 1 <= vocab <= INT31_MAX:
        raise FileFormatError(f"{path}: the vocabulary in the header must have 1 to {INT31_MAX} ids, got {vocab}")
    return vocab


def write_token_file(path: Path, ids: npt.ArrayLike, vocab: int | None = None) -> None:
    """Write packed ids, with the header if vocab is given. An existing file is replaced.

    Raises TinyNNValueError for an id that is negative or outside the vocabulary; TinyNNTypeError for ids of the wrong
    type; or OSError if the file cannot be written.
    """
    from toynn.storage.durable_files import replacing_file
    from toynn.tinynn.arrays import int_array

    path = path_of("path", path)
    limit = INT31_MAX if vocab is None else integer("vocab", vocab, 1)
    array = int_array("ids", ids, INT31_MAX)
    if array.ndim != 1:
        raise TinyNNValueError(f"ids must be a flat sequence, got shape {array.shape}")
    if array.size and not (int(array.min()) >= 0 and int(array.max()) < limit):
        raise TinyNNValueError(f"ids must be from 0 to {limit - 1}, got {int(array.min())} to {int(array.max())}")
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        if vocab is not None:
            file.write(HEADER.pack(MAGIC, _VERSION, limit, 0))
        file.write(array.astype(_ID).tobytes())

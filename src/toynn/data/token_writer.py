"""Write the token files of a data folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from toynn.data.meta import MOST_SOURCES, SPLITS, Split, dtype_of
from toynn.storage.regular_files import naming_file


class ByteWriter:
    """Writes a file and computes its sha256."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")
        self._digest = hashlib.sha256()

    def add(self, content: bytes) -> None:
        """Write bytes at the end of the file. Raises OSError if the file cannot be written."""
        with naming_file(self.path):
            self._file.write(content)
        self._digest.update(content)

    def finished(self) -> str:
        """Wait until the file is on the disk, close it, and return its sha256."""
        with naming_file(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Close the incomplete file after an error. An error while closing is ignored, because the caller reports the
        first error.
        """
        with suppress(OSError):
            self._file.close()


class TokenWriter:
    """Writes a token file and counts its tokens, documents and bytes of text. dtype: "uint16" or "uint32"."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.dtype = dtype
        self.tokens = 0
        self._file = ByteWriter(path)
        self._bytes = 0
        self._documents = 0
        self._source_tokens: list[int] = []

    def add(self, ids: Sequence[int] | npt.NDArray[np.int32], text_bytes: int, *, begins_document: bool) -> None:
        """Write the tokens of a part of a document. text_bytes: the size of this part in UTF-8."""
        self.add_ids(np.asarray(ids, dtype=self.dtype))
        self._bytes += text_bytes
        self._documents += begins_document

    def add_ids(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add checked ids whose text and documents are unknown."""
        self._file.add(ids.astype(np.dtype(self.dtype).newbyteorder("<"), copy=False).tobytes())
        self.tokens += ids.size

    def end_source(self) -> None:
        """Count the tokens since the last call of `end_source` as the tokens of one source."""
        self._source_tokens.append(self.tokens - sum(self._source_tokens))

    def finished(self) -> Split:
        """Wait until the file is on the disk, close it, and return its description."""
        sha256 = self._file.finished()
        of_sources = self._source_tokens if 1 < len(self._source_tokens) <= MOST_SOURCES else None
        return Split(self._file.path.name, self.tokens, self._bytes, sha256, self._documents, source_tokens=of_sources)

    def abandon(self) -> None:
        """Close the incomplete file after an error, as `ByteWriter.abandon` does."""
        self._file.abandon()


class Abandonable(Protocol):
    """A writer whose incomplete files can be closed."""

    def abandon(self) -> None: ...


Writer = TypeVar("Writer", bound=Abandonable)


@contextmanager
def abandoned_after_error(writers: dict[str, Writer]) -> Iterator[dict[str, Writer]]:
    """Yield the writers. After an error in the block, their files are closed."""
    try:
        yield writers
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise


def token_writers(folder: Path, vocab: int) -> AbstractContextManager[dict[str, TokenWriter]]:
    """Return a context manager that yields a writer for each split. An error in its block closes the files."""
    return abandoned_after_error({name: TokenWriter(folder / f"{name}.bin", dtype_of(vocab)) for name in SPLITS})

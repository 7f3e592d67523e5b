"""Write the token files of a data folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.data.meta import SPLITS, Split, dtype_of
from toynn.storage.regular_files import naming_file


class TokenWriter:
    """Writes a token file and counts its tokens, documents and bytes of text. dtype: "uint16" or "uint32"."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.dtype = dtype
        self.tokens = 0
        self._path = path
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._documents = 0

    def add(self, ids: Sequence[int] | npt.NDArray[np.int32], text_bytes: int, *, begins_document: bool) -> None:
        """Write the tokens of a part of a document. text_bytes: the size of this part in UTF-8."""
        self.add_ids(np.asarray(ids, dtype=self.dtype))
        self._bytes += text_bytes
        self._documents += begins_document

    def add_ids(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add checked ids whose text and documents are unknown."""
        raw = ids.astype(np.dtype(self.dtype).newbyteorder("<"), copy=False).tobytes()
        with naming_file(self._path):
            self._file.write(raw)
        self._digest.update(raw)
        self.tokens += ids.size

    def finished(self) -> Split:
        """Wait until the file is on the disk, close it, and return its description."""
        with naming_file(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return Split(self._path.name, self.tokens, self._bytes, self._digest.hexdigest(), self._documents)

    def abandon(self) -> None:
        """Close the incomplete file after an error. An error of closing is ignored, because the caller reports the
        first error.
        """
        with suppress(OSError):
            self._file.close()


@contextmanager
def token_writers(folder: Path, vocab: int) -> Iterator[dict[str, TokenWriter]]:
    """Yield a writer for each split of a data folder. After an error in the block, their files are closed."""
    writers = {name: TokenWriter(folder / f"{name}.bin", dtype_of(vocab)) for name in SPLITS}
    try:
        yield writers
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise

"""TokenWriter: write a token file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toynn.data.meta import Split
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

    def add(self, ids: Sequence[int], text_bytes: int, *, begins_document: bool) -> None:
        """Write the tokens of a part of a document. text_bytes: the size of this part in UTF-8."""
        raw = np.asarray(ids, dtype=np.dtype(self.dtype).newbyteorder("<")).tobytes()
        with naming_file(self._path):
            self._file.write(raw)
        self._digest.update(raw)
        self.tokens += len(ids)
        self._bytes += text_bytes
        self._documents += begins_document

    def add_ids(self, ids: npt.NDArray[np.int32]) -> None:
        """Add checked ids whose text and documents are unknown."""
        raw = ids.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()
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

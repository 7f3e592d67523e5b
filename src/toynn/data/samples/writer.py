"""SampleWriter: write the tokens of a split, the positions of its samples, and which tokens count for the loss."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toynn.data.meta import SPLITS, SampleFiles, Split, counted_file, dtype_of, starts_file
from toynn.data.token_writer import ByteWriter, TokenWriter, abandoned_after_error


class SampleWriter:
    """Writes the files of one split. dtype: "uint16" or "uint32". masked: whether some tokens do not count."""

    def __init__(self, folder: Path, split: str, dtype: str, *, masked: bool) -> None:
        self._split = split
        self._tokens = TokenWriter(folder / f"{split}.bin", dtype)
        self._starts = ByteWriter(folder / starts_file(split))
        self._counted = ByteWriter(folder / counted_file(split)) if masked else None
        self._samples = self._counted_tokens = 0

    @property
    def tokens(self) -> int:
        return self._tokens.tokens

    def add(
        self, ids: npt.NDArray[np.int32], counted: npt.NDArray[np.uint8], text_bytes: int, *, begins: bool = True
    ) -> None:
        """Write a sample, or a part of a sample. counted: 1 for each token that counts, otherwise 0. begins: whether
        this is the first part.
        """
        if begins:
            self._starts.add(np.array([self._tokens.tokens], dtype="<i8").tobytes())
            self._samples += 1
        self._tokens.add(ids, text_bytes, begins_document=begins)
        self._counted_tokens += int(counted.sum())
        if self._counted is not None:
            self._counted.add(counted.tobytes())

    def end_source(self) -> None:
        """Count the tokens since the last call of `end_source` as the tokens of one source."""
        self._tokens.end_source()

    def finished(self) -> Split:
        """Wait until the files are on the disk, close them, and return their description."""
        counted = None if self._counted is None else self._counted.finished()
        files = SampleFiles(
            starts_file(self._split),
            self._starts.finished(),
            self._samples,
            self._counted_tokens,
            None if counted is None else counted_file(self._split),
            counted,
        )
        return dataclasses.replace(self._tokens.finished(), samples=files)

    def abandon(self) -> None:
        """Close the incomplete files after an error."""
        for file in (self._tokens, self._starts, self._counted):
            if file is not None:
                file.abandon()


def sample_writers(folder: Path, vocab: int, *, masked: bool) -> AbstractContextManager[dict[str, SampleWriter]]:
    """Return a context manager that yields a writer for each split. An error in its block closes the files."""
    return abandoned_after_error({name: SampleWriter(folder, name, dtype_of(vocab), masked=masked) for name in SPLITS})

"""PackedTokens: the tokens of a split, checked and mapped into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.data.mapped_file import Check, mapped_file
from toynn.data.meta import SPLITS, DataMeta, load_meta
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.storage.regular_files import folder_of


@dataclass(frozen=True)
class PackedTokens(Initialised):
    """The tokens of one split of a data folder.

    tokens: array (n,) of type meta.dtype, read-only. The file is mapped into memory, so the system reads a part of the
        file from the disk when this part is used.
    counted: array (n,) of uint8, 1 for each token that counts for the loss and 0 for the others; None: every token
        counts.
    starts: array of int64, the position of the first token of each sample; None: the data was not made of samples.

    The file must not become shorter while it is mapped: the system would end a process that reads beyond the new end
    (SIGBUS). Replacing the file by another one, as `toynn prepare` does, is safe: the mapping still shows the old file.
    """

    tokens: npt.NDArray[Any]
    meta: DataMeta
    split: str
    counted: npt.NDArray[np.uint8] | None = None
    starts: npt.NDArray[np.int64] | None = None

    @classmethod
    def open(cls, folder: Path, split: str) -> PackedTokens:
        """Open the split "train" or "validation" of a data folder. Check all its files.

        Raises TinyNNValueError for another split name, or FileFormatError if the folder is damaged or not a data
        folder.
        """
        if not isinstance(split, str) or split not in SPLITS:
            raise TinyNNValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        meta = load_meta(folder)
        entry, place = meta.splits[split], folder_of(folder)
        tokens = mapped_file(place / entry.file, meta.dtype, entry.tokens, "tokens", entry.sha256, _ids_in(meta))
        samples = entry.samples
        if samples is None:
            return cls(tokens, meta, split)
        starts = mapped_file(
            place / samples.starts,
            "int64",
            samples.samples,
            "positions",
            samples.starts_sha256,
            _Positions(tokens.size),
        )
        counted = None
        if samples.counted is not None and samples.counted_sha256 is not None:
            counted = mapped_file(
                place / samples.counted, "uint8", tokens.size, "marks", samples.counted_sha256, _marks
            )
        return cls(tokens, meta, split, counted, starts)

    def __len__(self) -> int:
        return int(self.tokens.size)


def _ids_in(meta: DataMeta) -> Check:
    def check(part: npt.NDArray[Any]) -> str | None:
        largest = int(part.max())
        if largest < meta.vocab_size:
            return None
        return f"it contains the token id {largest}, but the vocabulary has {meta.vocab_size} tokens"

    return check


def _marks(part: npt.NDArray[Any]) -> str | None:
    return None if int(part.max()) <= 1 else f"each of its bytes must be 0 or 1, but one is {int(part.max())}"


class _Positions:
    """Checks that the positions of samples do not decrease, and are at most n, the number of tokens."""

    def __init__(self, n: int) -> None:
        self._n, self._last = n, 0

    def __call__(self, part: npt.NDArray[Any]) -> str | None:
        steps = np.diff(part, prepend=self._last)
        self._last = int(part[-1])
        if int(steps.min()) < 0 or self._last > self._n:
            return f"its positions must not decrease, and must be at most {self._n}"
        return None

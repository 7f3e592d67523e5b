"""The tokens of a split: checked, and mapped into memory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from toynn.data.meta import SPLITS, DataMeta, Split, load_meta
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.storage.regular_files import folder_of, open_regular

_CHUNK = 1 << 22


@dataclass(frozen=True)
class PackedTokens(Initialised):
    """tokens: (n,) of meta.dtype, read-only. The file is mapped: its pages are read from the disk when they are used.

    The file must not shrink while it is mapped: the system ends a process that reads beyond the new end (SIGBUS). It
    may be replaced by another file, as `toynn prepare` does: the mapping keeps the old one.
    """

    tokens: npt.NDArray[Any]
    meta: DataMeta
    split: str

    @classmethod
    def open(cls, folder: Path, split: str) -> PackedTokens:
        """Open "train" or "validation" of a data folder. Check the size, the sha256 and the largest token id.

        Raises TinyNNValueError for another split, FileFormatError for a folder that is damaged or not a data folder.
        """
        if not isinstance(split, str) or split not in SPLITS:
            raise TinyNNValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        meta = load_meta(folder)
        entry = meta.splits[split]
        path = folder_of(folder) / entry.file
        try:
            with open_regular(path) as file:
                return cls(_checked(file, path, entry, meta), meta, split)
        except FileNotFoundError:
            raise FileFormatError(f"{path} is missing") from None
        except OSError as error:
            raise FileFormatError(f"{path} cannot be read: {error}") from None

    def __len__(self) -> int:
        return int(self.tokens.size)


def _checked(file: BinaryIO, path: Path, entry: Split, meta: DataMeta) -> npt.NDArray[Any]:
    """Return the tokens of an open file, checked and memory-mapped. path is used only in messages."""
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    size = os.fstat(file.fileno()).st_size
    if size != entry.tokens * dtype.itemsize:
        raise FileFormatError(
            f"{path} is damaged: it must have {entry.tokens} tokens of {meta.dtype}, it has {size} bytes"
        )
    digest, largest = hashlib.sha256(), -1
    while piece := file.read(_CHUNK):
        digest.update(piece)
        if len(piece) % dtype.itemsize == 0:
            largest = max(largest, int(np.frombuffer(piece, dtype=dtype).max()))
    if digest.hexdigest() != entry.sha256:
        raise FileFormatError(f"{path} is damaged: its sha256 differs from the one in meta.json")
    if largest >= meta.vocab_size:
        raise FileFormatError(
            f"{path} is damaged: it contains the token id {largest}, the vocabulary has {meta.vocab_size} tokens"
        )
    if size == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    try:
        return np.memmap(file, dtype=dtype, mode="r", shape=(entry.tokens,))
    except ValueError as error:
        raise FileFormatError(f"{path} changed while it was opened: {error}") from None

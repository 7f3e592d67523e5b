"""PackedTokens: the tokens of a split, checked and mapped into memory."""

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
    """The tokens of one split of a data folder.

    tokens: array (n,) of type meta.dtype, read-only. The file is mapped into memory, so the system reads a part of it
    from the disk when it is used.

    The file must not become shorter while it is mapped: the system would end a process that reads beyond the new end
    (SIGBUS). Replacing the file by another one, as `toynn prepare` does, is safe: the mapping still shows the old file.
    """

    tokens: npt.NDArray[Any]
    meta: DataMeta
    split: str

    @classmethod
    def open(cls, folder: Path, split: str) -> PackedTokens:
        """Open the split "train" or "validation" of a data folder. Check its size, its sha256 and its largest token id.

        Raises TinyNNValueError for another split name, FileFormatError if the folder is damaged or not a data folder.
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
            raise FileFormatError(f"{folder} is damaged: the file {entry.file} is missing") from None
        except OSError as error:
            raise FileFormatError(f"{path} cannot be read: {error}") from None

    def __len__(self) -> int:
        return int(self.tokens.size)


def _checked(file: BinaryIO, path: Path, entry: Split, meta: DataMeta) -> npt.NDArray[Any]:
    """Check an open token file and return its tokens, mapped into memory. path: the name of the file in messages."""
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    size = os.fstat(file.fileno()).st_size
    if size != entry.tokens * dtype.itemsize:
        raise FileFormatError(
            f"{path} is damaged: it must have {entry.tokens * dtype.itemsize} bytes ({entry.tokens} tokens of "
            f"{meta.dtype}), but has {size} bytes"
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
            f"{path} is damaged: it contains the token id {largest}, but the vocabulary has {meta.vocab_size} tokens"
        )
    if size == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    try:
        return np.memmap(file, dtype=dtype, mode="r", shape=(entry.tokens,))
    except ValueError as error:
        raise FileFormatError(f"{path} was changed by another program while toynn opened it ({error}); retry") from None

"""A split's tokens, mapped into memory and checked."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from toynn.data.meta import SPLITS, DataMeta, Split, load_meta
from toynn.errors import TinyNNValueError
from toynn.storage.regular_files import folder_of, open_regular

_CHUNK = 1 << 22


@dataclass(frozen=True)
class PackedTokens:
    """tokens: (n,) of meta.dtype, read-only, mapped: pages come from the disk as they are touched.

    The file must not shrink while it is mapped: the system then ends a process that touches what is gone (SIGBUS). A
    file that is replaced, as `toynn prepare` does it, is no matter: the mapping keeps the old one.
    """

    tokens: npt.NDArray[Any]
    meta: DataMeta
    split: str

    @classmethod
    def open(cls, folder: Path, split: str) -> PackedTokens:
        """Opens "train" or "validation" of a data folder and checks it: size, sha256, every id in the vocabulary.

        Raises TinyNNValueError with the reason where anything is wrong.
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
            raise TinyNNValueError(f"{path} is missing") from None
        except OSError as error:
            raise TinyNNValueError(f"{path} cannot be read: {error}") from None

    def __len__(self) -> int:
        return int(self.tokens.size)


def _checked(file: BinaryIO, path: Path, entry: Split, meta: DataMeta) -> npt.NDArray[Any]:
    """The tokens of an open file, mapped once they are checked: that very file, wherever the path leads by now."""
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    size = os.fstat(file.fileno()).st_size
    if size != entry.tokens * dtype.itemsize:
        raise TinyNNValueError(f"{path} has {size} bytes; {entry.tokens} tokens of {meta.dtype} are meant to be there")
    digest, largest = hashlib.sha256(), -1
    while piece := file.read(_CHUNK):
        digest.update(piece)
        if len(piece) % dtype.itemsize == 0:
            largest = max(largest, int(np.frombuffer(piece, dtype=dtype).max()))
    if digest.hexdigest() != entry.sha256:
        raise TinyNNValueError(f"{path} is damaged: its sha256 is not the one that meta.json records")
    if largest >= meta.vocab_size:
        raise TinyNNValueError(f"{path} holds the token {largest}; the vocabulary has {meta.vocab_size}")
    if size == 0:  # nothing cannot be mapped
        return np.zeros(0, dtype=dtype)
    try:
        return np.memmap(file, dtype=dtype, mode="r", shape=(entry.tokens,))
    except ValueError as error:
        raise TinyNNValueError(f"{path} changed while it was opened: {error}") from None

"""A split's tokens, mapped into memory and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.data.meta import DTYPES, SPLITS, DataMeta, load_meta
from toynn.durable_files import sha256_of
from toynn.errors import TinyNNValueError

_CHUNK = 1 << 22


@dataclass(frozen=True)
class PackedTokens:
    """tokens: (n,) of meta.dtype, read-only, mapped: pages come from the disk as they are touched."""

    tokens: npt.NDArray[Any]
    meta: DataMeta
    split: str

    @classmethod
    def open(cls, folder: Path, split: str) -> PackedTokens:
        """Opens "train" or "validation" of a data folder and checks it: size, sha256, every id in the vocabulary.

        Raises TinyNNValueError with the reason where anything is wrong.
        """
        if split not in SPLITS:
            raise TinyNNValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        meta = load_meta(folder)
        entry = meta.splits[split]
        path = Path(folder) / entry.file
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise TinyNNValueError(f"{path} is missing") from None
        if size != entry.tokens * DTYPES[meta.dtype]:
            raise TinyNNValueError(
                f"{path} has {size} bytes; {entry.tokens} tokens of {meta.dtype} are meant to be there"
            )
        if sha256_of(path) != entry.sha256:
            raise TinyNNValueError(f"{path} is damaged: its sha256 is not the one that meta.json records")
        dtype = np.dtype(meta.dtype).newbyteorder("<")
        tokens: npt.NDArray[Any] = np.zeros(0, dtype=dtype)
        if size > 0:  # nothing cannot be mapped
            tokens = np.memmap(path, dtype=dtype, mode="r")
        for start in range(0, tokens.size, _CHUNK):
            largest = int(tokens[start : start + _CHUNK].max())
            if largest >= meta.vocab_size:
                raise TinyNNValueError(f"{path} holds the token {largest}; the vocabulary has {meta.vocab_size}")
        return cls(tokens, meta, split)

    def __len__(self) -> int:
        return int(self.tokens.size)

"""A data folder that is opened for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toynn.data.meta import TOKENIZER, DataMeta
from toynn.data.packed import PackedTokens
from toynn.errors import FileFormatError
from toynn.initialised import Initialised
from toynn.storage.durable_files import sha256_of
from toynn.storage.regular_files import folder_of, read_regular


@dataclass(frozen=True)
class DataFolder(Initialised):
    """Both splits of a data folder, and the content of its tokenizer.json."""

    train: PackedTokens
    validation: PackedTokens
    tokenizer: bytes

    @property
    def meta(self) -> DataMeta:
        return self.train.meta

    @classmethod
    def open(cls, folder: Path) -> DataFolder:
        """Open a data folder and check all its files. Raises FileFormatError with the reason, OSError."""
        train, validation = PackedTokens.open(folder, "train"), PackedTokens.open(folder, "validation")
        path = folder_of(folder) / TOKENIZER
        if sha256_of(path) != train.meta.tokenizer.sha256:
            raise FileFormatError(f"{path} is damaged: its sha256 differs from the one in meta.json")
        return cls(train, validation, read_regular(path))

"""DataFolder: open a data folder, or a file of packed token ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toynn.data.meta import SPLITS, TOKENIZER, DataMeta, Source, Split
from toynn.data.packed import PackedTokens
from toynn.data.prepare_ids import validation_ids
from toynn.data.token_file import TokenFile, open_token_file
from toynn.errors import FileFormatError
from toynn.initialised import Initialised
from toynn.storage.durable_files import sha256_of
from toynn.storage.regular_files import folder_of, read_regular

VALIDATION_OF_FILE = 0.05  # share of a token file's ids, as the default of `toynn prepare`


@dataclass(frozen=True)
class DataFolder(Initialised):
    """Open training data: the tokens of both splits, and the content of its tokenizer.json.

    tokenizer: None for token ids without a tokenizer.
    """

    train: PackedTokens
    validation: PackedTokens
    tokenizer: bytes | None

    @property
    def meta(self) -> DataMeta:
        return self.train.meta

    @classmethod
    def open(cls, folder: Path) -> DataFolder:
        """Open a data folder, or a file of packed ids with a header, and check all its content.

        The last ids of a file are its validation split.

        Raises FileFormatError if a file is damaged, TinyNNValueError for a file without a header, OSError.
        """
        if folder_of(folder).is_file():
            with open_token_file("data", folder) as file:
                return cls._of_file(file)
        train, validation = PackedTokens.open(folder, "train"), PackedTokens.open(folder, "validation")
        described = train.meta.tokenizer
        if described is None:
            return cls(train, validation, None)
        path = folder_of(folder) / TOKENIZER
        if sha256_of(path) != described.sha256:
            raise FileFormatError(f"{path} is damaged: its sha256 differs from the one in meta.json")
        return cls(train, validation, read_regular(path))

    @classmethod
    def _of_file(cls, file: TokenFile) -> DataFolder:
        if file.vocab is None:
            raise FileFormatError(
                f"{file.path} has no header with the size of the vocabulary; make a data folder with "
                "`toynn prepare --ids --vocab-size N`"
            )
        tail = file.n - validation_ids(file.n, VALIDATION_OF_FILE)
        digests, done = {name: hashlib.sha256() for name in SPLITS}, 0
        for ids in file.pieces(file.vocab):
            cut = min(max(tail - done, 0), ids.size)
            for name, part in zip(SPLITS, (ids[:cut], ids[cut:]), strict=True):
                digests[name].update(part.astype("<u4").tobytes())
            done += ids.size
        sizes = dict(zip(SPLITS, (tail, file.n - tail), strict=True))
        splits = {name: Split(f"{name}.bin", sizes[name], 0, digests[name].hexdigest()) for name in SPLITS}
        sources = [Source(file.path.name, file.start + 4 * file.n, sha256_of(file.path))]
        meta = DataMeta("uint32", file.vocab, splits, None, None, None, sources)
        try:
            mapped = np.memmap(file.file, dtype="<u4", mode="r", offset=file.start, shape=(file.n,))
        except ValueError as error:
            raise FileFormatError(f"{file.path} changed while it was opened: {error}") from None
        return cls(PackedTokens(mapped[:tail], meta, "train"), PackedTokens(mapped[tail:], meta, "validation"), None)

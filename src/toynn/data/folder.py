"""DataFolder: open a data folder, or a file of packed token ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toynn.data.meta import SPLITS, TEMPLATE, TOKENIZER, DataMeta, Source, Split, dtype_of
from toynn.data.packed import PackedTokens
from toynn.data.prepare_ids import validation_ids
from toynn.data.token_file import TokenFile, open_token_file
from toynn.errors import FileFormatError
from toynn.initialised import Initialised
from toynn.storage.durable_files import sha256_of
from toynn.storage.regular_files import folder_of, read_regular
from toynn.tinynn.memory import memory_for

# the share of a token file that is used for validation; the default of `toynn prepare` is the same
VALIDATION_OF_FILE = 0.05


@dataclass(frozen=True)
class DataFolder(Initialised):
    """Training data that is ready to be read: the tokens of both splits, and the content of the tokenizer.json.

    tokenizer: None for token ids without a tokenizer.
    chat_template: the template with which conversations were rendered; None for other data.
    """

    train: PackedTokens
    validation: PackedTokens
    tokenizer: bytes | None
    chat_template: str | None = None

    @property
    def meta(self) -> DataMeta:
        return self.train.meta

    @classmethod
    def open(cls, folder: Path) -> DataFolder:
        """Open a data folder, or a file of packed ids with a header, and check all its content.

        The last ids of a file are its validation split.

        Raises FileFormatError if a file is damaged; TinyNNValueError for a file without a header; or OSError if a file
        cannot be read.
        """
        if folder_of(folder).is_file():
            with open_token_file("data", folder) as file:
                return cls._of_file(file)
        train, validation = PackedTokens.open(folder, "train"), PackedTokens.open(folder, "validation")
        if (described := train.meta.tokenizer) is None:
            return cls(train, validation, None)
        tokenizer = _checked(folder_of(folder) / TOKENIZER, described.sha256)
        if (template := train.meta.chat_template) is None:
            return cls(train, validation, tokenizer)
        content = _checked(folder_of(folder) / TEMPLATE, template.sha256)
        return cls(train, validation, tokenizer, content.decode("utf-8"))

    @classmethod
    def _of_file(cls, file: TokenFile) -> DataFolder:
        if file.vocab is None:
            raise FileFormatError(
                f"{file.path} is not a data folder, and has no header with the size of the vocabulary; make a data "
                f"folder with `toynn prepare {file.path} --out DATA`; if the file holds token ids, add `--ids "
                "--vocab-size N`"
            )
        tail, dtype = file.n - validation_ids(file.n, VALIDATION_OF_FILE), dtype_of(file.vocab)
        with memory_for(
            "data", np.dtype(dtype).itemsize * file.n, f"{file.n} token ids; `toynn prepare --ids` maps them"
        ):
            tokens, done = np.empty(file.n, dtype=dtype), 0
            for ids in file.pieces(file.vocab):
                tokens[done : done + ids.size] = ids
                done += ids.size
        parts = dict(zip(SPLITS, (tokens[:tail], tokens[tail:]), strict=True))
        splits = {
            name: Split(f"{name}.bin", part.size, 0, hashlib.sha256(part.data).hexdigest())
            for name, part in parts.items()
        }
        sources = [Source(file.path.name, file.start + 4 * file.n, sha256_of(file.path))]
        meta = DataMeta(dtype, file.vocab, splits, None, None, None, sources)
        train, validation = (PackedTokens(part, meta, name) for name, part in parts.items())
        return cls(train, validation, None)


def _checked(path: Path, sha256: str) -> bytes:
    """Return the content of a small file of a data folder."""
    if sha256_of(path) != sha256:
        raise FileFormatError(
            f"{path} is damaged: its sha256 differs from the one in meta.json; prepare the data again"
        )
    return read_regular(path)

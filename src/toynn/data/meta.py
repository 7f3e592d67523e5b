"""The meta.json of a data folder.

It describes the other files. It is written last, so a folder with a meta.json is complete.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from toynn.arguments import INT31_MAX, integer, one_of, sha256_digest
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.storage.durable_files import sha256_of
from toynn.storage.formats import Format
from toynn.storage.regular_files import folder_of, naming_file

DATA = Format("toynn-data")
META, TOKENIZER = "meta.json", "tokenizer.json"
SPLITS = ("train", "validation")
DTYPES = {"uint16": 2, "uint32": 4}  # bytes per token
_LARGEST = 2**63 - 1
_MOST_UINT16 = 1 << 16  # largest vocabulary whose ids fit into 16 bits


def dtype_of(vocab: int) -> str:
    """Return the dtype of the token files for this vocabulary size."""
    return "uint16" if vocab <= _MOST_UINT16 else "uint32"


@dataclass(frozen=True)
class Split(Initialised):
    """The description of a token file, which contains little-endian token ids and no header.

    bytes: the size of the encoded text in UTF-8, or 0 if it is unknown. documents: the number of documents that begin
    in the file. None: an older version of toynn wrote the file and did not count them.
    """

    file: str
    tokens: int
    bytes: int
    sha256: str
    documents: int | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "bytes"):
            integer(name, getattr(self, name), 0, _LARGEST)
        sha256_digest("sha256", self.sha256)
        if self.documents is not None:
            integer("documents", self.documents, 0, _LARGEST)


@dataclass(frozen=True)
class Source(Initialised):
    """A text file from which the data was made."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        integer("bytes", self.bytes, 0, _LARGEST)
        sha256_digest("sha256", self.sha256)


@dataclass(frozen=True)
class TokenizerFile(Initialised):
    """The file of the tokenizer with which the texts were encoded."""

    file: str
    sha256: str

    def __post_init__(self) -> None:
        one_of("file", self.file, (TOKENIZER,))
        sha256_digest("sha256", self.sha256)


@dataclass(frozen=True)
class DataMeta(Initialised):
    """The keys of meta.json.

    dtype: the type of a token in the token files, "uint16" or "uint32". tokenizer: None for ids without a tokenizer.
    eos_id: the id of the token that ends each document, or None. bos_id: the id of the token that starts a text, or
    None. sources: the text files.
    separator: the line that separates documents, if the user chose one; None: the default.
    """

    dtype: str
    vocab_size: int
    splits: dict[str, Split]
    tokenizer: TokenizerFile | None
    eos_id: int | None
    bos_id: int | None
    sources: list[Source]
    separator: str | None = None

    def __post_init__(self) -> None:
        one_of("dtype", self.dtype, tuple(DTYPES))
        integer("vocab_size", self.vocab_size, 1, _MOST_UINT16 if self.dtype == "uint16" else INT31_MAX)
        for name in ("eos_id", "bos_id"):
            if (value := getattr(self, name)) is not None:
                integer(name, value, 0, self.vocab_size - 1)
        if set(self.splits) != set(SPLITS):
            found = ", ".join(map(repr, self.splits)) or "none"
            raise TinyNNValueError(f"splits must have the keys {' and '.join(SPLITS)}, got {found:.80}")
        for name in SPLITS:
            one_of(f"splits.{name}.file", self.splits[name].file, (f"{name}.bin",))

    @property
    def documents(self) -> int | None:
        """The number of documents in both splits. None: an older version of toynn wrote the files."""
        counts = [split.documents for split in self.splits.values()]
        return None if None in counts else sum(count or 0 for count in counts)

    def to_json(self) -> str:
        """Return the content of meta.json."""
        content = dataclasses.asdict(self)
        if self.separator is None:  # older versions of toynn refuse files with this key
            del content["separator"]
        return DATA.text(content)


def write_tokenizer_file(folder: Path, content: bytes) -> TokenizerFile:
    """Write the tokenizer.json of a data folder, and return its description. Raises OSError."""
    path = folder / TOKENIZER
    with naming_file(path):
        path.write_bytes(content)
    return TokenizerFile(TOKENIZER, sha256_of(path))


def write_meta(folder: Path, meta: DataMeta) -> None:
    """Write the meta.json of a data folder. Raises OSError."""
    path = folder / META
    with naming_file(path):
        path.write_text(meta.to_json(), encoding="utf-8")


def load_meta(folder: Path) -> DataMeta:
    """Read the meta.json of a data folder. The files that it describes are not read; `PackedTokens.open` checks them.

    Raises FileFormatError if the folder is not a data folder, or if meta.json is damaged or has a newer version.
    """
    path = folder_of(folder) / META
    try:
        return DATA.load(path, DataMeta)
    except FileNotFoundError:
        raise FileFormatError(
            f"{folder} is not a data folder: it has no {META} (`toynn prepare` makes a data folder)"
        ) from None

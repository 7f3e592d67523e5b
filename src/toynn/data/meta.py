"""meta.json of a data folder: what its files hold, and their sha256. Written last: with it the folder is complete."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toynn.errors import TinyNNValueError
from toynn.storage.json_fields import JsonFields, read_json
from toynn.storage.regular_files import folder_of

FORMAT, VERSION = "toynn-data", 1
META, TOKENIZER = "meta.json", "tokenizer.json"
SPLITS = ("train", "validation")
DTYPES = {"uint16": 2, "uint32": 4}  # bytes a token


@dataclass(frozen=True)
class Split:
    """A token file: little-endian, no header. bytes: of its text in UTF-8."""

    file: str
    tokens: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A text file that went in."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class DataMeta:
    """A data folder. eos_id ends each document; bos_id is what a text may start with; None: the tokenizer has none."""

    dtype: str
    vocab_size: int
    splits: dict[str, Split]
    tokenizer_sha256: str
    eos_id: int | None
    bos_id: int | None
    sources: list[Source]

    def to_json(self) -> str:
        content = {
            "format": FORMAT,
            "version": VERSION,
            "dtype": self.dtype,
            "vocab_size": self.vocab_size,
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
            "tokenizer": {"file": TOKENIZER, "sha256": self.tokenizer_sha256},
            "eos_id": self.eos_id,
            "bos_id": self.bos_id,
            "sources": [dataclasses.asdict(source) for source in self.sources],
        }
        return json.dumps(content, indent=1) + "\n"


def load_meta(folder: Path) -> DataMeta:
    """The meta.json of a data folder, checked for form but not against the files (`PackedTokens.open` does that).

    Raises TinyNNValueError, with the reason, for a folder that is none, or is damaged or of another version.
    """
    path = folder_of(folder) / META
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise TinyNNValueError(f"{folder} is no data folder: it has no {META} (`toynn prepare` makes one)") from None
    try:
        return _parsed(content)
    except TinyNNValueError as error:
        raise TinyNNValueError(f"{path} is damaged or foreign: {error}") from None


def _parsed(content: Any) -> DataMeta:
    top = JsonFields("it", content)
    top.require_format(FORMAT, VERSION)
    dtype = top.take("dtype", str)
    if dtype not in DTYPES:
        raise TinyNNValueError(f"its dtype is {dtype!r:.60}, not one of {', '.join(DTYPES)}")
    vocab_size = top.count("vocab_size", 1)
    if vocab_size > 2**31 - 1 or (dtype == "uint16" and vocab_size > 2**16):
        raise TinyNNValueError(f"a vocab_size of {vocab_size} does not fit {dtype}")
    splits = _splits(JsonFields("splits", top.take("splits", dict)))
    tokenizer = JsonFields("tokenizer", top.take("tokenizer", dict))
    if (file := tokenizer.take("file", str)) != TOKENIZER:
        raise TinyNNValueError(f"tokenizer: 'file' must be {TOKENIZER}, got {file!r:.60}")
    sha256 = tokenizer.take("sha256", str)
    tokenizer.end()
    ids: dict[str, int | None] = {}
    for key in ("eos_id", "bos_id"):
        ids[key] = value = top.take(key, int, type(None))
        if value is not None and not 0 <= value < vocab_size:
            raise TinyNNValueError(f"{key} = {value} is not in the vocabulary of {vocab_size}")
    sources = []
    for i, entry in enumerate(top.take("sources", list)):
        one = JsonFields(f"sources[{i}]", entry)
        sources.append(Source(one.take("name", str), one.count("bytes"), one.take("sha256", str)))
        one.end()
    top.end()
    return DataMeta(dtype, vocab_size, splits, sha256, ids["eos_id"], ids["bos_id"], sources)


def _splits(reader: JsonFields) -> dict[str, Split]:
    splits = {}
    for name in SPLITS:
        one = JsonFields(f"splits.{name}", reader.take(name, dict))
        file = one.take("file", str)
        if file != f"{name}.bin":
            raise TinyNNValueError(f"splits.{name}: 'file' must be {name}.bin, got {file!r:.60}")
        splits[name] = Split(file, one.count("tokens"), one.count("bytes"), one.take("sha256", str))
        one.end()
    reader.end()
    return splits

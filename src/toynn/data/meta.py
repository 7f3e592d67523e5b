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
PREFERENCE = "preference"  # the format of samples that are pairs
META, TOKENIZER, TEMPLATE = "meta.json", "tokenizer.json", "chat_template.jinja"
SPLITS = ("train", "validation")
DTYPES = {"uint16": 2, "uint32": 4}  # bytes per token
_LARGEST = 2**63 - 1
_MOST_UINT16 = 1 << 16  # largest vocabulary whose ids fit into 16 bits
# with more sources, the tokens of each source are not counted, because each evaluation lists all sources
MOST_SOURCES = 64


def dtype_of(vocab: int) -> str:
    """Return the dtype of the token files for this vocabulary size."""
    return "uint16" if vocab <= _MOST_UINT16 else "uint32"


def starts_file(split: str) -> str:
    """Return the name of the file that says where each sample of a split begins."""
    return f"{split}.starts.bin"


def counted_file(split: str) -> str:
    """Return the name of the file that says which tokens of a split count for the loss."""
    return f"{split}.counted.bin"


@dataclass(frozen=True)
class SampleFiles(Initialised):
    """The files that say where samples begin in a token file, and which tokens count for the loss.

    starts: a file of little-endian int64, the position of the first token of each sample.
    samples: number of samples.
    counted: a file with one byte for each token: 1 if the token counts, otherwise 0. None: every token counts.
    """

    starts: str
    starts_sha256: str
    samples: int
    counted_tokens: int
    counted: str | None = None
    counted_sha256: str | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "counted_tokens"):
            integer(name, getattr(self, name), 0, _LARGEST)
        sha256_digest("starts_sha256", self.starts_sha256)
        if (self.counted is None) != (self.counted_sha256 is None):
            raise TinyNNValueError(
                f"counted and counted_sha256 must both be texts or both be null, got {self.counted!r:.60} and "
                f"{self.counted_sha256!r:.80}"
            )
        if self.counted_sha256 is not None:
            sha256_digest("counted_sha256", self.counted_sha256)


@dataclass(frozen=True)
class SourceSamples(Initialised):
    """The counts of the samples of a source, in both splits together.

    format: the format of the samples.
    weight: how often each sample is used in an epoch.
    samples, tokens, counted: number of samples in the data, their number of tokens, and how many of these tokens count.
    longest: number of tokens of the longest sample.
    truncated, dropped, skipped: number of samples that were shortened, left out, or broken.
    """

    format: str
    weight: float
    samples: int
    tokens: int
    counted: int
    longest: int
    truncated: int
    dropped: int
    skipped: int

    def __post_init__(self) -> None:
        for name in ("samples", "tokens", "counted", "longest", "truncated", "dropped", "skipped"):
            integer(name, getattr(self, name), 0, _LARGEST)


@dataclass(frozen=True)
class Split(Initialised):
    """The description of a token file, which contains little-endian token ids and no header.

    bytes: the size of the encoded text in UTF-8, or 0 if it is unknown.
    documents: the number of documents that begin in the file. None: an older version of toynn wrote the file and did
        not count them.
    samples: the files that describe the samples in the file, if the data was made of samples.
    source_tokens: the number of tokens of each source. The file contains the sources one after the other. None: there
        is only one source, there are more than MOST_SOURCES, or an older version of toynn wrote the file.
    """

    file: str
    tokens: int
    bytes: int
    sha256: str
    documents: int | None = None
    samples: SampleFiles | None = None
    source_tokens: list[int] | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "bytes"):
            integer(name, getattr(self, name), 0, _LARGEST)
        sha256_digest("sha256", self.sha256)
        if self.documents is not None:
            integer("documents", self.documents, 0, _LARGEST)
        if self.source_tokens is not None:
            for i, n in enumerate(self.source_tokens):
                integer(f"source_tokens[{i}]", n, 0, _LARGEST)
            if (total := sum(self.source_tokens)) != self.tokens:
                raise TinyNNValueError(
                    f"the sum of source_tokens must be {self.tokens} (the number of tokens), got {total}"
                )

    @property
    def counted_tokens(self) -> int:
        """The number of tokens that count for the loss."""
        return self.tokens if self.samples is None else self.samples.counted_tokens


@dataclass(frozen=True)
class Source(Initialised):
    """A file from which the data was made. samples: the counts of its samples; None for a file of plain text."""

    name: str
    bytes: int
    sha256: str
    samples: SourceSamples | None = None

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
class TemplateFile(Initialised):
    """The file of the chat template with which the conversations were rendered."""

    file: str
    sha256: str

    def __post_init__(self) -> None:
        one_of("file", self.file, (TEMPLATE,))
        sha256_digest("sha256", self.sha256)


@dataclass(frozen=True)
class DataMeta(Initialised):
    """The keys of meta.json.

    dtype: the type of a token in the token files, "uint16" or "uint32".
    tokenizer: None for ids without a tokenizer.
    eos_id: the id of the token that ends each document, or None.
    bos_id: the id of the token that starts a text, or None.
    sources: the text files.
    separator: the line that separates documents, if the user chose one; None: the default.
    loss: the user's choice of the tokens that count for the loss.
    chat_template: the file with the template of the conversations.
    pairs: True if the samples 2i and 2i + 1 of a split are the chosen and the rejected continuation of one prompt.
    """

    dtype: str
    vocab_size: int
    splits: dict[str, Split]
    tokenizer: TokenizerFile | None
    eos_id: int | None
    bos_id: int | None
    sources: list[Source]
    separator: str | None = None
    loss: str | None = None
    chat_template: TemplateFile | None = None
    pairs: bool | None = None

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
            split = self.splits[name]
            one_of(f"splits.{name}.file", split.file, (f"{name}.bin",))
            if (files := split.samples) is not None:
                one_of(f"splits.{name}.samples.starts", files.starts, (starts_file(name),))
                if files.counted is not None:
                    one_of(f"splits.{name}.samples.counted", files.counted, (counted_file(name),))
            if self.pairs and (files is None or files.counted is None or files.samples % 2 != 0):
                found = "null" if files is None else f"samples = {files.samples}, counted = {files.counted!r}"
                raise TinyNNValueError(
                    f"splits.{name}.samples must have an even number of samples and a file of counted tokens, because "
                    f"the samples are pairs, got {found}"
                )
            if split.source_tokens is not None and len(split.source_tokens) != len(self.sources):
                raise TinyNNValueError(
                    f"splits.{name}.source_tokens must have {len(self.sources)} numbers, one for each source, got "
                    f"{len(split.source_tokens)}"
                )

    @property
    def documents(self) -> int | None:
        """The number of documents, samples or preference pairs in both splits.

        None: an older version of toynn wrote the files.
        """
        counts = [split.documents for split in self.splits.values()]
        return None if None in counts else sum(count or 0 for count in counts) // (2 if self.pairs else 1)

    def to_json(self) -> str:
        """Return the content of meta.json."""
        content = dataclasses.asdict(self)
        newer = [(content, key) for key in ("separator", "loss", "chat_template", "pairs")]
        newer += [(one, "samples") for one in (*content["splits"].values(), *content["sources"])]
        newer += [(one, "source_tokens") for one in content["splits"].values()]
        for place, key in newer:  # older versions of toynn refuse these keys, so keys without a value are left out
            if place[key] is None:
                del place[key]
        return DATA.text(content)


def write_tokenizer_file(folder: Path, content: bytes) -> TokenizerFile:
    """Write the tokenizer.json of a data folder, and return its description.

    Raises OSError if the file cannot be written.
    """
    path = folder / TOKENIZER
    with naming_file(path):
        path.write_bytes(content)
    return TokenizerFile(TOKENIZER, sha256_of(path))


def write_template_file(folder: Path, template: str) -> TemplateFile:
    """Write the chat template of a data folder and return its description.

    Raises OSError if the file cannot be written.
    """
    path = folder / TEMPLATE
    with naming_file(path):
        path.write_bytes(template.encode("utf-8"))
    return TemplateFile(TEMPLATE, sha256_of(path))


def write_meta(folder: Path, meta: DataMeta) -> None:
    """Write the meta.json of a data folder. Raises OSError if the file cannot be written."""
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

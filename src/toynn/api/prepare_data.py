"""Turn texts into a data folder for training."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from toynn.api.prepare_sources import SampleOptions, given_tokenizer, is_plain_text, prepare_sources
from toynn.api.text_model import TextModel
from toynn.arguments import boolean, instance_of
from toynn.data import DataMeta
from toynn.data.prepare import prepare as prepare_files
from toynn.data.prepare import text_paths
from toynn.data.prepare_ids import prepare_ids as prepare_id_files
from toynn.data.samples import SampleSettings
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.parallel.workers import Workers
from toynn.storage.regular_files import naming_file, path_of
from toynn.storage.text_files import BYTE_ORDER_MARK
from toynn.text.documents import END_OF_TEXT, separators_of

PathLike: TypeAlias = str | os.PathLike[str]
Progress: TypeAlias = Callable[[str, int, int], None]

VOCAB_SIZE = 4096
_STAGES = {"learning": "learning the vocabulary", "encoding": "encoding the texts"}


@dataclass(frozen=True, repr=False)
class PreparedData(Initialised):
    """The result of `toynn.prepare`. Functions that take the path of a data folder also take this object.

    path: the data folder.
    meta: the content of its meta.json.
    notes: sentences about possible mistakes in the texts.
    """

    path: Path
    meta: DataMeta
    notes: tuple[str, ...] = ()

    @property
    def documents(self) -> int | None:
        """The number of documents, samples or preference pairs in the data.

        None: an older version, which did not count them, made the folder.
        """
        return self.meta.documents

    @property
    def vocab_size(self) -> int:
        return self.meta.vocab_size

    @property
    def tokens(self) -> dict[str, int]:
        """The number of tokens in each split. The keys are "train" and "validation"."""
        return {name: split.tokens for name, split in self.meta.splits.items()}

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        tokens = ", ".join(f"{n} {name} tokens" for name, n in self.tokens.items())
        kind = "preference pairs" if self.meta.pairs else "documents"
        documents = "" if self.documents is None else f"{self.documents} {kind}, "
        return f"<toynn.PreparedData {str(self.path)!r}: {documents}{tokens}, vocabulary {self.vocab_size}>"


def prepare(
    paths: PathLike | Sequence[PathLike] | None = None,
    out: PathLike | None = None,
    *,
    documents: Iterable[str] | None = None,
    vocab_size: int | None = None,
    tokenizer: PathLike | TextModel | None = None,
    validation: float = 0.05,
    eos: str | None = None,
    separator: str | None = None,
    seed: int = 0,
    progress: bool | Progress = True,
    format: str | None = None,  # noqa: A002 (the name of the option)
    text_field: str | None = None,
    weights: Sequence[float] | None = None,
    skip_bad: int = 0,
    chat_template: PathLike | None = None,
    loss: str = "assistant",
    max_tokens: int | None = None,
    truncate: str = "left",
    workers: Workers | None = None,
) -> PreparedData:
    """Turn texts or samples into packed tokens and a tokenizer in the folder `out`, for `toynn.train`.

    Args:
        paths: one or several files: plain text in UTF-8, JSON lines, a JSON array, or Parquet (extra toynn[parquet]).
            All files except Parquet files may be compressed with gzip or Zstandard. Separator lines divide a plain text
            into documents. A plain text without separator lines is one document.
        out: the folder to create. If it exists, it must be empty or contain only the remains of a killed `prepare`.
        documents: the documents as strings, instead of paths. A line feed is added to a document that does not end with
            one.
        vocab_size: learn a byte-level BPE tokenizer with this number of tokens, at least 257. Default: 4096. The
            vocabulary becomes smaller if the texts are short.
        tokenizer: use this tokenizer instead of learning one: the path of a tokenizer.json; a folder with a
            tokenizer.json, for example a data folder; a loaded model; or a path that `toynn.load` accepts. To train a
            model further, use the tokenizer of this model.
        validation: share of the documents that is held out for validation, at least 0 and below 1. If there is only one
            document, its end is held out.
        eos: the token that ends each document. If `tokenizer` is given, it must have this token as a special token. "":
            documents get no end token. Default: <|endoftext|>. If the data consists of samples and the tokenizer does
            not have this token: the end token of the model that the tokenizer comes from.
        separator: the line that separates documents in a file. Default: both <|endoftext|> and the text of eos are
            separators, and a text with lines of another known separator, like </s>, is refused. "": no separator.
        seed: random seed for choosing the documents for validation.
        progress: True to show a bar in a terminal, or a function that is called with the stage ("learning" or
            "encoding"), the number of bytes or samples done, and their total number.
        format: the format of the samples: "messages" (with role and content), "conversations" (ShareGPT: from and
            value), "prompt" (prompt and completion), "alpaca" (instruction, input, output), "text", or "plain" for
            plain text. Default: found from the content of each file.
        text_field: the field that contains the text of a sample. Default: "text".
        weights: for each file, how often each of its training samples is used in an epoch, above 0 and at most 1000.
            With 2.5, each sample is used two or three times; the seed chooses the samples that are used three times.
        skip_bad: the number of broken lines, elements or rows that are tolerated. They are counted and left out.
        chat_template: the template that turns conversations into text: "chatml", the path of a Jinja file, or the path
            of a model. Default: the template that comes with `tokenizer`.
        loss: the tokens from which the model learns: "assistant" for all answers, "last" for the last answer of a
            conversation, "all" for every token. If a sample is a prompt with a completion, both "assistant" and "last"
            mean the completion.
        max_tokens: the largest number of tokens of a sample. Default: no limit.
        truncate: what is done with a longer sample. "left" drops its first tokens. "turns" drops its oldest turns, and
            leaves the sample out if its last turn alone is too long. "drop" leaves the sample out.
        workers: the other processes of a job (`toynn.parallel.workers`), which encode parts of the texts. Default: this
            process encodes all texts.

    Warns (UserWarning) about possible mistakes in the texts, for example JSON lines, or a separator inside a line.

    Raises:
        TinyNNValueError: an argument is wrong (the message names it); `out` exists already, or another process is
            writing it; the texts have lines of a known separator that is not `separator`; a file is not UTF-8; there is
            no text; the tokenizer changes the text. `out` is then left without new files.
        TinyNNTypeError: an argument has the wrong type. OSError: a file cannot be read or written.
    """
    if out is None:
        raise TinyNNTypeError("out is missing; give the path of the data folder to create")
    folder = path_of("out", out)
    if workers is not None:
        instance_of("workers", workers, Workers)
    if (paths is None) == (documents is None):
        found = "neither was" if paths is None else "both were"
        raise TinyNNTypeError(f"exactly one of paths and documents must be given, but {found} given")
    if vocab_size is not None and tokenizer is not None:
        raise TinyNNValueError(
            "vocab_size and tokenizer cannot be combined: vocab_size learns a new tokenizer, but tokenizer names "
            "an existing tokenizer; leave out one of these arguments"
        )
    options = SampleOptions(
        format, text_field, weights, chat_template, SampleSettings(loss, max_tokens, truncate, skip_bad)
    )
    size = (VOCAB_SIZE if vocab_size is None else vocab_size) if tokenizer is None else None
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toynn-prepare-")))
        if documents is None:
            files = text_paths(_given(paths))
            sources = options.sources(files)
        else:
            options.refuse("documents are plain texts")
            if format is not None or weights is not None:
                raise TinyNNValueError(
                    "format and weights are for files, but documents are given; leave out format and weights"
                )
            if not (lines := separators_of(separator, END_OF_TEXT if eos is None else eos)):
                lines = (separator := "<|toynn-document|>",)  # a line that no document contains
            files, sources = [_written(documents, scratch, lines[0])], []
        shown = stack.enter_context(_shown(progress))
        if is_plain_text(sources):
            options.refuse("the files contain plain text")
            given = None if tokenizer is None else given_tokenizer(tokenizer)[0]
            meta = prepare_files(
                files,
                folder,
                vocab_size=size,
                tokenizer=given,
                validation=validation,
                eos=END_OF_TEXT if eos is None else eos,
                separator=separator,
                seed=seed,
                progress=shown,
                note=notes.append,
                name=None if documents is None else "documents",
                workers=workers,
            )
        else:
            meta = prepare_sources(
                sources,
                folder,
                options,
                vocab_size=size,
                tokenizer=tokenizer,
                validation=validation,
                eos=eos,
                separator=separator,
                seed=seed,
                progress=shown,
                note=notes.append,
                workers=workers,
            )
    for sentence in notes:
        warnings.warn(sentence, stacklevel=2)
    return PreparedData(folder, meta, tuple(notes))


def prepare_ids(
    paths: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    vocab_size: int | None = None,
    tokenizer: PathLike | TextModel | None = None,
    validation: float = 0.05,
    eos: str | None = None,
) -> PreparedData:
    """Turn files of packed token ids into the data folder `out`, for `toynn.train`.

    Args:
        paths: one or several files of int32 ids, little-endian: flat, or with the header TOYC of the Ruby project
            toy.
        out: the folder to create, as for `toynn.prepare`.
        vocab_size: number of ids of the vocabulary. Default: the number in the header of the file, or, for a flat file,
            the number that the tokenizer needs. So a flat file needs vocab_size or tokenizer.
        tokenizer: the tokenizer that encoded the texts as these ids, as for `toynn.prepare`. Without one, a model that
            is trained on the data cannot read or write text.
        validation: share of the ids that is held out for validation, at least 0 and below 1. These are the last ids.
        eos: the token of the tokenizer that ends a document. Default: the data has no known end token.

    Raises:
        TinyNNValueError: an argument is wrong (the message names it); vocab_size differs from the vocabulary size in a
            header. `out` is then left without new files.
        FileFormatError: a file is damaged, or it has an id outside the vocabulary (the message gives its position).
        TinyNNTypeError: an argument has the wrong type. OSError: a file cannot be read or written.
    """
    folder = path_of("out", out)
    given = None if tokenizer is None else given_tokenizer(tokenizer)[0]
    meta = prepare_id_files(
        _given(paths), folder, vocab_size=vocab_size, tokenizer=given, validation=validation, eos=eos
    )
    return PreparedData(folder, meta)


def _given(paths: object) -> list[Path]:
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if not isinstance(paths, Sequence) or isinstance(paths, bytes | bytearray):
        raise TinyNNTypeError(f"paths must be a path or a sequence of paths, got {type(paths).__name__}")
    files = [path_of(f"paths[{i}]", path) for i, path in enumerate(paths)]
    for i, path in enumerate(files):
        if not path.exists():
            raise FileNotFoundError(
                f"paths[{i}]: the file {path!s:.200} does not exist; to give texts, use documents=[...]"
            )
    return files


def _written(documents: Iterable[str], folder: Path, separator: str) -> Path:
    """Write the documents to one file, with a separator line between them, and return its path."""
    if isinstance(documents, str) or not isinstance(documents, Iterable):
        raise TinyNNTypeError(f"documents must be an iterable of str, got {type(documents).__name__}")
    path = folder / "documents.txt"
    with naming_file(path), path.open("wb") as file:
        for i, document in enumerate(documents):
            if not isinstance(document, str):
                raise TinyNNTypeError(f"documents[{i}] must be a str, got {type(document).__name__}")
            try:
                content = document.removeprefix(BYTE_ORDER_MARK).encode("utf-8")
            except UnicodeEncodeError as error:
                raise TinyNNValueError(
                    f"documents[{i}] is not Unicode text: {error.reason} at character {error.start}"
                ) from None
            if i > 0:
                file.write(separator.encode("utf-8") + b"\n")
            file.write(content if content.endswith(b"\n") else content + b"\n")
    return path


@contextlib.contextmanager
def _shown(progress: object) -> Iterator[Progress | None]:
    """Yield the function that reports progress: `progress` itself if it is a function, otherwise a function that moves
    a bar. Yield None if `progress` is false, or if no bar can be shown, for example because stderr is not a terminal.
    """
    if callable(progress):
        yield progress
        return
    wanted = boolean("progress", progress)
    if not wanted or find_spec("rich") is None or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda stage, done, in_all: bar.update(task, description=_STAGES[stage], completed=done, total=in_all)

"""Make a data folder from text files. Files are read in pieces, so they may be larger than the memory.

Needs the library tokenizers (extra toynn[cli]).
"""

from __future__ import annotations

import codecs
import hashlib
import heapq
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toynn.arguments import INT31_MAX, integer, label, real
from toynn.data.learning import learned_bpe
from toynn.data.meta import META, SPLITS, TOKENIZER, DataMeta, Source, Split, TokenizerFile
from toynn.errors import FileFormatError, TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.durable_files import make_folder, replace_file, sha256_of, sync
from toynn.storage.regular_files import naming_file, open_regular, path_of, read_regular
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer, token_ids

with naming_the_extra():
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
_LEAST_VOCAB = 257  # all bytes, and the end-of-text token
_PIECE = 1 << 16  # approximate bytes of text per call of the tokenizer; pieces end at line ends
_LONGEST_LINE = 1 << 20  # characters; longer lines are split into parts, each encoded in about a second
_READ = 1 << 20  # bytes
_BATCH = 64  # most pieces encoded together
_BATCH_TEXT = 1 << 20  # most characters encoded together: about a second, for which Ctrl-C waits
_CHECKED_PIECES = 64  # pieces of each file that are encoded and decoded to check the tokenizer

Progress = Callable[[str, int, int], None]  # stage, bytes done, all bytes


@dataclass(frozen=True)
class _Piece:
    """Part of a document: one or more lines, or a part of a very long line."""

    document: int
    start: int  # bytes of text before it, over all files
    text: str
    ends_document: bool


def prepare(
    texts: Sequence[Path],
    out: Path,
    *,
    vocab_size: int | None = None,
    tokenizer: Path | bytes | None = None,
    validation: float = 0.05,
    eos: str = END_OF_TEXT,
    separator: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DataMeta:
    """Make the data folder `out` with train.bin, validation.bin, tokenizer.json and, written last, meta.json.

    A document is a file, or a part of a file between separator lines. The token `eos` is added after each document.
    Each document goes to training or validation as a whole; the seed decides which. If there is only one document, its
    end goes to validation.

    Args:
        texts: UTF-8 files.
        out: the folder to make. It must not exist yet, or be empty.
        vocab_size: size of the byte-level BPE vocabulary to learn from the texts, at least 257. Short texts give fewer
            tokens.
        tokenizer: an existing tokenizer.json (a path, or its content) to use instead of learning one. The copy
            in `out` has truncation and padding turned off.
        validation: share of the documents used for validation, from 0 (none) to below 1.
        eos: the token that ends a document; must not look like text. An existing tokenizer must have it as an added
            token. "": no token.
        separator: the line that separates documents; default: the text of eos.
        progress: called with the stage ("learning" or "encoding"), the bytes done and all bytes.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument, with its name; files without any text.
        FileFormatError: a text file that is not UTF-8, with the position of the byte; a tokenizer that is not valid or
            does not decode a text to what was encoded.
        OSError: a file that cannot be read or written.
        After an error nothing is left in `out`. After a kill `out` has no meta.json and so is not a data folder.
    """
    paths = _paths(texts)
    share = real("validation", validation, lambda x: 0 <= x < 1, "at least 0 and below 1")
    _check_eos(eos)
    cut = eos if separator is None else _line("separator", separator)
    if (vocab_size is None) == (tokenizer is None):
        raise TinyNNValueError("give exactly one of vocab_size and tokenizer")
    if vocab_size is not None:
        vocab_size = integer("vocab_size", vocab_size, _LEAST_VOCAB)
    given = tokenizer if isinstance(tokenizer, bytes | None) else path_of("tokenizer", tokenizer)
    integer("seed", seed, 0, 2**63 - 1)
    report = _checked_progress(progress)
    out = path_of("out", out)
    _refuse_used(out)
    sources = [Source(path.name, path.stat().st_size, sha256_of(path)) for path in paths]
    file_bytes = sum(source.bytes for source in sources)
    n_documents, text_bytes = _counted(paths, cut)
    size = _PIECE if n_documents > 1 else max(min(_PIECE, text_bytes // 100), 1)

    if given is not None:
        model = _loaded(given, eos)
        _check_decoding(model, paths, cut)
    elif vocab_size is not None:
        pieces = _reported(_pieces(paths, cut, _PIECE), report, file_bytes)
        model = learned_bpe((piece.text for piece in pieces), text_bytes, vocab_size, eos)
    vocab = ids_needed(model)
    eos_id = model.token_to_id(eos) if eos else None

    split_of = _split_rule(n_documents, text_bytes, share, seed)
    with _folder_made(out):
        writers = {name: _Writer(out / f"{name}.bin", "uint16" if vocab <= 1 << 16 else "uint32") for name in SPLITS}
        try:
            for batch in _batches(_pieces(paths, cut, size)):
                encoded = token_ids(model, [piece.text for piece in batch])
                for piece, ids in zip(batch, encoded, strict=True):
                    end = [eos_id] if piece.ends_document and eos_id is not None else []
                    writers[split_of(piece)].add(ids + end, len(piece.text.encode("utf-8")))
                report("encoding", batch[-1].start, text_bytes)
            report("encoding", text_bytes, text_bytes)
            splits = {name: writer.finished() for name, writer in writers.items()}
        except BaseException:
            for writer in writers.values():
                writer.abandon()
            raise

        with naming_file(out / TOKENIZER):
            replace_file(out / TOKENIZER, model.to_str(pretty=True).encode("utf-8"))
        meta = DataMeta(
            writers["train"].dtype,
            vocab,
            splits,
            TokenizerFile(TOKENIZER, sha256_of(out / TOKENIZER)),
            eos_id,
            eos_id,
            sources,
        )
        with naming_file(out / META):
            sync(out)
            replace_file(out / META, meta.to_json().encode("utf-8"))
    return meta


# ---- arguments ----


def _line(name: str, value: object) -> str:
    """Return a str of one line that UTF-8 can encode. Raises TinyNNTypeError, TinyNNValueError."""
    line = label(name, value).decode("utf-8")
    if "\n" in line:
        raise TinyNNValueError(f"{name} must be one line, got {line!r:.60}")
    return line


def _paths(texts: object) -> list[Path]:
    """Return the files to read. Raises TinyNNTypeError; TinyNNValueError for no file, or one that is not regular."""
    if isinstance(texts, (str, bytes, os.PathLike)) or not isinstance(texts, Sequence):
        raise TinyNNTypeError(f"texts must be a sequence of paths, got {type(texts).__name__}")
    paths = [path_of(f"texts[{i}]", path) for i, path in enumerate(texts)]
    if not paths:
        raise TinyNNValueError("texts must have at least one file, got none")
    for path in paths:
        if path.is_dir():
            raise TinyNNValueError(f"texts: {path} is a folder; name the files in it, like {path}/*.txt")
        if path.exists() and not path.is_file():
            raise TinyNNValueError(f"texts: {path} is not a regular file, and each text is read more than once")
    return paths


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        names = (Path(f"{out}-{n}") for n in itertools.count(2))
        free = next(name for name in names if not name.exists())
        raise TinyNNValueError(f"out: {out} exists and is not an empty folder; use another name, like {free}")


@contextmanager
def _folder_made(out: Path) -> Iterator[None]:
    """Make the folder for the block to fill. After an error, also one of the block, remove what was made."""
    folders = make_folder(out)
    try:
        yield
    except BaseException:
        for name in (*(f"{split}.bin" for split in SPLITS), TOKENIZER, META):
            (out / name).unlink(missing_ok=True)
        for folder in folders:
            with suppress(OSError):  # another process has put something into it
                folder.rmdir()
        raise


def _check_eos(eos: object) -> None:
    """Refuse an eos that texts are likely to contain: each occurrence would end a document."""
    end = _line("eos", eos)
    if end and (len(end) == 1 or all(char.isalnum() or char.isspace() for char in end)):
        raise TinyNNValueError(f"eos: {end!r} looks like text; use a token that no text contains, like {END_OF_TEXT}")


def _checked_progress(progress: Progress | None) -> Progress:
    if progress is not None and not callable(progress):
        raise TinyNNTypeError(f"progress must be callable, got {type(progress).__name__}")
    return progress or (lambda *_: None)


# ---- reading ----


def _lines(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a UTF-8 file with their ends, and whether each is complete: very long lines are split.

    Raises FileFormatError with the position of a byte that is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    held, begins, at, chunk = "", True, 0, b"-"
    with open_regular(path) as file:
        while chunk:
            chunk = file.read(_READ)
            try:
                held += decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                byte = at - (len(error.object) - len(chunk)) + error.start
                raise FileFormatError(f"{path} is not UTF-8: byte {byte} is {error.object[error.start]:#04x}") from None
            at += len(chunk)
            *lines, held = held.split("\n")
            for line in lines:
                yield line + "\n", begins
                begins = True
            while len(held) > _LONGEST_LINE:
                space = held.rfind(" ", _LONGEST_LINE // 2, _LONGEST_LINE)  # a word ends at a space in any case
                end = space if space > 0 else _LONGEST_LINE
                yield held[:end], False
                held, begins = held[end:], False
    if held:
        yield held, begins


def _pieces(paths: Sequence[Path], separator: str, size: int) -> Iterator[_Piece]:
    """Yield the documents of all files in pieces of about `size` bytes, cut at line ends. Skip empty documents."""
    document, start = 0, 0
    for path in paths:
        held: list[str] = []
        length = 0
        began = False  # a piece of the document was yielded
        for line, is_whole in _lines(path):
            if separator and is_whole and line.rstrip("\r\n") == separator:
                if held or began:
                    text = "".join(held)
                    yield _Piece(document, start, text, True)
                    start += length
                    document += 1
                held, length, began = [], 0, False
                continue
            if length >= size:  # this line continues the document, so the held text does not end it
                yield _Piece(document, start, "".join(held), False)
                start += length
                held, length, began = [], 0, True
            held.append(line)
            length += len(line.encode("utf-8"))
        if held or began:
            yield _Piece(document, start, "".join(held), True)
            start += length
            document += 1


def _reported(pieces: Iterator[_Piece], report: Progress, file_bytes: int) -> Iterator[_Piece]:
    for piece in pieces:
        report("learning", piece.start, file_bytes)
        yield piece


def _counted(paths: Sequence[Path], separator: str) -> tuple[int, int]:
    """Return the numbers of documents and bytes of text in all files. Raises TinyNNValueError if there is no text."""
    n_documents, text_bytes = 0, 0
    for piece in _pieces(paths, separator, _PIECE):
        n_documents = max(n_documents, piece.document + 1)
        text_bytes += len(piece.text.encode("utf-8"))
    if text_bytes == 0:
        raise TinyNNValueError("texts: the files contain no text")
    return n_documents, text_bytes


def _batches(pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if len(batch) == _BATCH or characters >= _BATCH_TEXT:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


# ---- the tokenizer ----


def _loaded(given: Path | bytes, eos: str) -> Tokenizer:
    path = "the given tokenizer.json" if isinstance(given, bytes) else str(given)
    try:
        model = parsed_tokenizer(given if isinstance(given, bytes) else read_regular(given))
    except TinyNNValueError as error:
        raise FileFormatError(f"tokenizer: {path} cannot be used: {error}") from None
    if eos and model.token_to_id(eos) is None:
        raise TinyNNValueError(f"tokenizer: {path} has no token {eos!r} to end documents with; use another eos")
    if eos and eos not in {token.content for token in model.get_added_tokens_decoder().values()}:
        raise TinyNNValueError(f"eos: {eos!r} is a token of plain text in {path}; use one of its added tokens")
    if ids_needed(model) > INT31_MAX:
        raise FileFormatError(f"tokenizer: {path} must have ids of at most {INT31_MAX}")
    return model


def _check_decoding(model: Tokenizer, paths: Sequence[Path], separator: str) -> None:
    """Raise FileFormatError if decoding does not return the text that was encoded."""
    for path in paths:
        for i, piece in enumerate(_pieces([path], separator, _PIECE)):
            if i == _CHECKED_PIECES:
                break
            back = model.decode(token_ids(model, [piece.text])[0], skip_special_tokens=False)
            if back != piece.text:
                at = next((n for n, (a, b) in enumerate(zip(back, piece.text, strict=False)) if a != b), len(back))
                raise FileFormatError(
                    f"tokenizer: it changes the text of {path}: {piece.text[at : at + 20]!r} becomes "
                    f"{back[at : at + 20]!r}; use a byte-level tokenizer"
                )


# ---- writing ----


def _split_rule(n_documents: int, text_bytes: int, share: float, seed: int) -> Callable[[_Piece], str]:
    """Return the function that says which split a piece belongs to.

    Validation gets the documents with the lowest hashes; with two or more documents, each split gets at least one. A
    single document is cut: validation gets its end.
    """
    train, validation = SPLITS
    if share == 0:
        return lambda _: train
    if n_documents == 1:
        tail = text_bytes - round(text_bytes * share)
        return lambda piece: validation if piece.start >= tail else train

    def place(document: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{document}".encode(), digest_size=16).digest()

    n = min(max(round(n_documents * share), 1), n_documents - 1)
    held_out = set(heapq.nsmallest(n, range(n_documents), key=place))
    return lambda piece: validation if piece.document in held_out else train


class _Writer:
    """A token file that is being written."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.dtype = dtype
        self._path = path
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._tokens = 0
        self._bytes = 0

    def add(self, ids: Sequence[int], text_bytes: int) -> None:
        raw = np.asarray(ids, dtype=np.dtype(self.dtype).newbyteorder("<")).tobytes()
        with naming_file(self._path):
            self._file.write(raw)
        self._digest.update(raw)
        self._tokens += len(ids)
        self._bytes += text_bytes

    def finished(self) -> Split:
        """Sync and close the file, and return its description."""
        with naming_file(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return Split(self._path.name, self._tokens, self._bytes, self._digest.hexdigest())

    def abandon(self) -> None:
        """Close the incomplete file. Its errors are ignored, because another error is being handled."""
        with suppress(OSError):
            self._file.close()

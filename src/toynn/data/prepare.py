"""Make a data folder from text files. Files are read in pieces, so they may be larger than the memory.

Needs the library tokenizers (extra toynn[cli]).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from toynn.arguments import INT31_MAX, integer, real
from toynn.data.learning import learned_bpe
from toynn.data.meta import META, SPLITS, TOKENIZER, DataMeta, Source, Split, TokenizerFile
from toynn.errors import FileFormatError, TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.durable_files import make_folder, replace_file, sha256_of, sync
from toynn.storage.regular_files import naming_file, path_of, read_regular
from toynn.storage.text_files import text_parts
from toynn.text.documents import END_OF_TEXT, PIECE, Piece, encoded, one_line, pieces, separators_of
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer, token_ids

with naming_the_extra():
    from tokenizers import Tokenizer

__all__ = ["END_OF_TEXT", "PIECE", "prepare"]

_LEAST_VOCAB = 257  # all bytes, and the end-of-text token
_CHECKED_PIECES = 64  # pieces of each file that are encoded and decoded to check the tokenizer

Progress = Callable[[str, int, int], None]  # stage, bytes done, all bytes


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
    cut = separators_of(separator, eos)
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
    size = PIECE if n_documents > 1 else max(min(PIECE, text_bytes // 100), 1)

    if given is not None:
        model = _loaded(given, eos)
        _check_decoding(model, paths, cut)
    elif vocab_size is not None:
        all_pieces = _reported(pieces(_texts_of(paths), cut, PIECE), report, file_bytes)
        model = learned_bpe((piece.text for piece in all_pieces), text_bytes, vocab_size, eos)
    vocab = ids_needed(model)
    eos_id = model.token_to_id(eos) if eos else None

    split_of = _split_rule(n_documents, text_bytes, share, seed)
    with _folder_made(out):
        writers = {name: _Writer(out / f"{name}.bin", "uint16" if vocab <= 1 << 16 else "uint32") for name in SPLITS}
        try:
            for piece, ids in encoded(model, pieces(_texts_of(paths), cut, size)):
                end = [eos_id] if piece.ends_document and eos_id is not None else []
                writers[split_of(piece)].add(ids + end, len(piece.text.encode("utf-8")))
                report("encoding", piece.start, text_bytes)
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
    """Make the folder, which the block fills. If that or the block fails, remove what was made."""
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
    end = one_line("eos", eos)
    if end and (len(end) == 1 or all(char.isalnum() or char.isspace() for char in end)):
        raise TinyNNValueError(f"eos: {end!r} looks like text; use a token that no text contains, like {END_OF_TEXT}")


def _checked_progress(progress: Progress | None) -> Progress:
    if progress is not None and not callable(progress):
        raise TinyNNTypeError(f"progress must be callable, got {type(progress).__name__}")
    return progress or (lambda *_: None)


# ---- reading ----


def _texts_of(paths: Sequence[Path]) -> Iterator[Iterator[str]]:
    return (text_parts(path) for path in paths)


def _reported(all_pieces: Iterator[Piece], report: Progress, file_bytes: int) -> Iterator[Piece]:
    for piece in all_pieces:
        report("learning", piece.start, file_bytes)
        yield piece


def _counted(paths: Sequence[Path], separators: Sequence[str]) -> tuple[int, int]:
    """Return the numbers of documents and bytes of text in all files. Raises TinyNNValueError if there is no text."""
    n_documents, text_bytes = 0, 0
    for piece in pieces(_texts_of(paths), separators, PIECE):
        n_documents = max(n_documents, piece.document + 1)
        text_bytes += len(piece.text.encode("utf-8"))
    if text_bytes == 0:
        raise TinyNNValueError("texts: the files contain no text")
    return n_documents, text_bytes


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


def _check_decoding(model: Tokenizer, paths: Sequence[Path], separators: Sequence[str]) -> None:
    """Raise FileFormatError if decoding does not return the text that was encoded."""
    for path in paths:
        for i, piece in enumerate(pieces(_texts_of([path]), separators, PIECE)):
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


def _split_rule(n_documents: int, text_bytes: int, share: float, seed: int) -> Callable[[Piece], str]:
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

"""From text files to a data folder. Files are read piece by piece: none has to fit into memory.

Needs the tokenizers library, of the extra toynn[cli].
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
from toynn.data.meta import META, SPLITS, TOKENIZER, DataMeta, Source, Split
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.durable_files import make_folder, replace_file, sha256_of, sync
from toynn.storage.regular_files import naming_file, open_regular, path_of
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer, token_ids

with naming_the_extra():
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
_LEAST_VOCAB = 257  # every byte, and the end of a text
_PIECE = 1 << 16  # bytes of text that go to the tokenizer at once, more or less: pieces end at lines
_LONGEST_LINE = 1 << 20  # characters; longer ones come in parts, each encoded in about a second
_READ = 1 << 20  # bytes
_BATCH = 64  # pieces encoded together,
_BATCH_TEXT = 1 << 20  # or so many characters: about a second, for which Ctrl-C waits
_CHECKED_PIECES = 64  # of each file, that must come back from the tokenizer as they went in

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all


@dataclass(frozen=True)
class _Piece:
    """Part of a document: at least one line of text, or a line's end."""

    document: int
    start: int  # bytes of text before it, in all files
    text: str
    ends_document: bool


def prepare(
    texts: Sequence[Path],
    out: Path,
    *,
    vocab_size: int | None = None,
    tokenizer: Path | None = None,
    validation: float = 0.05,
    eos: str = END_OF_TEXT,
    separator: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DataMeta:
    """Makes the data folder `out`: train.bin, validation.bin, tokenizer.json, and last of all meta.json.

    A document is a file, or a part of one between lines that are `separator`; `eos` ends each. Whole documents go to
    training or validation, which ones is drawn from the seed; of a single document the tail goes to validation.

    Args:
        texts: UTF-8 files.
        out: a folder that is not there yet, or is empty.
        vocab_size: of a byte-level BPE trained on the texts, at least 257. Texts too short for it give fewer tokens.
        tokenizer: or a tokenizer.json that exists already; one of the two. Truncation and padding are turned off, in
            the tokenizer.json of `out` too.
        validation: share of the documents, from 0 (none) to below 1.
        eos: the token that ends a document: none that reads like text. A given tokenizer must have it among its added
            tokens. "": none.
        separator: default: the text of eos.
        progress: is told of the stage ("learning", "encoding"), the bytes done and the bytes in all.

    Raises:
        TinyNNValueError: an argument, by name; a file that is not UTF-8 (with the byte), no text at all, a tokenizer
            that does not give back what it was given.
        OSError: a file that cannot be read or written.
        What was written is then taken away again. After a kill `out` has no meta.json, so that nothing takes it for
        complete.
    """
    paths = _paths(texts)
    share = real("validation", validation, lambda x: 0 <= x < 1, "at least 0 and below 1")
    _no_text(eos)
    cut = eos if separator is None else _line("separator", separator)
    if (vocab_size is None) == (tokenizer is None):
        raise TinyNNValueError("vocab_size or tokenizer: exactly one of them must be given")
    if vocab_size is not None:
        vocab_size = integer("vocab_size", vocab_size, _LEAST_VOCAB)
    given = None if tokenizer is None else path_of("tokenizer", tokenizer)
    integer("seed", seed, 0, 2**63 - 1)
    tell = _teller(progress)
    out = path_of("out", out)
    _refuse_full(out)
    sources = [Source(path.name, path.stat().st_size, sha256_of(path)) for path in paths]
    in_all = sum(source.bytes for source in sources)
    n_documents, text_bytes = _counted(paths, cut)
    size = _PIECE if n_documents > 1 else max(min(_PIECE, text_bytes // 100), 1)

    if given is not None:
        model = _loaded(given, eos)
        _gives_back(model, paths, cut)
    elif vocab_size is not None:
        pieces = _told(_pieces(paths, cut, _PIECE), tell, in_all)
        model = learned_bpe((piece.text for piece in pieces), text_bytes, vocab_size, eos)
    vocab = ids_needed(model)
    eos_id = model.token_to_id(eos) if eos else None

    belongs = _division(n_documents, text_bytes, share, seed)
    with _made(out):
        writers = {name: _Writer(out / f"{name}.bin", "uint16" if vocab <= 1 << 16 else "uint32") for name in SPLITS}
        try:
            for batch in _batches(_pieces(paths, cut, size)):
                encoded = token_ids(model, [piece.text for piece in batch])
                for piece, ids in zip(batch, encoded, strict=True):
                    end = [eos_id] if piece.ends_document and eos_id is not None else []
                    writers[belongs(piece)].add(ids + end, len(piece.text.encode("utf-8")))
                tell("encoding", batch[-1].start, text_bytes)
            tell("encoding", text_bytes, text_bytes)
            splits = {name: writer.finished() for name, writer in writers.items()}
        except BaseException:
            for writer in writers.values():
                writer.abandon()
            raise

        with naming_file(out / TOKENIZER):
            replace_file(out / TOKENIZER, model.to_str(pretty=True).encode("utf-8"))
        meta = DataMeta(writers["train"].dtype, vocab, splits, sha256_of(out / TOKENIZER), eos_id, eos_id, sources)
        with naming_file(out / META):
            sync(out)
            replace_file(out / META, meta.to_json().encode("utf-8"))
    return meta


# ---- arguments ----


def _line(name: str, value: object) -> str:
    """A str of one line that UTF-8 can write. Raises TinyNNTypeError, TinyNNValueError."""
    line = label(name, value).decode("utf-8")
    if "\n" in line:
        raise TinyNNValueError(f"{name} must be one line, got {line!r:.60}")
    return line


def _paths(texts: object) -> list[Path]:
    """The files to read. Raises TinyNNTypeError, and TinyNNValueError for none, or what cannot be read twice."""
    if isinstance(texts, (str, bytes, os.PathLike)) or not isinstance(texts, Sequence):
        raise TinyNNTypeError(f"texts must be a sequence of paths, got {type(texts).__name__}")
    paths = [path_of(f"texts[{i}]", path) for i, path in enumerate(texts)]
    if not paths:
        raise TinyNNValueError("texts: at least one file is needed")
    for path in paths:
        if path.is_dir():
            raise TinyNNValueError(f"texts: {path} is a folder; name the files in it, like {path}/*.txt")
        if path.exists() and not path.is_file():
            raise TinyNNValueError(f"texts: {path} is no regular file (each is read more than once)")
    return paths


def _refuse_full(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        names = (Path(f"{out}-{n}") for n in itertools.count(2))
        free = next(name for name in names if not name.exists())
        raise TinyNNValueError(f"out: {out} is there already and is not an empty folder; name another, like {free}")


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """The folder, for the block to fill. After an error, the block's own too, what was made is taken away again."""
    folders = make_folder(out)
    try:
        yield
    except BaseException:
        for name in (*(f"{split}.bin" for split in SPLITS), TOKENIZER, META):
            (out / name).unlink(missing_ok=True)
        for folder in folders:
            with suppress(OSError):  # another puts something there
                folder.rmdir()
        raise


def _no_text(eos: object) -> None:
    """Refuses an eos that texts hold as a matter of course: there it would be the end of a document too."""
    end = _line("eos", eos)
    if end and (len(end) == 1 or all(char.isalnum() or char.isspace() for char in end)):
        raise TinyNNValueError(f"eos: {end!r} reads like text; name what no text holds, like {END_OF_TEXT}")


def _teller(progress: Progress | None) -> Progress:
    if progress is not None and not callable(progress):
        raise TinyNNTypeError(f"progress must be callable, got {type(progress).__name__}")
    return progress or (lambda *_: None)


# ---- reading ----


def _lines(path: Path) -> Iterator[tuple[str, bool]]:
    """The lines of a UTF-8 file with their ends, and whether each is a whole one: the longest come in parts.

    Raises TinyNNValueError with the byte that is wrong.
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
                raise TinyNNValueError(
                    f"{path} is not UTF-8: byte {byte} is {error.object[error.start]:#04x}"
                ) from None
            at += len(chunk)
            *lines, held = held.split("\n")
            for line in lines:
                yield line + "\n", begins
                begins = True
            while len(held) > _LONGEST_LINE:
                space = held.rfind(" ", _LONGEST_LINE // 2, _LONGEST_LINE)  # words end there anyway
                end = space if space > 0 else _LONGEST_LINE
                yield held[:end], False
                held, begins = held[end:], False
    if held:
        yield held, begins


def _pieces(paths: Sequence[Path], separator: str, size: int) -> Iterator[_Piece]:
    """The documents of all files in pieces of about so many bytes, cut at line ends. Empty documents are left out."""
    document, start = 0, 0
    for path in paths:
        held: list[str] = []
        length = 0
        began = False  # the document has given a piece already
        for line, is_whole in _lines(path):
            if separator and is_whole and line.rstrip("\r\n") == separator:
                if held or began:
                    text = "".join(held)
                    yield _Piece(document, start, text, True)
                    start += length
                    document += 1
                held, length, began = [], 0, False
                continue
            if length >= size:  # there is more of the document: what is held does not end it
                yield _Piece(document, start, "".join(held), False)
                start += length
                held, length, began = [], 0, True
            held.append(line)
            length += len(line.encode("utf-8"))
        if held or began:
            yield _Piece(document, start, "".join(held), True)
            start += length
            document += 1


def _told(pieces: Iterator[_Piece], tell: Progress, in_all: int) -> Iterator[_Piece]:
    for piece in pieces:
        tell("learning", piece.start, in_all)
        yield piece


def _counted(paths: Sequence[Path], separator: str) -> tuple[int, int]:
    """Documents and bytes of text in all files. Raises TinyNNValueError where there is no text."""
    n_documents, text_bytes = 0, 0
    for piece in _pieces(paths, separator, _PIECE):
        n_documents = max(n_documents, piece.document + 1)
        text_bytes += len(piece.text.encode("utf-8"))
    if text_bytes == 0:
        raise TinyNNValueError("texts: the files hold no text")
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


def _loaded(path: Path, eos: str) -> Tokenizer:
    try:
        with open_regular(path) as file:
            model = parsed_tokenizer(file.read())
    except TinyNNValueError as error:
        raise TinyNNValueError(f"tokenizer: {path} cannot be taken: {error}") from None
    if eos and model.token_to_id(eos) is None:
        raise TinyNNValueError(
            f"tokenizer: {path} does not know the token {eos!r} that ends a document; name another eos"
        )
    if eos and eos not in {token.content for token in model.get_added_tokens_decoder().values()}:
        raise TinyNNValueError(
            f"eos: {eos!r} is a token of plain text in {path}; name one of its added tokens, which stand for no text"
        )
    if ids_needed(model) > INT31_MAX:
        raise TinyNNValueError(f"tokenizer: {path} has ids that do not fit 31 bits")
    return model


def _gives_back(model: Tokenizer, paths: Sequence[Path], separator: str) -> None:
    """Raises TinyNNValueError where the tokenizer loses characters."""
    for path in paths:
        for i, piece in enumerate(_pieces([path], separator, _PIECE)):
            if i == _CHECKED_PIECES:
                break
            back = model.decode(token_ids(model, [piece.text])[0], skip_special_tokens=False)
            if back != piece.text:
                at = next((n for n, (a, b) in enumerate(zip(back, piece.text, strict=False)) if a != b), len(back))
                raise TinyNNValueError(
                    f"tokenizer: it does not give back the text of {path}: {piece.text[at : at + 20]!r} "
                    f"becomes {back[at : at + 20]!r}; a byte-level tokenizer is needed"
                )


# ---- writing ----


def _division(n_documents: int, text_bytes: int, share: float, seed: int) -> Callable[[_Piece], str]:
    """Which split a piece belongs to.

    For validation are the documents whose hashes are lowest, at least one on each side where there are two; of a single
    document its tail.
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
    """A token file under way."""

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
        """Closes the file, once the disk has it."""
        with naming_file(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return Split(self._path.name, self._tokens, self._bytes, self._digest.hexdigest())

    def abandon(self) -> None:
        """Closes the file as it is: another error is on its way already."""
        with suppress(OSError):
            self._file.close()

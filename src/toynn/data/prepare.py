"""Make a data folder from text files. The files are read in parts, so they may be larger than the memory.

This module needs the library tokenizers (extra toynn[cli]).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from toynn.arguments import integer, real
from toynn.data.given_tokenizer import check_decoding, given_tokenizer
from toynn.data.learning import learned_bpe
from toynn.data.meta import (
    META,
    SPLITS,
    TOKENIZER,
    DataMeta,
    Source,
    Split,
    dtype_of,
    write_meta,
    write_tokenizer_file,
)
from toynn.data.splits import TRAIN, divided
from toynn.data.text_task import TextTask
from toynn.data.texts import Texts, notes_on, survey
from toynn.data.texts_to_learn import Progress, texts_to_learn
from toynn.data.token_file import has_header
from toynn.data.token_writer import TokenWriter, token_writers
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.parallel.workers import Workers, each_in_order
from toynn.storage.durable_files import sha256_of
from toynn.storage.new_folder import new_folder
from toynn.storage.regular_files import path_of
from toynn.text.documents import END_OF_TEXT, PIECE, Piece, encoded, one_line, separators_of
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import added_tokens, ids_needed
from toynn.wording import spelled

with naming_the_extra():
    from tokenizers import Tokenizer

__all__ = ["END_OF_TEXT", "PIECE", "prepare"]

FILES = (*(f"{split}.bin" for split in SPLITS), TOKENIZER, META)
LEAST_VOCAB = 257  # 256 bytes and the end-of-text token

Note = Callable[[str], None]  # a function that gets a sentence about a possible mistake in the texts


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
    note: Note | None = None,
    name: str | None = None,
    workers: Workers | None = None,
) -> DataMeta:
    """Make the data folder `out` with train.bin, validation.bin and tokenizer.json, and at the end meta.json.

    Separator lines divide a file into documents. A file without separator lines is one document. The token `eos` is
    added after each document. Each document goes as a whole to training or to validation, as the seed determines. If
    there is only one document, its end goes to validation.

    Args:
        texts: paths of UTF-8 files.
        out: the folder to create. If it exists, it must be empty or contain only the remains of a killed `prepare`.
        vocab_size: size of the byte-level BPE vocabulary to learn from the texts, at least 257. The vocabulary becomes
            smaller if the texts are short.
        tokenizer: an existing tokenizer.json, as its path or content, to use instead of learning one. Truncation and
            padding are turned off in the copy in `out`.
        validation: share of the documents used for validation, at least 0 (none) and below 1.
        eos: the token that ends a document. A single character is refused, and so is a text of only letters, digits and
            spaces. An existing tokenizer must have this token as a special token. "": documents get no end token.
        separator: the line that separates documents. Default: <|endoftext|> and the text of eos. "": no separator.
        seed: random seed for choosing the documents for validation.
        progress: called with the stage ("learning" or "encoding"), the number of bytes done, and the number of all
            bytes.
        note: called with a sentence about each possible mistake in the texts, before the texts are encoded.
        name: the name of the texts in messages. Default: the path of the first file.
        workers: the other processes of a job, which encode parts of the texts. Default: none.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument is wrong (the message names it); the files contain no text;
            another process is writing the folder; `separator` is None and the texts have lines of another known
            separator.
        FileFormatError: a text file is not UTF-8; the tokenizer is not valid or changes the texts.
        OSError: a file cannot be read or written.
        After an error, `out` contains no new files. If the process is killed, `out` has no meta.json.
    """
    paths = text_paths(texts)
    share = real("validation", validation, lambda x: 0 <= x < 1, "at least 0 and below 1")
    check_eos(eos)
    cut = separators_of(separator, eos)
    if (vocab_size is None) == (tokenizer is None):
        found_args = "neither was" if tokenizer is None else "both were"
        raise TinyNNValueError(f"exactly one of vocab_size and tokenizer must be given, but {found_args} given")
    if vocab_size is not None:
        vocab_size = integer("vocab_size", vocab_size, LEAST_VOCAB)
    given = tokenizer if isinstance(tokenizer, bytes | None) else path_of("tokenizer", tokenizer)
    integer("seed", seed, 0, 2**63 - 1)
    _check_callable("progress", progress)
    _check_callable("note", note)
    report: Progress = progress or (lambda *_: None)
    for path in paths:
        if has_header(path):
            raise TinyNNValueError(
                f"texts: {path} holds packed token ids, not text; use {spelled('toynn.prepare_ids', '--ids')}"
            )
    with new_folder(spelled("out", "--out"), path_of("out", out), FILES) as folder:
        sources = [Source(path.name, path.stat().st_size, sha256_of(path)) for path in paths]
        found = survey(paths, cut, eos, name)
        model = None if given is None else given_tokenizer(given, eos)
        tokens = {eos} if model is None else added_tokens(model)
        for sentence in notes_on(found, eos, tokens, chosen=separator is not None):
            if note is not None:
                note(sentence)
        if model is not None:
            check_decoding(model, found)
        else:
            to_learn = texts_to_learn(found, report, sum(source.bytes for source in sources))
            model = learned_bpe(to_learn, found.text_bytes, vocab_size or LEAST_VOCAB, eos)
        vocab = ids_needed(model)
        eos_id = model.token_to_id(eos) if eos else None
        before = tokens_around(model).before
        # in training, the end token of one text comes before the next text, so the end token is also the begin token
        bos_id = before[0] if before else eos_id
        all_pieces, split_of = divided(found, share, seed)
        splits = _packed(folder, vocab, model, all_pieces, split_of, eos_id, found, report, workers)
        for which, split in splits.items():
            if split.tokens == 0 and (share > 0 or which == TRAIN):
                raise TinyNNValueError(
                    f"texts: the tokenizer encodes the {split.bytes} bytes of the {which} split as 0 tokens; add text, "
                    "or use another tokenizer"
                )
        described = write_tokenizer_file(folder, model.to_str(pretty=True).encode("utf-8"))
        meta = DataMeta(dtype_of(vocab), vocab, splits, described, eos_id, bos_id, sources, separator)
        write_meta(folder, meta)
    return meta


def _packed(
    folder: Path,
    vocab: int,
    model: Tokenizer,
    all_pieces: Iterator[Piece],
    split_of: Callable[[Piece], str],
    eos_id: int | None,
    texts: Texts,
    report: Progress,
    workers: Workers | None,
) -> dict[str, Split]:
    """Write the token files of both splits and return their descriptions. Raises the errors of `prepare`."""
    if workers is not None:
        workers.start(TextTask(model))
    with token_writers(folder, vocab) as writers:
        document, ends = -1, list(texts.document_ends)
        for piece, ids in encoded(model, all_pieces, each=each_in_order(workers)):
            while piece.document >= ends[0]:
                _end_source(writers, ends)
            end = [eos_id] if piece.ends_document and eos_id is not None else []
            begins, document = piece.document != document, piece.document
            writers[split_of(piece)].add(ids + end, len(piece.text.encode("utf-8")), begins_document=begins)
            report("encoding", piece.start, texts.text_bytes)
        report("encoding", texts.text_bytes, texts.text_bytes)
        while ends:
            _end_source(writers, ends)
        return {name: writer.finished() for name, writer in writers.items()}


def _end_source(writers: Mapping[str, TokenWriter], ends: list[int]) -> None:
    """End the current source in the files of both splits, and remove the end of this source from the list of ends."""
    del ends[0]
    for writer in writers.values():
        writer.end_source()


# ---- arguments ----


def text_paths(texts: object) -> list[Path]:
    """Return the paths of the texts. Raises TinyNNTypeError for a value that is not a path, or TinyNNValueError if
    there is no path, or if a path does not lead to a file.
    """
    if isinstance(texts, (str, bytes, os.PathLike)) or not isinstance(texts, Sequence):
        raise TinyNNTypeError(f"texts must be a sequence of paths, got {type(texts).__name__}")
    paths = [path_of(f"texts[{i}]", path) for i, path in enumerate(texts)]
    if not paths:
        raise TinyNNValueError("texts must contain at least one file, got an empty sequence")
    for path in paths:
        if path.is_dir():
            raise TinyNNValueError(f"texts: {path} is a folder; name the files in it, like {path}/*.txt")
        if path.exists() and not path.is_file():
            raise TinyNNValueError(
                f"texts: {path} is not a regular file, but each text is read more than once; save the text to a file"
            )
    return paths


def check_eos(eos: object) -> None:
    """Refuse an eos that is likely to occur in texts, because each occurrence would end a document."""
    end = one_line("eos", eos)
    if end and (len(end) == 1 or all(char.isalnum() or char.isspace() for char in end)):
        raise TinyNNValueError(
            f"eos: {end!r} could occur in a text; use a token that no text contains, for example {END_OF_TEXT}"
        )


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TinyNNTypeError(f"{name} must be callable, got {type(value).__name__}")

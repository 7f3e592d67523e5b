"""Make a data folder from text files. Files are read in pieces, so they may be larger than the memory.

Needs the library tokenizers (extra toynn[cli]).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from toynn.arguments import integer, real
from toynn.data.given_tokenizer import check_decoding, given_tokenizer
from toynn.data.learning import learned_bpe
from toynn.data.meta import META, SPLITS, TOKENIZER, DataMeta, Source, Split, TokenizerFile
from toynn.data.splits import TRAIN, divided
from toynn.data.texts import notes_on, survey
from toynn.data.texts_to_learn import Progress, texts_to_learn
from toynn.data.token_file import has_header
from toynn.data.token_writer import TokenWriter
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.durable_files import sha256_of
from toynn.storage.new_folder import new_folder
from toynn.storage.regular_files import naming_file, path_of
from toynn.text.documents import END_OF_TEXT, PIECE, Piece, encoded, one_line, separators_of
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import added_tokens, ids_needed
from toynn.wording import spelled

with naming_the_extra():
    from tokenizers import Tokenizer

__all__ = ["END_OF_TEXT", "PIECE", "prepare"]

FILES = (*(f"{split}.bin" for split in SPLITS), TOKENIZER, META)
_LEAST_VOCAB = 257  # all bytes, and the end-of-text token

Note = Callable[[str], None]  # a sentence about what may be a mistake in the texts


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
) -> DataMeta:
    """Make the data folder `out` with train.bin, validation.bin, tokenizer.json and, written last, meta.json.

    A document is a file, or a part of a file between separator lines. The token `eos` is added after each document.
    Each document goes to training or validation as a whole; the seed decides which. If there is only one document, its
    end goes to validation.

    Args:
        texts: UTF-8 files.
        out: the folder to make. It must not exist yet, or be empty, or have nothing but what a killed `prepare` left.
        vocab_size: size of the byte-level BPE vocabulary to learn from the texts, at least 257. Short texts give fewer
            tokens.
        tokenizer: an existing tokenizer.json (a path, or its content) to use instead of learning one. The copy
            in `out` has truncation and padding turned off.
        validation: share of the documents used for validation, from 0 (none) to below 1.
        eos: the token that ends a document; must not look like text. An existing tokenizer must have it as an added
            token. "": no token.
        separator: the line that separates documents. Default: both <|endoftext|> and the text of eos. "": none.
        progress: called with the stage ("learning" or "encoding"), the bytes done and all bytes.
        note: called with each sentence about what may be a mistake in the texts, before they are encoded.
        name: how messages call the texts. Default: the path of the first.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument, with its name; files without any text; a folder that another
            process is writing; without `separator`, lines of a known separator that would be taken for text.
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
    _check_callable("progress", progress)
    _check_callable("note", note)
    report: Progress = progress or (lambda *_: None)
    for path in paths:
        if has_header(path):
            raise TinyNNValueError(
                f"texts: {path} holds packed token ids, not text; use {spelled('toynn.prepare_ids', '--ids')}"
            )
    with new_folder("out", path_of("out", out), FILES) as folder:
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
            model = learned_bpe(to_learn, found.text_bytes, vocab_size or _LEAST_VOCAB, eos)
        vocab = ids_needed(model)
        dtype = "uint16" if vocab <= 1 << 16 else "uint32"
        eos_id = model.token_to_id(eos) if eos else None
        before = tokens_around(model).before
        bos_id = before[0] if before else eos_id  # a text also begins after the end token of the text before it
        all_pieces, split_of = divided(found, share, seed)
        splits = _packed(folder, dtype, model, all_pieces, split_of, eos_id, found.text_bytes, report)
        for which, split in splits.items():
            if split.tokens == 0 and (share > 0 or which == TRAIN):
                raise TinyNNValueError(
                    f"texts: the tokenizer makes no tokens from the {split.bytes} bytes of the {which} split; add "
                    "text, or use another tokenizer"
                )
        with naming_file(folder / TOKENIZER):
            (folder / TOKENIZER).write_bytes(model.to_str(pretty=True).encode("utf-8"))
        described = TokenizerFile(TOKENIZER, sha256_of(folder / TOKENIZER))
        meta = DataMeta(dtype, vocab, splits, described, eos_id, bos_id, sources)
        with naming_file(folder / META):
            (folder / META).write_text(meta.to_json(), encoding="utf-8")
    return meta


def _packed(
    folder: Path,
    dtype: str,
    model: Tokenizer,
    all_pieces: Iterator[Piece],
    split_of: Callable[[Piece], str],
    eos_id: int | None,
    text_bytes: int,
    report: Progress,
) -> dict[str, Split]:
    """Write the token files of all splits, and return their descriptions. Raises as `prepare` does."""
    writers = {name: TokenWriter(folder / f"{name}.bin", dtype) for name in SPLITS}
    try:
        document = -1
        for piece, ids in encoded(model, all_pieces):
            end = [eos_id] if piece.ends_document and eos_id is not None else []
            begins, document = piece.document != document, piece.document
            writers[split_of(piece)].add(ids + end, len(piece.text.encode("utf-8")), begins_document=begins)
            report("encoding", piece.start, text_bytes)
        report("encoding", text_bytes, text_bytes)
        return {name: writer.finished() for name, writer in writers.items()}
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise


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


def _check_eos(eos: object) -> None:
    """Refuse an eos that texts are likely to contain: each occurrence would end a document."""
    end = one_line("eos", eos)
    if end and (len(end) == 1 or all(char.isalnum() or char.isspace() for char in end)):
        raise TinyNNValueError(f"eos: {end!r} looks like text; use a token that no text contains, like {END_OF_TEXT}")


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TinyNNTypeError(f"{name} must be callable, got {type(value).__name__}")

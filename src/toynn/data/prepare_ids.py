"""Make a data folder from files of packed token ids."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from toynn.arguments import integer, real, text
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
from toynn.data.splits import TRAIN, VALIDATION
from toynn.data.token_file import TokenFile, open_token_file
from toynn.data.token_writer import token_writers
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.storage.durable_files import sha256_of
from toynn.storage.new_folder import new_folder
from toynn.storage.regular_files import path_of, read_regular
from toynn.wording import spelled


def validation_ids(n: int, share: float) -> int:
    """Return the number of ids at the end that are held out for validation. If share is above 0, neither split is
    empty.
    """
    if share == 0:
        return 0
    if n < 2:
        raise TinyNNValueError(
            f"validation: {n} id cannot be divided into training and validation; add ids, or set validation to 0"
        )
    return min(max(round(n * share), 1), n - 1)


def prepare_ids(
    paths: Sequence[Path],
    out: Path,
    *,
    vocab_size: int | None = None,
    tokenizer: Path | bytes | None = None,
    validation: float = 0.05,
    eos: str | None = None,
) -> DataMeta:
    """Make the data folder `out` from files of packed ids, in the order of the files. The last ids are held out for
    validation.

    Args:
        paths: files of int32 ids, flat or with the header TOYC.
        out: the folder to create; see `toynn.data.prepare.prepare`.
        vocab_size: number of ids of the vocabulary. Default: the number in the header of the file, or, for a flat file,
            the number that the tokenizer needs.
        tokenizer: the tokenizer.json that encoded the texts as these ids, as its path or content. Without one, the
            model cannot read or write text.
        validation: share of the ids that is held out for validation, at least 0 (none) and below 1.
        eos: the token of the tokenizer that ends a document, so that the model stops at it. None: unknown.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument is wrong (the message names it); the vocabulary sizes differ.
        FileFormatError: a file is damaged, or it has an id outside the vocabulary (the message gives its position).
        OSError: a file cannot be read or written. After an error, `out` contains no new files.
    """
    share = real("validation", validation, lambda x: 0 <= x < 1, "at least 0 and below 1")
    eos = None if eos is None else text("eos", eos)
    given = None if vocab_size is None else integer("vocab_size", vocab_size, 1)
    content = tokenizer if isinstance(tokenizer, bytes | None) else read_regular(path_of("tokenizer", tokenizer))
    needed, eos_id = (0, None) if content is None else _of_tokenizer(content, eos)
    if content is None and eos is not None:
        raise TinyNNValueError(
            f"eos: the id of {eos!r:.60} is not known without a tokenizer; leave out eos, or give a tokenizer"
        )
    files = (*(f"{split}.bin" for split in SPLITS), *(() if content is None else (TOKENIZER,)), META)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_token_file(f"paths[{i}]", path)) for i, path in enumerate(paths)]
        if not opened:
            raise TinyNNValueError("paths must contain at least one file, got an empty sequence")
        vocab = _vocab(opened, given, needed)
        n = sum(one.n for one in opened)
        tail = n - validation_ids(n, share)
        with new_folder(spelled("out", "--out"), path_of("out", out), files) as folder:
            sources = [Source(one.path.name, one.start + 4 * one.n, sha256_of(one.path)) for one in opened]
            splits = _packed(folder, opened, vocab, tail)
            described = None if content is None else write_tokenizer_file(folder, content)
            meta = DataMeta(dtype_of(vocab), vocab, splits, described, eos_id, eos_id, sources)
            write_meta(folder, meta)
    return meta


def _of_tokenizer(content: bytes, eos: str | None) -> tuple[int, int | None]:
    """Return the number of ids that the tokenizer needs, and the id of the token eos."""
    from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer  # this module needs the extra toynn[cli]

    try:
        model = parsed_tokenizer(content)
    except TinyNNValueError as error:
        raise FileFormatError(f"tokenizer: the given tokenizer cannot be used: {error}") from None
    eos_id = None if eos is None else model.token_to_id(eos)
    if eos is not None and eos_id is None:
        raise TinyNNValueError(f"eos: {eos!r:.60} is not a token of the tokenizer; set eos to one of its tokens")
    return ids_needed(model), eos_id


def _vocab(files: Sequence[TokenFile], given: int | None, needed: int) -> int:
    """Return the size of the vocabulary. Raises TinyNNValueError if the size is unknown, contradictory or too small."""
    known = next((one.vocab for one in files if one.vocab is not None), None)
    vocab = given or known or needed or files[0].vocab_of(None, "vocab_size")
    for one in files:
        if one.vocab is not None:
            one.vocab_of(vocab, "vocab_size")
    if vocab < needed:
        raise TinyNNValueError(f"vocab_size = {vocab} is too small: it must be at least {needed} for this tokenizer")
    return vocab


def _packed(folder: Path, files: Sequence[TokenFile], vocab: int, tail: int) -> dict[str, Split]:
    """Write the token files of both splits, and return their descriptions. The validation split begins at position
    `tail`.
    """
    with token_writers(folder, vocab) as writers:
        done = 0
        for one in files:
            for ids in one.pieces(vocab):
                cut = min(max(tail - done, 0), ids.size)
                for name, part in ((TRAIN, ids[:cut]), (VALIDATION, ids[cut:])):
                    writers[name].add_ids(part)
                done += ids.size
        return {name: dataclasses.replace(writer.finished(), documents=None) for name, writer in writers.items()}

"""Read and check the tokenizer that a user gives to `toynn prepare`."""

from __future__ import annotations

import itertools
from pathlib import Path

from toynn.arguments import INT31_MAX
from toynn.data.texts import Texts
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.regular_files import read_regular
from toynn.text.documents import encoded
from toynn.text.tokenizer_json import added_tokens, ids_needed, parsed_tokenizer, text_of

with naming_the_extra():
    from tokenizers import Tokenizer

_CHECKED_PIECES = 64  # number of pieces of each file that are encoded and decoded to check the tokenizer


def given_tokenizer(given: Path | bytes, eos: str) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json. given: the path of the file, or its content.

    Raises FileFormatError if the tokenizer cannot be used; TinyNNValueError if it has no special token `eos`; or
    OSError if the file cannot be read.
    """
    path = "the given tokenizer.json" if isinstance(given, bytes) else str(given)
    try:
        model = parsed_tokenizer(given if isinstance(given, bytes) else read_regular(given))
    except TinyNNValueError as error:
        raise FileFormatError(f"tokenizer: {path} cannot be used: {error}") from None
    if eos and model.token_to_id(eos) is None:
        raise TinyNNValueError(
            f"tokenizer: {path} has no token {eos!r}; set eos, the token that ends each document, to a special "
            "token of this tokenizer"
        )
    if eos and eos not in added_tokens(model):
        raise TinyNNValueError(
            f"eos: {eos!r} is a token of ordinary text in {path}; set eos to a special token of this tokenizer"
        )
    if ids_needed(model) > INT31_MAX:
        raise FileFormatError(f"tokenizer: {path} must have token ids below {INT31_MAX}, got {ids_needed(model) - 1}")
    return model


def check_decoding(model: Tokenizer, texts: Texts) -> None:
    """Encode and decode parts of the texts. Raise FileFormatError if the result differs from the text."""
    for path in texts.paths:
        checked = itertools.islice(Texts([path], texts.separators).pieces(), _CHECKED_PIECES)
        for _, found in itertools.groupby(encoded(model, checked), key=lambda one: one[0].document):
            # a document is decoded as a whole, because a decoder may treat the start of a text differently
            of_document = list(found)
            text = "".join(piece.text for piece, _ in of_document)
            back = text_of(model, [one for _, ids in of_document for one in ids])
            if back != text:
                raise FileFormatError(_what_changes(model, texts.called or str(path), text, back))


def _what_changes(model: Tokenizer, name: str, text: str, back: str) -> str:
    """Return the error message for a text that changes when it is encoded and decoded."""
    at = next((n for n, (a, b) in enumerate(zip(back, text, strict=False)) if a != b), min(len(back), len(text)))
    change = f"the text of {name}: {text[at : at + 20]!r} becomes {back[at : at + 20]!r}"
    normalizer = model.normalizer
    if normalizer is None or normalizer.normalize_str(text) == text:
        return f"tokenizer: encoding and decoding change {change}; use a byte-level tokenizer"
    rule = type(normalizer).__name__
    forms = ("NFC", "NFD", "NFKC", "NFKD")
    remedy = f"convert the texts to {rule}" if rule in forms else "change the texts in the same way"
    return f"tokenizer: its normalizer {rule} changes {change}; {remedy}, or use a tokenizer without a normalizer"

"""A tokenizer that the user gives to `toynn prepare`: read, and tried on the texts."""

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

_CHECKED_PIECES = 64  # pieces of each file that are encoded and decoded to check the tokenizer

_SHOWN = 8  # added tokens in a message


def given_tokenizer(given: Path | bytes, eos: str) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, given as its path or content.

    Raises FileFormatError for one that cannot be used, TinyNNValueError if it does not have the token `eos`; OSError.
    """
    path = "the given tokenizer.json" if isinstance(given, bytes) else str(given)
    try:
        model = parsed_tokenizer(given if isinstance(given, bytes) else read_regular(given))
    except TinyNNValueError as error:
        raise FileFormatError(f"tokenizer: {path} cannot be used: {error}") from None
    if eos and model.token_to_id(eos) is None:
        raise TinyNNValueError(
            f"tokenizer: {path} has no token {eos!r} to end documents with; set eos to one of its added tokens"
        )
    if eos and eos not in added_tokens(model):
        raise TinyNNValueError(f"eos: {eos!r} is a token of plain text in {path}; use one of its added tokens")
    if ids_needed(model) > INT31_MAX:
        raise FileFormatError(f"tokenizer: {path} must have ids of at most {INT31_MAX}")
    return model


def check_decoding(model: Tokenizer, texts: Texts) -> None:
    """Raise FileFormatError if decoding does not return the text that was encoded."""
    for path in texts.paths:
        checked = itertools.islice(Texts([path], texts.separators).pieces(), _CHECKED_PIECES)
        for piece, ids in encoded(model, checked):
            back = text_of(model, ids)
            if back != piece.text:
                raise FileFormatError(_what_changes(model, texts.called or str(path), piece.text, back))


def _what_changes(model: Tokenizer, name: str, text: str, back: str) -> str:
    """Return the message for a text that is decoded to another one."""
    at = next((n for n, (a, b) in enumerate(zip(back, text, strict=False)) if a != b), min(len(back), len(text)))
    change = f"the text of {name}: {text[at : at + 20]!r} becomes {back[at : at + 20]!r}"
    normalizer = model.normalizer
    if normalizer is None or normalizer.normalize_str(text) == text:
        return f"tokenizer: it changes {change}; use a byte-level tokenizer"
    rule = type(normalizer).__name__
    remedy = f"convert the texts to {rule}" if rule in ("NFC", "NFD", "NFKC", "NFKD") else "write the texts like that"
    return f"tokenizer: its normalizer {rule} changes {change}; {remedy}, or use a tokenizer without a normalizer"

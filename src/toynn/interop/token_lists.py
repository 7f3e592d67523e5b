"""The tokens of a tokenizer.json as lists by id, as a GGUF file contains them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.gguf_numbers import TokenType


def by_id(
    vocabulary: dict[str, int], added: list[dict[str, Any]], vocab: int, alphabet: frozenset[str] | None = None
) -> tuple[list[str], list[int]]:
    """Return the text and the TokenType of each id below `vocab`. An id without a token gets an unused token.

    alphabet: the characters that a token of the model may have; None: any.

    Raises TinyNNValueError if a token has an option that llama.cpp does not have, an id that is too large, or a
    character outside the alphabet.
    """
    known: dict[int, tuple[str, int]] = {i: (token, TokenType.NORMAL) for token, i in vocabulary.items()}
    for entry in added:
        token = entry["content"]
        for option in ("lstrip", "rstrip", "single_word"):
            if entry[option]:
                raise TinyNNValueError(
                    f"the token {token!r:.60} sets {option}, which llama.cpp does not support; export a Hugging Face "
                    "folder instead"
                )
        known[entry["id"]] = (token, TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED)
    if known and max(known) >= vocab:
        raise TinyNNValueError(
            f"the tokenizer's largest token id is {max(known)}, but the model has only {vocab} tokens"
        )
    for i, (token, kind) in known.items():
        if not token or (alphabet is not None and kind == TokenType.NORMAL and not alphabet.issuperset(token)):
            raise TinyNNValueError(f"the token {i}, {token!r:.60}, contains characters outside the byte-level alphabet")
    ids = unique_ids(((i, token) for i, (token, _) in known.items()), TinyNNValueError)
    tokens, kinds = [], []
    for i in range(vocab):
        token, kind = known.get(i) or (_filler(i, ids), TokenType.UNUSED)
        tokens.append(token)
        kinds.append(int(kind))
    return tokens, kinds


def unique_ids(tokens: Iterable[tuple[int, str]], error: type[TinyNNValueError] = FileFormatError) -> dict[str, int]:
    """Return the ids of tokens by their text. Raises `error` if two ids have the same text."""
    pairs = list(tokens)
    ids = {token: i for i, token in pairs}
    if len(ids) == len(pairs):
        return ids
    ids = {}
    for i, token in pairs:
        if (other := ids.setdefault(token, i)) != i:
            raise error(f"the ids {other} and {i} are both the token {token!r:.60}; each token must have one id")
    return ids


def added_token(i: int, text: str, *, special: bool, normalized: bool) -> dict[str, Any]:
    """Return an added token, as in tokenizer.json, that is found anywhere in a text."""
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": normalized, "special": special}  # fmt: skip


def _filler(i: int, taken: dict[str, int]) -> str:
    """Return the name that the converter of llama.cpp gives to an id without a token."""
    filler = f"[PAD{i}]"
    while filler in taken:
        filler = f"[{filler}]"
    return filler

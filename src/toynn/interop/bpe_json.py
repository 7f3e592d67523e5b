"""The tokenizer.json of a BPE tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toynn.text.token_rules import template
from toynn.text.tokenizer_json import parsed_tokenizer, written_tokenizer


def described_bpe(
    *,
    tokens: Sequence[str],
    before: Sequence[int],
    after: Sequence[int],
    added: list[dict[str, Any]],
    normalizer: Any,
    pre_tokenizer: Any,
    decoder: dict[str, Any],
    vocabulary: dict[str, int],
    merges: Sequence[Sequence[str]],
    unknown: str | None = None,
    fuse_unknown: bool = False,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """Return the content of a tokenizer.json.

    tokens: the text of each token, by id.
    before, after: the ids of the tokens that are put around a text.
    added: the added tokens.
    unknown: the token for a character without a token.
    fuse_unknown: several such characters in a row become one token.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": template(*([(tokens[i], i) for i in ids] for ids in (before, after))),
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": fuse_unknown,
            "byte_fallback": byte_fallback,
            "ignore_merges": ignore_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def written(described: dict[str, Any]) -> bytes:
    """Return a tokenizer.json as the tokenizers library writes it. Raises FileFormatError if the library cannot read
    the tokenizer.json.
    """
    return written_tokenizer(parsed_tokenizer(json.dumps(described).encode("utf-8")))

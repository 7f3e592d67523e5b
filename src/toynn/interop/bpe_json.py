"""The tokenizer.json of a BPE tokenizer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE

from toynn.text.panic_text import panics_hidden
from toynn.text.token_rules import template
from toynn.text.tokenizer_checks import check_described
from toynn.text.tokenizer_json import parsed_tokenizer, written_tokenizer

_OF_ADDED = ("single_word", "lstrip", "rstrip", "normalized", "special")  # the flags of an added token


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
    unknown: the token that stands for each character that the vocabulary does not contain; None: there is no such
        token.
    fuse_unknown: consecutive characters that the vocabulary does not contain become one token.
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
    tokenizer = _built(described)
    if tokenizer is None:
        tokenizer = parsed_tokenizer(json.dumps(described).encode("utf-8"))
    return written_tokenizer(tokenizer)


def _built(described: dict[str, Any]) -> Tokenizer | None:
    """Return the tokenizer that the library would read from this JSON.

    The library gets the vocabulary and the merges as Python objects, which takes less time than parsing their JSON.

    Return None if the library refuses a part. The caller then parses the whole JSON to get the error message.
    """
    check_described(described)
    model, added = described["model"], described["added_tokens"]
    rest = {**described, "added_tokens": [], "model": {**model, "unk_token": None, "vocab": {}, "merges": []}}
    options = {name: model[name] for name in ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges")}
    try:
        with panics_hidden():
            tokenizer = Tokenizer.from_str(json.dumps(rest))
            tokenizer.model = BPE(model["vocab"], list(map(tuple, model["merges"])), **options)
            for special, tokens in itertools.groupby(sorted(added, key=itemgetter("id")), itemgetter("special")):
                add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
                add([AddedToken(one["content"], **{name: one[name] for name in _OF_ADDED}) for one in tokens])
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException:  # a panic of the library's Rust code is a BaseException
        return None
    return tokenizer

"""Compare tokenizers by the tokens that they give for a text, although their tokenizer.json files may differ."""

from __future__ import annotations

import json
from typing import Any

from toynn.text.rule_lists import flat_rules
from toynn.text.tokenizer_json import load_tokenizer

# These fields change only the positions of tokens in the text, which toynn does not use.
_POSITIONS = ("trim_offsets",)
# Settings of a BPE model that have no effect if they are null, "" or false.
_OPTIONAL = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)


def same_encoding(a: bytes, b: bytes) -> bool:
    """Return whether two tokenizer.json files give the same tokens for each text.

    The tokens that the tokenizers put around a text, and the texts to which they decode tokens, may differ.
    """
    return a == b or encoding_rules(a) == encoding_rules(b)


def encoding_rules(content: bytes) -> dict[str, Any]:
    """Return the parts of a tokenizer.json that determine the tokens of a text.

    The keys are "added" (the added tokens by their text), "ids" (the id of each token by its text; absent if the model
    has no such table), "model", "normalizer" and "pre_tokenizer" (lists of rules).
    """
    described = json.loads(load_tokenizer(content, "a checkpoint").to_str())
    normalizer = _rules(described["normalizer"])
    rules: dict[str, Any] = {"normalizer": normalizer, "pre_tokenizer": _rules(described["pre_tokenizer"])}
    added = {token["content"]: token for token in described["added_tokens"]}
    # Tokens that are not normalized are found first. Without a normalizer, this matters only if tokens overlap.
    first = [text for text, token in added.items() if not token["normalized"]]
    second = [text for text, token in added.items() if token["normalized"]]
    ordered = bool(normalizer) or any(_overlap(a, b) for a in first for b in second)
    rules["added"] = {
        text: (token["id"], token["single_word"], token["lstrip"], token["rstrip"], ordered and token["normalized"])
        for text, token in added.items()
    }
    model = described["model"]
    if isinstance(model.get("vocab"), dict):  # added tokens need not be in the table of the model
        rules["ids"] = {**model.pop("vocab"), **{text: token["id"] for text, token in added.items()}}
    if model["type"] == "BPE":
        if not model.get("unk_token"):
            model.pop("fuse_unk", None)
        for key in _OPTIONAL:
            if not model.get(key):
                model.pop(key, None)
    rules["model"] = model
    return rules


def _rules(described: Any) -> list[dict[str, Any]]:
    """Return the rules of a normalizer or pre-tokenizer in order, without their fields for positions."""
    return [{key: value for key, value in rule.items() if key not in _POSITIONS} for rule in flat_rules(described)]


def _overlap(a: str, b: str) -> bool:
    """Return whether two strings can occur in a text at places that overlap."""
    return a in b or b in a or any(a.endswith(b[:n]) or b.endswith(a[:n]) for n in range(1, min(len(a), len(b))))

"""The rules of a tokenizer's normalizer, pre-tokenizer or decoder as a list."""

from __future__ import annotations

import json
from typing import Any

_LISTS = ("normalizers", "pretokenizers", "decoders")  # the keys of the rules in a Sequence


def flat_rules(described: Any) -> list[dict[str, Any]]:
    """Return the rules of a part of a tokenizer.json in order. A Sequence is replaced by the rules in it.

    described: the normalizer, the pre-tokenizer or the decoder; None: the tokenizer has no such part.
    """
    if not isinstance(described, dict):
        return []
    for key in _LISTS:
        if isinstance(described.get(key), list):
            return [rule for one in described[key] for rule in flat_rules(one)]
    return [described]


def rules_of(part: Any) -> list[dict[str, Any]]:
    """Return the rules of a normalizer, pre-tokenizer or decoder of the tokenizers library, as `flat_rules` does."""
    return [] if part is None else flat_rules(json.loads(part.__getstate__()))

"""The tokens that a tokenizer adds before and after a text. The "post_processor" in tokenizer.json defines them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokensAround(NamedTuple):
    """The token ids that a tokenizer adds before and after a text, for example a start token. Both may be empty."""

    before: list[int]
    after: list[int]


def tokens_around(tokenizer: Tokenizer) -> TokensAround:
    """Return the tokens that `tokenizer.encode(text, add_special_tokens=True)` puts around a text."""
    processor = tokenizer.post_processor
    return TokensAround([], []) if processor is None else _around(json.loads(processor.__getstate__()))


def _around(rules: dict[str, Any]) -> TokensAround:
    kind = rules.get("type")
    if kind == "TemplateProcessing":
        before: list[int] = []
        after: list[int] = []
        part = before
        for piece in rules["single"]:
            if "Sequence" in piece:
                part = after
            else:
                part.extend(rules["special_tokens"][piece["SpecialToken"]["id"]]["ids"])
        return TokensAround(before, after)
    if kind in ("BertProcessing", "RobertaProcessing"):
        return TokensAround([rules["cls"][1]], [rules["sep"][1]])
    if kind == "Sequence":
        around = TokensAround([], [])
        for one in map(_around, rules["processors"]):
            around = TokensAround(one.before + around.before, around.after + one.after)
        return around
    return TokensAround([], [])


def template(before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]) -> dict[str, Any] | None:
    """Return the "post_processor" of a tokenizer.json that adds these tokens, or None if there are none.

    before, after: the tokens to add before and after a text, each with its text and its id.
    """
    if not before and not after:
        return None
    single = [
        *({"SpecialToken": {"id": text, "type_id": 0}} for text, _ in before),
        {"Sequence": {"id": "A", "type_id": 0}},
        *({"SpecialToken": {"id": text, "type_id": 0}} for text, _ in after),
    ]
    second = [{name: {**part, "id": "B" if name == "Sequence" else part["id"], "type_id": 1}}
              for piece in single for name, part in piece.items()]  # fmt: skip
    tokens = {text: {"id": text, "ids": [token], "tokens": [text]} for text, token in (*before, *after)}
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, *second], "special_tokens": tokens}

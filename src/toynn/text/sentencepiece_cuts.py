"""Find the places where a text can be cut without changing the tokens of a SentencePiece tokenizer.

Such a tokenizer has no words: a token can contain spaces and line ends. Its rules also put a space before a text, and
some of them remove spaces at its start and end. So a part of a text gets the tokens of the whole text only under two
conditions: the text is cut between two characters that no token contains side by side, and the part is encoded with the
characters around it.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from toynn.extras import naming_the_extra
from toynn.text.rule_lists import rules_of

with naming_the_extra():
    from tokenizers import Tokenizer, models

_SPACE = "\u2581"  # SentencePiece writes a space as this character
_BYTE = re.compile("<0x[0-9A-F]{2}>")
# The patterns of normalizers that depend on the start or end of a text, or on the number of spaces.
_OF_SPACES = (rf"\A{_SPACE}", rf"\A +|[ {_SPACE}]+\z", " {2,}")


class SentencePieceCuts:
    """The places where a text can be cut for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        normalizers = rules_of(tokenizer.normalizer)
        # A Precompiled rule may replace any sequence of characters, so no place in a text is a safe cut.
        self._never = any(rule["type"] == "Precompiled" for rule in normalizers)
        self._removes_spaces = any(rule.get("pattern", {}).get("Regex") in _OF_SPACES[1:] for rule in normalizers)

    def can_cut(self, before: str, after: str) -> bool:
        """Return whether a text can be cut between its parts `before` and `after`. Neither part is empty."""
        a, b = before[-1], after[0]
        if self._never or (self._removes_spaces and a in (" ", _SPACE)):
            return False
        return not self._are_joined(a, b)

    def context_before(self, text: str) -> str:
        """Return the end of a text, from the last place where the text can be cut.

        Only this end affects the tokens of the characters that follow the text.
        """
        return next((text[i:] for i in range(len(text) - 1, 0, -1) if self.can_cut(text[i - 1], text[i])), text)

    def context_after(self, text: str) -> str:
        """Return the start of a text, up to the first place where the text can be cut.

        Only this start affects the tokens of the characters before the text.
        """
        return next((text[:i] for i in range(1, len(text)) if self.can_cut(text[i - 1], text[i])), text)

    def _are_joined(self, a: str, b: str) -> bool:
        """Return whether the text must not be cut between two characters, because a token can depend on both."""
        if a.replace(" ", _SPACE) + b.replace(" ", _SPACE) in self._pairs:
            return True
        if a in self._lasts or b in self._firsts or (self._strips and a.isspace() and b.isspace()):
            return True
        return (self._is_unknown(a) and self._is_unknown(b)) or (
            self._joins_bytes and (a not in self._vocabulary or b not in self._vocabulary)
        )

    def _is_unknown(self, character: str) -> bool:
        """Return whether a character has no token. Several such characters become one token."""
        if character.replace(" ", _SPACE) in self._vocabulary:
            return False
        names = [f"<0x{byte:02X}>" for byte in character.encode("utf-8")]
        return not (self._tokenizer.model.byte_fallback and all(name in self._vocabulary for name in names))

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary

    @cached_property
    def _pairs(self) -> set[str]:
        """All pairs of characters that a token contains side by side, with SPACE for a space."""
        symbols = [symbol for rule in rules_of(self._tokenizer.pre_tokenizer) for symbol in _symbols(rule) or ()]
        texts = [text.replace(" ", _SPACE) for text in (*self._vocabulary, *symbols)]
        return {text[i : i + 2] for text in texts for i in range(len(text) - 1)}

    @cached_property
    def _joins_bytes(self) -> bool:
        """True if merges could join byte tokens, because a longer token contains the text of a byte token."""
        return any(len(text) > len("<0x00>") and _BYTE.search(text) for text in self._vocabulary)

    @cached_property
    def _firsts(self) -> set[str]:
        """The first characters of added tokens that depend on the character before them."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return {one.content[0] for one in added if one.content and (one.lstrip or one.single_word or one.normalized)}

    @cached_property
    def _lasts(self) -> set[str]:
        """The last characters of added tokens that depend on the character after them."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return {one.content[-1] for one in added if one.content and (one.rstrip or one.single_word)}

    @cached_property
    def _strips(self) -> bool:
        """True if an added token may include the white space around it."""
        return any(one.lstrip or one.rstrip for one in self._tokenizer.get_added_tokens_decoder().values())


def has_sentencepiece_rules(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer is BPE with only the rules that SentencePiece tokenizers have."""
    model = tokenizer.model
    if not isinstance(model, models.BPE) or model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    normalizers, pre_tokenizers = rules_of(tokenizer.normalizer), rules_of(tokenizer.pre_tokenizer)
    return (
        bool(normalizers or pre_tokenizers)
        and all(_is_known_normalizer(rule) for rule in normalizers)
        and all(rule["type"] == "Metaspace" or _symbols(rule) is not None for rule in pre_tokenizers)
    )


def _is_known_normalizer(rule: dict[str, Any]) -> bool:
    if rule["type"] == "Replace":
        pattern = rule["pattern"]
        return len(pattern.get("String", "")) == 1 or pattern.get("Regex") in _OF_SPACES
    return rule["type"] in ("Prepend", "Precompiled")


def _symbols(rule: dict[str, Any]) -> list[str] | None:
    """Return the texts at which a Split rule splits, or None.

    None: the rule is not a Split rule, is inverted, has a behavior other than Isolated and MergedWithPrevious, or has a
    regular expression that is not a list of texts separated by "|".
    """
    if rule["type"] != "Split" or rule["invert"] or rule["behavior"] not in ("Isolated", "MergedWithPrevious"):
        return None
    if "String" in rule["pattern"]:
        return [rule["pattern"]["String"]]
    pattern: str = rule["pattern"]["Regex"]
    symbols = [re.sub(r"\\(.)", r"\1", one, flags=re.DOTALL)
               for one in re.findall(r"(?:\\.|[^\\|])+", pattern, re.DOTALL)]  # fmt: skip
    return symbols if "|".join(map(re.escape, symbols)) == pattern else None

"""Decode tokens one after another. The pieces together are the text that decoding the whole sequence gives.

The text of a token depends on the tokens before it: some decoders drop a leading space only at the start of the text.
It can also depend on the tokens after it: several tokens may be the bytes of one character, and some decoders remove a
space before a full stop. Therefore the prompt and all new tokens are decoded together, and a piece of the text is
returned as soon as later tokens cannot change it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toynn.text.rule_lists import rules_of
from toynn.text.tokenizer_json import text_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"  # the text to which the library decodes an incomplete character
_BYTE_TOKEN = re.compile(r"^<0x[0-9A-Fa-f]{2}>$")
# With a local decoder, a token can change only the text of its neighbours, and further tokens only add text at the end.
_LOCAL = frozenset({"ByteLevel", "Metaspace", "ByteFallback", "Fuse"})
# With a decoder that is not local, a new token may change the text of at most this number of tokens before it. For
# example, WordPiece turns " do not" into " don't".
_LOOKAHEAD = 4
# With a local decoder, each new token is decoded together with the tokens before it. If there are more than
# about _LONGEST tokens, only about the last _OVERLAP tokens are kept.
_OVERLAP, _LONGEST = 32, 256


class IncrementalDecoder:
    """Decodes the tokens that follow a prompt, one at a time.

    `add` returns the text that a token completes, which may be "". `finish` returns the rest. All pieces together are
    the text of the tokens after the prompt.

    Raises TinyNNValueError if the tokenizer fails on the tokens.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        kinds = rules_of(tokenizer.decoder)
        self._tokenizer = tokenizer
        self._local = _is_local(kinds)
        self._joins_bytes = any(kind.get("type") == "ByteFallback" for kind in kinds)
        self._ids = list(prompt)
        self._shown = ""
        if self._local:
            self._forget_the_start()
        self._shown = text_of(tokenizer, self._ids)
        self._recent: list[str] = [self._shown]

    def add(self, token: int) -> str:
        """Add a token. Return the text that is now complete and was not returned before."""
        self._ids.append(token)
        text = text_of(self._tokenizer, self._ids)
        if not text.startswith(self._shown):  # the prompt ended inside a character
            self._shown = self._shown.rstrip(_REPLACEMENT)
        stable = text if self._local else self._unchanged(text)
        if self._joins_bytes and self._is_byte(token):
            return ""  # the library decodes consecutive byte tokens together, so a wrong byte changes all their text
        stable = stable.rstrip(_REPLACEMENT)  # later tokens may complete the character
        piece = stable[len(self._shown) :] if stable.startswith(self._shown) else ""
        self._shown += piece
        if self._local and len(self._ids) > _LONGEST and self._shown == text:
            self._forget_the_start()
            self._shown = text_of(self._tokenizer, self._ids)
        return piece

    def finish(self) -> str:
        """Return the rest of the text, which `add` has not returned."""
        text = text_of(self._tokenizer, self._ids)
        piece = text[len(_common_start([text, self._shown])) :]
        self._shown = text
        return piece

    def _forget_the_start(self) -> None:
        """Drop all tokens except the last ones, as older tokens do not affect the text of new tokens.

        Consecutive byte tokens are dropped together or not at all, because they are decoded together.
        """
        start = max(len(self._ids) - _OVERLAP, 0)
        while self._joins_bytes and start > 0 and self._is_byte(self._ids[start]):
            start -= 1
        del self._ids[:start]

    def _is_byte(self, token: int) -> bool:
        return _BYTE_TOKEN.match(self._tokenizer.id_to_token(token) or "") is not None

    def _unchanged(self, text: str) -> str:
        """Return the beginning of the text, up to the first change that one of the last few tokens has made."""
        self._recent = [*self._recent[-_LOOKAHEAD:], text]
        return _common_start(self._recent)


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return, for each token, the text that it adds to the tokens before it. All these texts joined are the whole text.

    If several tokens are the bytes of one character, the last of them adds the character. Raises TinyNNValueError if
    the tokenizer fails.
    """
    decoder = IncrementalDecoder(tokenizer)
    texts = [decoder.add(token) for token in ids]
    if texts:
        texts[-1] += decoder.finish()
    return texts


def _is_local(kinds: list[dict[str, Any]]) -> bool:
    return bool(kinds) and all(_is_local_kind(kind) for kind in kinds)


def _is_local_kind(kind: dict[str, Any]) -> bool:
    if kind.get("type") == "Replace":  # a match of one character is inside one token
        return len(kind.get("pattern", {}).get("String", "")) == 1
    if kind.get("type") == "Strip":
        return bool(kind.get("start", 0) <= 1 and kind.get("stop", 0) == 0)
    return kind.get("type") in _LOCAL


def _common_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)
    for i, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return low[:i]
    return low

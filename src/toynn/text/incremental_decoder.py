"""Decode tokens one after another, for streaming: the pieces join to what decoding the whole sequence gives.

A decoder of the tokenizers library sees the whole sequence, so the text of a token depends on the tokens before it (a
leading space is dropped only at the start of the text) and sometimes on those after it (the bytes of one character, a
space that is removed before a full stop). Therefore the whole sequence is decoded, prompt included, and a piece is
given out when later tokens cannot change it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toynn.text.tokenizer_json import text_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"  # how the library decodes a part of a character
_BYTE_TOKEN = re.compile(r"^<0x[0-9A-Fa-f]{2}>$")
# Decoders that look only at neighbouring tokens, and whose text of a prefix is a prefix of the whole text.
_LOCAL = frozenset({"ByteLevel", "Metaspace", "ByteFallback", "Fuse"})
_LOOKAHEAD = 4  # tokens; other decoders may change the text of the last ones, as WordPiece's cleanup of " do not"
_OVERLAP, _LONGEST = 32, 256  # tokens that a local decoder decodes again


class IncrementalDecoder:
    """Decodes the tokens that follow a prompt, piece by piece.

    `add` returns the text that a token completes, often "", and `finish` returns the rest. Together they are the text
    of prompt and tokens without the text of the prompt.

    Raises TinyNNValueError if the tokenizer fails on the tokens.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        kinds = _kinds(json.loads(_state(tokenizer.decoder)))
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
        """Return the text that is complete now and was not returned before."""
        self._ids.append(token)
        text = text_of(self._tokenizer, self._ids)
        if not text.startswith(self._shown):  # the prompt ended inside a character
            self._shown = self._shown.rstrip(_REPLACEMENT)
        stable = text if self._local else self._unchanged(text)
        if self._joins_bytes and self._is_byte(token):
            return ""  # the library decodes a run of bytes as a whole: one wrong byte changes all of them
        stable = stable.rstrip(_REPLACEMENT)  # the last bytes of a character may still follow
        piece = stable[len(self._shown) :] if stable.startswith(self._shown) else ""
        self._shown += piece
        if self._local and len(self._ids) > _LONGEST and self._shown == text:
            self._forget_the_start()
            self._shown = text_of(self._tokenizer, self._ids)
        return piece

    def finish(self) -> str:
        """Return the text that was held back."""
        text = text_of(self._tokenizer, self._ids)
        piece = text[len(_common_start([text, self._shown])) :]
        self._shown = text
        return piece

    def _forget_the_start(self) -> None:
        """Drop tokens that no longer affect the text of new ones: all but the last, and no part of a run of bytes."""
        start = max(len(self._ids) - _OVERLAP, 0)
        while self._joins_bytes and start > 0 and self._is_byte(self._ids[start]):
            start -= 1
        del self._ids[:start]

    def _is_byte(self, token: int) -> bool:
        return _BYTE_TOKEN.match(self._tokenizer.id_to_token(token) or "") is not None

    def _unchanged(self, text: str) -> str:
        """Return the start of the text that the last tokens did not change."""
        self._recent = [*self._recent[-_LOOKAHEAD:], text]
        return _common_start(self._recent)


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds to the text of the tokens before it. Joined, they are the whole text.

    The text of a character stands at the token that completes it. Raises TinyNNValueError if the tokenizer fails.
    """
    decoder = IncrementalDecoder(tokenizer)
    texts = [decoder.add(token) for token in ids]
    if texts:
        texts[-1] += decoder.finish()
    return texts


def _state(decoder: Any) -> bytes | str:
    """Return the decoder as JSON; "null" if the tokenizer has none."""
    state: bytes | str = "null" if decoder is None else decoder.__getstate__()
    return state


def _kinds(described: Any) -> list[dict[str, Any]]:
    """Return the decoders in a described decoder, those of sequences included."""
    if not isinstance(described, dict):
        return []
    inner = described.get("decoders")
    if isinstance(inner, list):
        return [kind for one in inner for kind in _kinds(one)]
    return [described]


def _is_local(kinds: list[dict[str, Any]]) -> bool:
    return bool(kinds) and all(_is_local_kind(kind) for kind in kinds)


def _is_local_kind(kind: dict[str, Any]) -> bool:
    if kind.get("type") == "Replace":  # a pattern of one character cannot match across tokens
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

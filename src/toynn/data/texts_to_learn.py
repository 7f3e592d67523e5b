"""Choose the texts that a tokenizer is learned from, so that learning needs only a limited amount of memory.

While the tokenizers library trains a tokenizer, it keeps every distinct word of the text, and each byte of a distinct
word needs up to 120 bytes of memory. So both the size of the text and the total size of its distinct words are limited.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from toynn.text.documents import PIECE, Piece
from toynn.text.word_borders import BETWEEN_WORDS, parts_of

_TEXT = 1 << 28  # largest number of bytes of text that a tokenizer is learned from
_DIFFERENT_WORDS = 1 << 24  # largest number of bytes of all different words in the text for a tokenizer
_LONGEST_PART = 1 << 17  # largest number of characters in a part of the text; a multiple of the longest word
_SAMPLE = 1 << 14  # number of words from which an estimate is made
_HASHES = 1 << 32
# A word of the tokenizer consists only of letters and digits, only of other characters, or only of white space.
_WORDS = re.compile(r"[^\W_]+|(?:[^\w\s]|_)+")
_SPACES = re.compile(r"\s{2,}")

Progress = Callable[[str, int, int], None]  # arguments: the stage, the number of bytes done, the number of all bytes


class TextsToLearn(Protocol):
    """Texts that can be read several times. text_bytes: their size in UTF-8."""

    text_bytes: int

    def pieces(self) -> Iterator[Piece]:
        """Yield the texts in pieces."""


def texts_to_learn(texts: TextsToLearn, report: Progress, file_bytes: int) -> Iterator[str]:
    """Yield the texts that a tokenizer is learned from, in parts that end between words.

    If the texts are larger than 256 MiB, only evenly spread parts with a total size of about 256 MiB are used. If the
    different words of these parts have a total size of more than about 16 MiB, half as much text is used, and so on.
    The same texts give the same parts.
    """
    taken = _Spread(texts.text_bytes, _limit(texts))
    for start, part in _parts(texts):
        report("learning", start, file_bytes)
        if taken.takes(start, part):
            yield part


def _parts(texts: TextsToLearn) -> Iterator[tuple[int, str]]:
    """Yield all parts of the texts, with the number of bytes before each part."""
    for piece in texts.pieces():
        start = piece.start
        for part in parts_of(piece.text, PIECE, BETWEEN_WORDS, longest=_LONGEST_PART):
            yield start, part
            start += len(part.encode("utf-8"))


def _limit(texts: TextsToLearn) -> int:
    """Return the number of bytes of text to learn from.

    The number is _TEXT, halved until the different words of this much text have at most about _DIFFERENT_WORDS bytes.
    """
    limits = [_TEXT]
    while min(limits[-1], texts.text_bytes) > _DIFFERENT_WORDS:
        limits.append(limits[-1] // 2)
    if len(limits) == 1:  # the text is so short that its words cannot exceed the limit
        return limits[0]
    spreads = [_Spread(texts.text_bytes, limit) for limit in limits[:-1]]
    estimates = [DifferentWords() for _ in spreads]
    for start, part in _parts(texts):
        takers = [words for spread, words in zip(spreads, estimates, strict=True) if spread.takes(start, part)]
        found = words_in(part) if takers else set()
        for words in takers:
            words.add(found)
    fitting = (limit for limit, words in zip(limits, estimates, strict=False) if words.bytes <= _DIFFERENT_WORDS)
    return next(fitting, limits[-1])


class _Spread:
    """A choice of evenly spread parts of a text with about `limit` of its bytes."""

    def __init__(self, text_bytes: int, limit: int) -> None:
        self._text_bytes, self._limit, self._taken = text_bytes, limit, 0

    def takes(self, start: int, part: str) -> bool:
        """Return whether the next part is chosen. start: the number of bytes before this part."""
        if self._text_bytes > self._limit and self._taken * self._text_bytes > start * self._limit:
            return False
        self._taken += len(part.encode("utf-8"))
        return True


def words_in(text: str) -> set[bytes]:
    """Return the different words of a text, in UTF-8."""
    words = _WORDS.findall(" ".join(set(text.split())))
    return {word.encode("utf-8") for word in (*words, *_SPACES.findall(text))}


class DifferentWords:
    """Estimates the total size in bytes of the different words of a text, with little memory.

    The estimate uses only the words with the smallest hashes, and counts each of them once. It is exact for up to
    16,384 different words.
    """

    def __init__(self) -> None:
        self._sample: dict[int, int] = {}  # maps the hash of a word to the number of bytes of the word
        self._below = _HASHES

    def add(self, words: set[bytes]) -> None:
        """Add words to the estimate. A word that was added before is not counted again."""
        for word in words:
            if (place := zlib.crc32(word) * 0x9E3779B1 % _HASHES) < self._below:
                self._sample[place] = len(word)
        while len(self._sample) > _SAMPLE:
            self._below //= 2
            self._sample = {place: size for place, size in self._sample.items() if place < self._below}

    @property
    def bytes(self) -> int:
        """The estimated number of bytes."""
        return sum(self._sample.values()) * (_HASHES // self._below)

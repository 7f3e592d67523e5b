"""The machinery: draws that never change, people and things that keep their words, and a teller that joins sentences.

A sentence frame is plain text with three marks:

    [red|blue|green]   one of these; may be nested, an alternative may be empty
    <Come in!>         speech: becomes "Come in!"
    a/an               either is mended to fit the word that follows

Sentences and speeches get their capital letter here, so a frame may begin with a pronoun.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grammar.person import Person
from grammar.pronouns import with_pronouns

T = TypeVar("T")

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa])n? (?=([A-Za-z]+))")
_CONTINUES = re.compile(r",>[^<>]*, $")  # stands before speech that goes on, as in "Yes," said Tom, "but not now."
_LEFT_OVER = re.compile(r"[\[\]|{}<>_]")
# "an hour", "a useful thing": spelling alone would get these wrong.
_SOUNDS_LIKE_A_VOWEL = ("hour", "honest", "heir")
_SOUNDS_LIKE_A_CONSONANT = ("use", "uni", "one", "once", "eu")


class Draw:
    """Choices that are the same on every Python.

    Only `Random.random` of a whole seed is used: of all its methods the documentation promises this one's sequence.
    """

    def __init__(self, key: str) -> None:
        self._random = random.Random(int.from_bytes(hashlib.sha256(key.encode("ascii")).digest()[:8], "big"))

    def below(self, n: int) -> int:
        return int(self._random.random() * n)

    def one(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], n: int) -> list[T]:
        """n different ones, in drawn order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(n)]

    def chance(self, n: int, of: int) -> bool:
        return self.below(of) < n


@dataclass(frozen=True)
class Thing:
    """An object, and how it looks throughout a story. As text: the bare noun."""

    noun: str
    look: str

    def __str__(self) -> str:
        return self.noun

    @property
    def full(self) -> str:
        return f"{self.look} {self.noun}"

    @property
    def a(self) -> str:
        return f"a {self.full}"


class Teller:
    """One story under way."""

    def __init__(self, key: str) -> None:
        self.draw = Draw(key)
        self.cast: list[Person] = []  # everybody with a name, in order of appearance
        self._told: set[str] = set()
        self._paragraphs: list[list[str]] = [[]]

    def say(self, *frames: str) -> None:
        """Adds one of the frames, one that this story has not had yet where there is such a one."""
        fresh = [frame for frame in frames if frame not in self._told]
        frame = self.draw.one(fresh or frames)
        self._told.add(frame)
        self._paragraphs[-1].append(finished(self.expand(frame)))

    def maybe(self, *frames: str) -> None:
        """As say, or nothing, half of the time."""
        if self.draw.chance(1, 2):
            self.say(*frames)

    def enter(self, person: Person) -> Person:
        """Somebody joins the cast."""
        self.cast.append(person)
        return person

    def paragraph(self) -> None:
        if self._paragraphs[-1]:
            self._paragraphs.append([])

    def one(self, *choices: str) -> str:
        """Settles a choice for the whole story."""
        return self.expand(self.draw.one(choices))

    def expand(self, frame: str) -> str:
        """The frame with every [a|b] decided."""
        while (found := _CHOICE.search(frame)) is not None:
            frame = frame[: found.start()] + self.draw.one(found[1].split("|")) + frame[found.end() :]
        return frame

    def text(self) -> str:
        paragraphs = [" ".join(sentences) for sentences in self._paragraphs if sentences]
        return "\n\n".join(with_pronouns(paragraph, self.cast) for paragraph in paragraphs)


def finished(text: str) -> str:
    """An expanded frame with articles, capitals and quotation marks. Raises ValueError where a mark is left over."""
    text = _ARTICLE.sub(lambda m: m[1] + ("n " if _takes_an(m[2]) else " "), text)
    text = re.sub(r"(^|[.!?] |\.> )([a-z])", lambda m: m[1] + m[2].upper(), text)
    text = re.sub(r"<([a-z])", lambda m: "<" + (m[1] if _CONTINUES.search(text, 0, m.start()) else m[1].upper()), text)
    if text.count("<") != text.count(">"):
        raise ValueError(f"speech without end: {text!r}")
    text = text.replace("<", '"').replace(">", '"')
    if _LEFT_OVER.search(text):
        raise ValueError(f"a mark was left over: {text!r}")
    return text


def _takes_an(word: str) -> bool:
    word = word.lower()
    if word.startswith(_SOUNDS_LIKE_A_VOWEL):
        return True
    return word[0] in "aeiou" and not word.startswith(_SOUNDS_LIKE_A_CONSONANT)

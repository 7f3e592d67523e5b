"""The engine of the grammar: random choices that never change, things with a fixed look, and a narrator (Teller).

A sentence frame is plain text with three marks:

    [red|blue|green]   one of these; can be nested, and an alternative can be empty
    <Come in!>         speech; becomes "Come in!"
    a/an               either article is corrected to fit the next word

Sentences and speech get their capital letters here, so a frame can begin with a pronoun.
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
_CONTINUES = re.compile(r",>[^<>]*, $")  # the text before speech that continues: "Yes," said Tom, "but not now."
_LEFT_OVER = re.compile(r"[\[\]|{}<>_]")
# Words whose first letter suggests the wrong article: "an hour", "a useful thing".
_SOUNDS_LIKE_A_VOWEL = ("hour", "honest", "heir")
_SOUNDS_LIKE_A_CONSONANT = ("use", "uni", "one", "once", "eu")


class Draw:
    """Random choices that are the same with every Python version.

    Only `Random.random` with an integer seed is used, because Python guarantees only the sequence of this method.
    """

    def __init__(self, key: str) -> None:
        self._random = random.Random(int.from_bytes(hashlib.sha256(key.encode("ascii")).digest()[:8], "big"))

    def below(self, n: int) -> int:
        return int(self._random.random() * n)

    def one(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], n: int) -> list[T]:
        """Return n different items, in the order in which they were drawn."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(n)]

    def chance(self, n: int, of: int) -> bool:
        return self.below(of) < n


@dataclass(frozen=True)
class Thing:
    """An object with one look throughout a story. Its text form is the noun."""

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
    """The narrator of one story."""

    def __init__(self, key: str) -> None:
        self.draw = Draw(key)
        self.cast: list[Person] = []  # all persons with a name, in order of appearance
        self._told: set[str] = set()
        self._paragraphs: list[list[str]] = [[]]

    def say(self, *frames: str) -> None:
        """Add one of the frames, preferably one that this story does not contain yet."""
        fresh = [frame for frame in frames if frame not in self._told]
        frame = self.draw.one(fresh or frames)
        self._told.add(frame)
        self._paragraphs[-1].append(finished(self.expand(frame)))

    def maybe(self, *frames: str) -> None:
        """Add one of the frames with probability 1/2."""
        if self.draw.chance(1, 2):
            self.say(*frames)

    def enter(self, person: Person) -> Person:
        """Add a person to the cast and return them."""
        self.cast.append(person)
        return person

    def paragraph(self) -> None:
        if self._paragraphs[-1]:
            self._paragraphs.append([])

    def one(self, *choices: str) -> str:
        """Return one choice, to be used throughout the story."""
        return self.expand(self.draw.one(choices))

    def expand(self, frame: str) -> str:
        """Return the frame with every [a|b] replaced by one of its alternatives."""
        while (found := _CHOICE.search(frame)) is not None:
            frame = frame[: found.start()] + self.draw.one(found[1].split("|")) + frame[found.end() :]
        return frame

    def text(self) -> str:
        paragraphs = [" ".join(sentences) for sentences in self._paragraphs if sentences]
        return "\n\n".join(with_pronouns(paragraph, self.cast) for paragraph in paragraphs)


def finished(text: str) -> str:
    """Return an expanded frame with correct articles, capitals and quotation marks. Raise ValueError if a mark remains."""
    text = _ARTICLE.sub(lambda m: m[1] + ("n " if _takes_an(m[2]) else " "), text)
    text = re.sub(r"(^|[.!?] |\.> )([a-z])", lambda m: m[1] + m[2].upper(), text)
    text = re.sub(r"<([a-z])", lambda m: "<" + (m[1] if _CONTINUES.search(text, 0, m.start()) else m[1].upper()), text)
    if text.count("<") != text.count(">"):
        raise ValueError(f"speech without an end: {text!r}")
    text = text.replace("<", '"').replace(">", '"')
    if _LEFT_OVER.search(text):
        raise ValueError(f"a mark remains in the sentence: {text!r}")
    return text


def _takes_an(word: str) -> bool:
    word = word.lower()
    if word.startswith(_SOUNDS_LIKE_A_VOWEL):
        return True
    return word[0] in "aeiou" and not word.startswith(_SOUNDS_LIKE_A_CONSONANT)

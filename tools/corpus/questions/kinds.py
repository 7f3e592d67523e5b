"""The kinds of questions. A kind returns all pairs of questions and answers about one field of knowledge.

A frame is the form of a question before `grammar.telling.finished` corrects its articles and capitals.
"""

from __future__ import annotations

from collections.abc import Iterator

from grammar import names
from grammar.telling import finished
from questions.facts import ANIMALS, COLOURS, DAYS, LEGS, NUMBERS, OPPOSITES, USES

Pair = tuple[str, str]  # a question and its answer


def _pairs(frames: tuple[str, ...], answer: str) -> Iterator[Pair]:
    for frame in frames:
        yield finished(frame), finished(answer)


def animals() -> Iterator[Pair]:
    for one in ANIMALS:
        a = f"a {one.name}"
        yield from _pairs(
            (f"what does {a} say?", f"what sound does {a} make?", f"tell me what {a} says.", f"how does {a} sound?"),
            f"{a} says {one.sound}.",
        )
        yield from _pairs(
            (f"what does {a} eat?", f"what is the food of {a}?", f"tell me what {a} eats.", f"what do you feed {a}?"),
            f"{a} eats {one.food}.",
        )
        yield from _pairs(
            (
                f"where does {a} live?",
                f"where is the home of {a}?",
                f"tell me where {a} lives.",
                f"where can I find {a}?",
            ),
            f"{a} lives {one.home}.",
        )
        yield from _pairs(
            (
                f"what is a young {one.name} called?",
                f"what do you call a young {one.name}?",
                f"what is the child of {a}?",
            ),
            f"a young {one.name} is called a {one.young}.",
        )
        yield from _pairs(
            (f"which animal says {one.sound}?", f"who says {one.sound}?", f"what animal goes {one.sound}?"),
            f"{a} says {one.sound}.",
        )
        yield from _pairs(
            (f"what do you know about {a}?", f"tell me about {a}.", f"what can you tell me about {a}?"),
            f"{a} lives {one.home}, eats {one.food} and says {one.sound}.",
        )


def colours() -> Iterator[Pair]:
    for thing, colour in COLOURS:
        yield from _pairs(
            (f"what colour is {thing}?", f"which colour does {thing} have?", f"tell me the colour of {thing}.",
             f"do you know what colour {thing} is?"),
            f"{thing} is {colour}.",
        )  # fmt: skip


def opposites() -> Iterator[Pair]:
    for pair in OPPOSITES:
        for one, other in (pair, pair[::-1]):
            if (one, other) in (("light", "heavy"), ("light", "dark"), ("short", "long")):
                continue  # "light" and "short" have two opposites each, so these questions are left out
            yield from _pairs(
                (f"what is the opposite of {one}?", f"which word is the opposite of {one}?",
                 f"say the opposite of {one}.", f"if it is not {one}, what is it?"),
                f"the opposite of {one} is {other}.",
            )  # fmt: skip


def days() -> Iterator[Pair]:
    for i, day in enumerate(DAYS):
        after, before = DAYS[(i + 1) % 7], DAYS[i - 1]
        yield from _pairs(
            (f"which day comes after {day}?", f"what day follows {day}?", f"today is {day}. What day is tomorrow?",
             f"what is the day after {day}?"),
            f"{after} comes after {day}.",
        )  # fmt: skip
        yield from _pairs(
            (
                f"which day comes before {day}?",
                f"today is {day}. What day was yesterday?",
                f"what is the day before {day}?",
            ),
            f"{before} comes before {day}.",
        )


def sums() -> Iterator[Pair]:
    for i, one in enumerate(NUMBERS):
        for j, other in enumerate(NUMBERS[: 9 - i]):
            yield from _pairs(
                (f"what is {one} and {other}?", f"how much is {one} and {other}?", f"add {one} and {other}."),
                f"{one} and {other} make {NUMBERS[i + j + 1]}.",
            )


def legs() -> Iterator[Pair]:
    for animal, n in LEGS:
        yield from _pairs(
            (f"how many legs does a {animal} have?", f"on how many legs does a {animal} walk?",
             f"count the legs of a {animal}."),
            f"a {animal} has {n} legs.",
        )  # fmt: skip


def uses() -> Iterator[Pair]:
    for thing, use in USES:
        yield from _pairs(
            (f"what do you do with a {thing}?", f"what is a {thing} for?", f"why do you need a {thing}?"),
            f"with a {thing} you can {use}.",
        )
        yield from _pairs(
            (f"what do you need to {use}?", f"I want to {use}. What do I need?", f"how can I {use}?"),
            f"you need a {thing} to {use}.",
        )


def greetings() -> Iterator[Pair]:
    for name in (*names.GIRLS, *names.BOYS):
        yield from _pairs(
            (
                f"hello, I am {name}.",
                f"my name is {name}.",
                f"good morning, I am {name}.",
                f"hello! They call me {name}.",
            ),
            f"hello, {name}! What would you like to know?",
        )
        yield from _pairs((f"this is my friend {name}.", f"say hello to {name}."), f"hello, {name}!")


KINDS = (animals, colours, opposites, days, sums, legs, uses, greetings)


def all_pairs() -> list[Pair]:
    """Return all questions with their answers. No question occurs twice."""
    return [pair for kind in KINDS for pair in kind()]

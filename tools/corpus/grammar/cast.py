"""Add persons to a story. Each gets a name that the story does not use yet."""

from __future__ import annotations

from collections.abc import Sequence

from grammar import names
from grammar.person import Person
from grammar.telling import Teller


def _from(t: Teller, rows: Sequence[tuple[str, bool, str]]) -> Person:
    taken = {person.name for person in t.cast}
    return t.enter(Person(*t.draw.one([row for row in rows if row[0] not in taken])))


def child(t: Teller) -> Person:
    return _girl_or_boy(t, t.draw.chance(1, 2))


def friend(t: Teller, of: Person) -> Person:
    """Add another child, usually of the other sex, so that "he" and "she" distinguish the two."""
    return _girl_or_boy(t, of.female != t.draw.chance(4, 5))


def _girl_or_boy(t: Teller, female: bool) -> Person:
    kind = "girl" if female else "boy"
    return _from(t, [(name, female, kind) for name in (names.GIRLS if female else names.BOYS)])


def parent(t: Teller) -> Person:
    return _from(t, names.PARENTS)


def grandparent(t: Teller) -> Person:
    return _from(t, names.GRANDPARENTS)


def elder(t: Teller) -> Person:
    """Add any adult of the family."""
    return _from(t, (*names.PARENTS, *names.GRANDPARENTS, *names.RELATIVES))


def neighbour(t: Teller) -> Person:
    return _from(t, names.NEIGHBOURS)


def teacher(t: Teller) -> Person:
    return _from(t, names.TEACHERS)


def pet(t: Teller, kind: str) -> Person:
    """Add a dog or a cat."""
    rows = {"dog": names.DOGS, "cat": names.CATS}[kind]
    return _from(t, [(name, female, kind) for name in rows for female in (False, True)])


def creature(t: Teller, kinds: Sequence[str]) -> Person:
    """Add an animal that talks."""
    kind = t.draw.one(kinds)
    may_be_female = kind not in names.MALE_KINDS
    return _from(t, [(name, female, kind) for name, female in names.CREATURE_NAMES if may_be_female or not female])

"""Fields of a dataclass that say what they mean: in one place, for the docs, the command line and a file's comments."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def documented(default: T, meaning: str) -> T:
    """A dataclass's field with that default. The default is a value that is never changed."""
    one: T = dataclasses.field(default=default, metadata={"meaning": meaning})
    return one


def meaning_of(field: dataclasses.Field[Any]) -> str:
    """What a field means. Raises KeyError for one that does not say."""
    meaning: str = field.metadata["meaning"]
    return meaning

"""Fields of a dataclass that say what they mean: in one place, for the docs, the command line and a file's comments."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def documented(default: T, meaning: str) -> T:
    """Return a dataclass field with that default. The default is a value that is never changed."""
    one: T = dataclasses.field(default=default, metadata={"meaning": meaning})
    return one


def required(meaning: str) -> Any:
    """Return a dataclass field without a default."""
    return dataclasses.field(metadata={"meaning": meaning})


def meaning_of(kind: type[Any], name: str) -> str:
    """Return what the field `name` of the dataclass `kind` means, as the class or the nearest base documents it.

    A subclass may thus state another default alone. Raises KeyError for a field without documentation.
    """
    for base in kind.__mro__:
        field = base.__dict__.get("__dataclass_fields__", {}).get(name)
        if field is not None and "meaning" in field.metadata:
            meaning: str = field.metadata["meaning"]
            return meaning
    raise KeyError(f"{kind.__name__}.{name}")

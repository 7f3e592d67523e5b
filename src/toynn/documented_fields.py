"""Dataclass fields with a description.

The documentation, the command-line help and the comments in TOML files use the description.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def documented(default: T, meaning: str) -> T:
    """Return a dataclass field with an immutable default and a description."""
    field: T = dataclasses.field(default=default, metadata={"meaning": meaning})
    return field


def required(meaning: str) -> Any:
    """Return a dataclass field with a description and no default."""
    return dataclasses.field(metadata={"meaning": meaning})


def meaning_of(kind: type[Any], name: str) -> str:
    """Return the description of the field `name` of the dataclass `kind`, from the class or its nearest base.

    A subclass can therefore give a field another default without repeating the description. Raises KeyError if there is
    no description.
    """
    for base in kind.__mro__:
        field = base.__dict__.get("__dataclass_fields__", {}).get(name)
        if field is not None and "meaning" in field.metadata:
            meaning: str = field.metadata["meaning"]
            return meaning
    raise KeyError(f"{kind.__name__}.{name}")

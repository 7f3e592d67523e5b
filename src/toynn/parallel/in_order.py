"""How the parts of a long computation are computed: in this process one after another, or by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

# The type of a function f(compute, items) that yields (item, compute(item)) for all items, in their order.
Each: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]


def one_after_another(compute: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each item with its result."""
    return ((item, compute(item)) for item in items)

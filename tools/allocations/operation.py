"""The description of an operation whose allocations can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operation:
    """An operation that allocates.

    Attributes:
        make: creates the objects that act uses.
        act: returns its result as bytes; can be called again after a MemoryError.
        close: closes the objects.
    """

    make: Callable[[], Any]
    act: Callable[[Any], bytes]
    close: Callable[[Any], None]

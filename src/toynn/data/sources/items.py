"""Item: the content of one line, element or row of a source, or the reason why it cannot be used."""

from __future__ import annotations

from typing import Any, NamedTuple

LONGEST_ITEM = 1 << 23  # largest number of bytes in a line, an element or a row


class Item(NamedTuple):
    """A line, element or row. place: its number, from 1. value: a dict, or None. reason: why there is no value, or
    "".
    """

    place: int
    value: dict[str, Any] | None
    reason: str = ""


def too_long(place: int, what: str) -> Item:
    """Return the item for a line, element or row that is too long. what: "line", "element" or "row"."""
    return Item(place, None, f"the {what} has more than {LONGEST_ITEM} bytes")

"""Read JSON lines: a file in which each line is a JSON object. Empty lines are ignored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from toynn.data.sources.items import LONGEST_ITEM, Item, too_long
from toynn.data.sources.strict_json import parsed
from toynn.errors import TinyNNValueError

_MARK = b"\xef\xbb\xbf"  # a byte-order mark in UTF-8


def json_lines(parts: Iterable[bytes]) -> Iterator[Item]:
    """Yield the lines of a file as items. parts: the content of the file in parts of any size."""
    for number, line in _lines(parts):
        if line is None:
            yield too_long(number, "line")
        elif content := (line.removeprefix(_MARK) if number == 1 else line).strip():
            yield object_of(number, content)


def object_of(place: int, content: bytes) -> Item:
    """Return the item of a JSON object, or an item that says why the content is not a JSON object."""
    try:
        value = parsed(content)
    except TinyNNValueError as error:
        return Item(place, None, str(error))
    if not isinstance(value, dict):
        return Item(place, None, f"the line must be a JSON object, but is {content[:40].decode('utf-8', 'replace')!r}")
    return Item(place, value)


def _lines(parts: Iterable[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number. Yield None in place of a line that is too long."""
    number, held, size, is_long = 1, list[bytes](), 0, False
    for part in parts:
        *ended, rest = part.split(b"\n")
        for line in ended:
            if is_long or size + len(line) > LONGEST_ITEM:
                yield number, None
            else:
                yield number, b"".join([*held, line]) if held else line
            number, held, size, is_long = number + 1, [], 0, False
        if not is_long:
            held.append(rest)
            size += len(rest)
            if size > LONGEST_ITEM:
                held, is_long = [], True
    if is_long or held:
        yield number, None if is_long else b"".join(held)

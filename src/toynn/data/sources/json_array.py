"""Read a JSON array of objects, one element at a time. The array may be larger than the memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from toynn.data.sources.items import LONGEST_ITEM, Item, too_long
from toynn.data.sources.json_lines import object_of

_IN_STRING, _OUTSIDE = re.compile(rb'["\\]'), re.compile(rb'["\[\]{},]')
_SPACE = b" \t\r\n"


def json_array(parts: Iterable[bytes]) -> Iterator[Item]:
    """Yield the elements of an array as items. The place of an item is the line in which the element begins.

    parts: the content of the file in parts of any size. An array that does not end is reported as an item too.
    """
    splitter = _Splitter()
    for part in parts:
        yield from splitter.feed(part)
    if not splitter.ended:
        yield Item(splitter.line, None, "the file ends before the array does")


class _Splitter:
    """Finds the borders of the elements. ended: whether the array has ended. line: the current line."""

    def __init__(self) -> None:
        self.ended, self.line = False, 1
        self._depth = 0  # 0 before the array, 1 between its elements
        self._in_string = self._escaped = self._after_comma = self._has_rest = False
        self._held: list[bytes] = []  # the parts of the current element
        self._size = 0

    def feed(self, part: bytes) -> Iterator[Item]:
        """Yield the elements that end in the next part of the file."""
        begin = at = 0
        while (at := self._next(part, at)) >= 0:
            sign = part[at - 1 : at]
            if sign == b'"':
                self._in_string = not self._in_string
            elif sign in b"[{":
                self._depth += 1
                if self._depth == 1:
                    self._keep(part[begin : at - 1])
                    yield from self._before()
                    begin = at
            elif sign in b"]}":
                self._depth -= 1
                if self._depth <= 0:
                    self._keep(part[begin : at - 1])
                    yield from self._element(last=True)
                    self.ended, begin = True, at
            elif self._depth == 1:  # a comma between two elements
                self._keep(part[begin : at - 1])
                yield from self._element(last=False)
                begin = at
        self._keep(part[begin:])
        if self.ended:
            content = b"".join(self._held)
            rest = content.lstrip(_SPACE)
            if rest and not self._has_rest:
                self._has_rest = True
                line = self.line + content[: len(content) - len(rest)].count(b"\n")
                yield Item(line, None, "there is text after the end of the array")
            self.line += content.count(b"\n")
            self._held, self._size = [], 0

    def _before(self) -> Iterator[Item]:
        """Drop the white space before the array. Yield an error if there is any other text before the array."""
        raw = b"".join(self._held)
        if raw.removeprefix(b"\xef\xbb\xbf").strip(_SPACE):
            yield Item(self.line, None, "there is text before the array")
        self.line += raw.count(b"\n")
        self._held, self._size = [], 0

    def _next(self, part: bytes, at: int) -> int:
        """Return the position after the next byte that begins or ends a string, list, object or element, or -1."""
        if self.ended:
            return -1
        while True:
            if self._escaped and at < len(part):
                at, self._escaped = at + 1, False
            found = (_IN_STRING if self._in_string else _OUTSIDE).search(part, at)
            if found is None:
                return -1
            if found[0] != b"\\":
                return found.end()
            at, self._escaped = found.end(), True

    def _keep(self, content: bytes) -> None:
        self._size += len(content)
        if self._size <= LONGEST_ITEM:
            self._held.append(content)
        else:  # the element is too long, so only its number of lines is still needed
            self._held = [b"\n" * (b"".join(self._held).count(b"\n") + content.count(b"\n"))]

    def _element(self, *, last: bool) -> Iterator[Item]:
        raw = b"".join(self._held)
        content = raw.lstrip(_SPACE)
        line = self.line + raw.count(b"\n", 0, len(raw) - len(content))
        self.line += raw.count(b"\n")
        if self._size > LONGEST_ITEM:
            yield too_long(line, "element")
        elif content := content.rstrip(_SPACE):
            yield object_of(line, content)
        elif not last or self._after_comma:
            yield Item(line, None, "there is no element before or after a comma of the array")
        self._held, self._size, self._after_comma = [], 0, not last

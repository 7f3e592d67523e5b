"""Remove a given string from the start of a text, and end the text before a stop string. The text arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes on the pieces of a text until one of the stop strings occurs.

    `add` returns the text that cannot be a part of a stop string, and holds the rest back. `finish` returns the text
    that is still held back. stop: the stop string that has occurred, or None. The text ends before this stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stop: str | None = None

    def add(self, piece: str) -> str:
        """Add a piece of the text. Return the text that is now known to come before every stop string."""
        if self.stop is not None:
            return ""
        text = self._held + piece
        # The stop string that is complete first ends the text, so the result does not depend on the pieces.
        found = [(place + len(one), place, one) for one in self._stops if (place := text.find(one)) >= 0]
        if found:
            _, place, self.stop = min(found)
            self._held = ""
            return text[:place]
        held = max((_overlap(text, one) for one in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Return the text that was held back, because the text has ended."""
        rest, self._held = self._held, ""
        return rest


class WithoutStart:
    """Passes on the pieces of a text, but leaves out the string `start` if the text begins with this string.

    `add` holds back pieces that may be a part of `start`. `finish` returns the text that is still held back.
    """

    def __init__(self, start: str) -> None:
        self._start = start
        self._held: str | None = "" if start else None  # None: the start was found, or the text does not begin with it

    def add(self, piece: str) -> str:
        """Add a piece of the text. Return the text that is now known to follow the start."""
        if self._held is None:
            return piece
        text = self._held + piece
        if len(text) < len(self._start) and self._start.startswith(text):
            self._held = text
            return ""
        self._held = None
        return text.removeprefix(self._start)

    def finish(self) -> str:
        """Return the text that was held back, because the text has ended."""
        rest, self._held = self._held or "", None
        return rest


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest beginning of the stop string with which the text ends."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)

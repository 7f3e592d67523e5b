"""End a text before the first occurrence of a stop string, although the text arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes the pieces of a text on until one of the stop strings occurs.

    `add` returns the text that cannot be a part of a stop string, and holds the rest back. `finish` returns the text
    that is still held back. found: whether a stop string has occurred; the text ends before it.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.found = False

    def add(self, piece: str) -> str:
        """Add a piece of the text. Return the text that is now known to come before every stop string."""
        if self.found:
            return ""
        text = self._held + piece
        # The stop string that is complete first ends the text, so the result does not depend on the pieces.
        found = [(place + len(one), place) for one in self._stop if (place := text.find(one)) >= 0]
        if found:
            self.found, self._held = True, ""
            return text[: min(found)[1]]
        held = max((_overlap(text, one) for one in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Return the text that was held back, because the text has ended."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest beginning of the stop string with which the text ends."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)

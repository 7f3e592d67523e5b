"""The sources of the data during training: their names, and the number of tokens of each source that a run has read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from toynn.data import PackedTokens
from toynn.data.windows import Windows
from toynn.text.terminal_text import terminal_text
from toynn.training.events import Evaluated

_SYMBOLS = {ord("\n"): "\u240a", ord("\t"): "\u2409"}
_WINDOWS = 1 << 14  # number of windows whose tokens are counted at once


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names. A name that occurs again gets a number, for example "chats.jsonl 2"."""
    found: dict[str, None] = {}
    for name in names:
        new, number = name, 1
        while new in found:
            number += 1
            new = f"{name} {number}"
        found[new] = None
    return tuple(found)


def borders_of(tokens: PackedTokens) -> list[int]:
    """Return the position after the last token of each source in a split; [] for data without several sources."""
    of_sources = tokens.meta.splits[tokens.split].source_tokens
    return [] if of_sources is None else np.cumsum(of_sources, dtype=np.int64).tolist()


class SourcesRead:
    """Counts the training tokens of each source that a run has read.

    names: the names of the sources; () for data without several sources.
    """

    def __init__(self, tokens: PackedTokens, windows: Windows) -> None:
        borders = borders_of(tokens)
        self.names = distinct(_one_line(source.name) for source in tokens.meta.sources) if borders else ()
        self._windows, self._borders = windows, np.array([0, *borders], dtype=np.int64)
        self._tokens = np.zeros(len(borders), dtype=np.int64)
        self._counted = 0  # number of windows whose tokens are counted in _tokens

    def tokens(self, windows: int) -> tuple[int, ...]:
        """Return the number of tokens of each source in the first windows, or preference pairs, of a run.

        windows: the number of windows or pairs, not less than in the previous call.
        """
        while self.names and self._counted < windows:
            n = min(windows - self._counted, _WINDOWS)
            self._tokens += self._windows.tokens_between(self._borders, self._counted, n)
            self._counted += n
        return tuple(self._tokens.tolist())


def _one_line(name: str) -> str:
    """Return a file name that can be printed: with a visible symbol instead of each control character."""
    return terminal_text(name.encode("utf-8", "backslashreplace").decode("utf-8")).translate(_SYMBOLS)


def losses_by_source(event: Evaluated) -> str:
    """Return the loss of each source as text, for example "chats.jsonl 2.1034, facts.jsonl -"."""
    return ", ".join(
        f"{name} {'-' if loss is None else f'{loss:.4f}'}"
        for name, loss in zip(event.sources, event.source_losses, strict=True)
    )

"""Divide samples among windows so that the windows are as full as possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackingPlan:
    """The slots of each window. A slot is a place for one sample of a certain length.

    Window w has the slots `slots[first[w]]` to `slots[first[w + 1] - 1]`. Slot 0 is for the longest sample, slot 1 for
    the next one, and so on. If the samples are sorted by length, the longest first, sample i fits slot i.
    """

    slots: Positions
    first: Positions

    @property
    def windows(self) -> int:
        return self.first.size - 1

    def of_windows(self, windows: Positions) -> Positions:
        """Return the slots of several windows, one window after the other."""
        first = self.first[windows]
        counts = self.first[windows + 1] - first
        before = np.cumsum(counts) - counts
        return self.slots[np.repeat(first - before, counts) + np.arange(int(counts.sum()))]

    def of_window(self, window: int) -> Positions:
        """Return the slots of a window, the longest first."""
        return self.slots[self.first[window] : self.first[window + 1]]


def plan_of(lengths: npt.NDArray[np.int64], size: int) -> PackingPlan:
    """Return a plan for samples of these lengths, from 1 to size, and windows of `size` tokens.

    The samples are placed from the longest to the shortest. Each sample goes into the fullest window that has enough
    space (best-fit decreasing), or into a new window. Among windows with equal space, the window that has had this
    space for the longest time is used. The plan depends only on how often each length occurs.
    """
    counts = np.bincount(lengths, minlength=size + 1)
    window_of = np.empty(lengths.size, dtype=np.int64)
    spaces: dict[int, list[Positions]] = {}  # for each amount of free space, the windows that have this amount
    has_space = np.zeros(size + 1, dtype=bool)
    windows = placed = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left > 0:
            fits = np.flatnonzero(has_space[length:])
            space = size if fits.size == 0 else length + int(fits[0])
            # the chosen window stays the fullest window with enough space, so it gets samples until no more samples fit
            each = space // length
            if fits.size == 0:
                chosen = np.arange(windows, windows - (-left // each), dtype=np.int64)
                windows += chosen.size
            else:
                found = np.concatenate(spaces.pop(space))
                needed = min(found.size, -(-left // each))
                chosen, rest = found[:needed], found[needed:]
                has_space[space] = rest.size > 0
                if rest.size:
                    spaces[space] = [rest]
            n = min(left, chosen.size * each)
            window_of[placed : placed + n] = np.repeat(chosen, each)[:n]
            placed, left = placed + n, left - n
            in_last = n - (chosen.size - 1) * each
            for some, samples in ((chosen[:-1], each), (chosen[-1:], in_last)):
                free = space - samples * length
                if some.size and free > 0:
                    spaces.setdefault(free, []).append(some)
                    has_space[free] = True
    slots = np.argsort(window_of, kind="stable")
    first = np.searchsorted(window_of[slots], np.arange(windows + 1))
    return PackingPlan(slots, first.astype(np.int64))

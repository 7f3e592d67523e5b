"""GroupedWindows: one sample in each window, and samples of similar length in the windows of a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toynn.arguments import INT31_MAX, boolean, integer
from toynn.data.packed import PackedTokens
from toynn.data.sample_pieces import Positions, SamplePieces
from toynn.data.windows import Batch
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.labels import IGNORED
from toynn.tinynn.memory import memory_for

MIXED = 64  # number of groups whose samples are sorted together
MULTIPLE = 8  # lengths of windows are multiples of this number, so that fewer different lengths occur


@dataclass(frozen=True)
class _Epoch:
    """One pass over the samples.

    pieces: the pieces, one group after the other, the longest piece of each group first. The last group may have fewer
        pieces than the others.
    groups: the order of the groups.
    lengths: the length of the windows of each group.
    """

    number: int
    pieces: Positions
    groups: Positions
    lengths: Positions


class GroupedWindows(Initialised):
    """Returns windows with one sample each, or with a part of a long sample: see `SamplePieces`.

    The windows are divided into groups of g consecutive windows, for example the windows of a step. The windows of a
    group have the length of its longest sample, rounded up to a multiple of 8, but at most t_seq. The tokens
    after the end of a sample are padding, with the id 0 and no target.

    Each epoch uses each sample once. The samples are put in a random order, and every 64 * g consecutive samples are
    sorted by length and divided into groups. The groups are used in a random order. If the number of samples is not a
    multiple of g, one group has windows that contain only padding. Orders depend only on the seed and the
    number of the epoch, so a resumed run needs only the number of its next window.

    Args:
        split: a split made of samples.
        t_seq: the largest length of a window.
        seed: seed of the orders.
        group: g, the number of windows in a group.
        padded: all windows have t_seq tokens. The samples of each window stay the same.

    longest: the length of the longest window.
    samples, divided: as in `SamplePieces`.
    shortest: the length of the shortest window of the first epoch.
    filled: share of the tokens that are not padding, from 0 to 1, in the windows of the first epoch.
    """

    def __init__(self, split: PackedTokens, t_seq: int, seed: int, group: int, *, padded: bool = False) -> None:
        self.t_seq = integer("t_seq", t_seq, 1)
        self.seed = integer("seed", seed, 0, 2**63 - 1)
        self.group = integer("group", group, 1)
        self._padded = boolean("padded", padded)
        self._pieces = SamplePieces.of(split, self.t_seq)
        size = self._pieces.size
        self.windows_per_epoch = -(-size.size // self.group) * self.group
        self.samples, self.divided = self._pieces.samples, self._pieces.divided
        self.longest = int(self._lengths(size.max(initial=1, keepdims=True))[0])
        self._drawn = _Epoch(-1, *[np.zeros(0, dtype=np.int64)] * 3)
        self._tokens = [0]  # number of tokens before each epoch
        first = self._epoch(0).lengths
        self.shortest = int(first.min(initial=self.longest))
        self.filled = float(size.sum()) / max(int(first.sum()) * self.group, 1)

    def length(self, window: int) -> int:
        """Return the number of tokens of a window, with padding. It is the same for all windows of a group."""
        number, place = divmod(window, self._some_windows())
        epoch = self._epoch(number)
        return int(epoch.lengths[epoch.groups[place // self.group]])

    def tokens_before(self, window: int) -> int:
        """Return the number of tokens of all windows before this one, with padding."""
        number, place = divmod(window, self._some_windows())
        while len(self._tokens) <= number:
            self._tokens.append(self._tokens[-1] + int(self._epoch(len(self._tokens) - 1).lengths.sum()) * self.group)
        epoch = self._epoch(number)
        groups, rest = divmod(place, self.group)
        whole = int(epoch.lengths[epoch.groups[:groups]].sum()) * self.group
        return self._tokens[number] + whole + (rest * self.length(window) if rest else 0)

    def read(self, start: int, n: int) -> Batch:
        """Return the windows from start to start + n - 1, which must belong to one group."""
        n = integer("n", n, 1)
        start = integer("start", start, 0, 2**62 - n)
        if start % self.group + n > self.group:
            raise TinyNNValueError(
                f"n = {n} is too large: start + n must be at most {start - start % self.group + self.group}, "
                f"the end of the group of window {start}"
            )
        length = self.length(start)
        if n * length > INT31_MAX:
            raise TinyNNValueError(f"n * t_seq must be at most {INT31_MAX}, got {n} * {length}")
        with memory_for("n", 8 * n * length, f"{n} windows of {length} tokens"):
            ids = np.zeros((n, length), dtype=np.int32)
            targets = np.full((n, length), IGNORED, dtype=np.int32)
            for row, piece in enumerate(self._in_windows(start, n)):
                self._pieces.write(piece, ids[row], targets[row])
        return Batch(ids.reshape(-1), targets.reshape(-1))

    def tokens_between(self, borders: Positions, start: int, n: int) -> Positions:
        """Count tokens as `Windows.tokens_between` describes. Padding does not count."""
        counts = np.zeros(borders.size - 1, dtype=np.int64)
        end = start + n
        while start < end:
            inside = min(self.group - start % self.group, end - start)
            counts += self._pieces.tokens_between(borders, np.array(self._in_windows(start, inside), dtype=np.int64))
            start += inside
        return counts

    def _in_windows(self, start: int, n: int) -> list[int]:
        """Return the pieces in these windows of a group. The last windows of a group may have no pieces."""
        number, place = divmod(start, self._some_windows())
        epoch = self._epoch(number)
        first = int(epoch.groups[place // self.group]) * self.group + place % self.group
        found: list[int] = epoch.pieces[first : first + n].tolist()
        return found

    def _some_windows(self) -> int:
        if self.windows_per_epoch == 0:
            raise TinyNNValueError("no sample has a target that counts for the loss; use more samples")
        return self.windows_per_epoch

    def _lengths(self, size: Positions) -> Positions:
        """Return the lengths of windows whose longest samples have these sizes."""
        rounded = np.full_like(size, self.t_seq) if self._padded else -(-size // MULTIPLE) * MULTIPLE
        return np.minimum(rounded, self.t_seq)

    def _epoch(self, number: int) -> _Epoch:
        """Return the epoch with this number. Several threads can call this method, because the cached epoch is one
        attribute, which is replaced as a whole.
        """
        drawn = self._drawn
        if drawn.number != number:
            size, g = self._pieces.size, self.group
            draw = np.random.Generator(np.random.PCG64([self.seed, number]))
            with memory_for("seed", 48 * size.size, f"an order of {size.size} samples"):
                shuffled = draw.permutation(size.size)
                mixed = np.arange(size.size) // (MIXED * g)
                # each range of MIXED groups is sorted by length
                pieces = shuffled[np.lexsort((-size[shuffled], mixed))]
                lengths = self._lengths(size[pieces[::g]])
                self._drawn = drawn = _Epoch(number, pieces, draw.permutation(lengths.size), lengths)
        return drawn

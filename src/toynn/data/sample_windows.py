"""SampleWindows: put whole samples into windows, several into one window, in an order that a seed determines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer
from toynn.data.packed import PackedTokens
from toynn.data.packing import PackingPlan, plan_of
from toynn.data.windows import Batch
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.labels import IGNORED
from toynn.tinynn.memory import memory_for

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Epoch:
    """One pass over the samples. piece_of: the piece in each slot of the plan. windows: the order of the windows."""

    number: int
    piece_of: Positions
    windows: Positions


class SampleWindows(Initialised):
    """Returns windows of t_seq tokens with whole samples.

    A token of a sample predicts the next token of the same sample, so a sample of n tokens needs n - 1 places. A longer
    sample is divided into pieces of t_seq places, which are then samples of their own. Pieces without a target that
    counts are left out. The places at the end of a window that no sample fills have the id 0 and no target.

    The lengths of the samples in each window come from `plan_of`, so every epoch has the same number of windows. In
    each epoch, samples of equal length change places at random, and the windows are used in a random order. Both orders
    depend only on the seed and the number of the epoch, so a resumed run needs only the number of its next window.

    samples: number of samples that are used.
    divided: number of used samples that are longer than a window.
    filled: share of the places that samples fill, from 0 to 1.
    """

    def __init__(self, split: PackedTokens, t_seq: int, seed: int) -> None:
        self.t_seq = integer("t_seq", t_seq, 1)
        self.seed = integer("seed", seed, 0, 2**63 - 1)
        if split.starts is None:
            raise TinyNNValueError("split must be made of samples, got a split of plain text")
        self._tokens, self._counted = split.tokens, split.counted
        with memory_for("split", 100 * split.starts.size, f"the places of {split.starts.size} samples"):
            ends = np.append(split.starts[1:], len(split))
            sizes = np.maximum(ends - split.starts - 1, 0)  # (samples,): places of each sample
            pieces = -(-sizes // self.t_seq)
            sample = np.repeat(np.arange(sizes.size), pieces)  # (pieces,)
            before = (np.arange(sample.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * self.t_seq
            first, size = split.starts[sample] + before, np.minimum(sizes[sample] - before, self.t_seq)
            targets = self._targets_of(first, size)
            useful = targets > 0
            self._first, self._size, self._targets = first[useful], size[useful], targets[useful]
            self._plan: PackingPlan = plan_of(self._size, self.t_seq)
            used = np.unique(sample[useful])
        self.windows_per_epoch = self._plan.windows
        self.samples, self.divided = int(used.size), int((pieces[used] > 1).sum())
        self.filled = float(self._size.sum()) / max(self.windows_per_epoch * self.t_seq, 1)
        self._drawn = _Epoch(-1, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def targets(self, windows: int) -> int:
        """Return the number of targets that count in the first windows of the first epoch. 0: in all windows."""
        if windows == 0 or windows >= self.windows_per_epoch:
            return int(self._targets.sum())
        epoch = self._epoch(0)
        return int(self._targets[epoch.piece_of[self._plan.of_windows(epoch.windows[:windows])]].sum())

    def read(self, start: int, n: int) -> Batch:
        """Return the windows from start to start + n - 1."""
        n = integer("n", n, 1)
        start = integer("start", start, 0, 2**62 - n)
        if self.windows_per_epoch == 0:
            raise TinyNNValueError(
                "none of the samples of this split has a target that counts for the loss; use more samples"
            )
        if n * self.t_seq > INT31_MAX:
            raise TinyNNValueError(f"n * t_seq must be at most {INT31_MAX}, got {n} * {self.t_seq}")
        with memory_for("n", 12 * n * self.t_seq, f"{n} windows of {self.t_seq} tokens"):
            ids = np.zeros((n, self.t_seq), dtype=np.int32)
            targets = np.full((n, self.t_seq), IGNORED, dtype=np.int32)
            starts = np.tile(np.arange(self.t_seq, dtype=np.int32), (n, 1))
            for row in range(n):
                at = 0
                for first, size in self._pieces(start + row):
                    part = np.asarray(self._tokens[first : first + size + 1], dtype=np.int32)
                    own = slice(at, at + size)
                    ids[row, own], targets[row, own], starts[row, own] = part[:-1], part[1:], at
                    if self._counted is not None:
                        targets[row, own][self._counted[first + 1 : first + size + 1] == 0] = IGNORED
                    at += size
        return Batch(ids.reshape(-1), targets.reshape(-1), starts.reshape(-1))

    def positions(self, start: int, n: int) -> Positions:
        """Return the position in the data of the target in each place of these windows, int64 (n * t_seq,).

        -1 for a place that no sample fills.
        """
        found = np.full((n, self.t_seq), -1, dtype=np.int64)
        for row in range(n):
            at = 0
            for first, size in self._pieces(start + row):
                found[row, at : at + size] = np.arange(first + 1, first + 1 + size)
                at += size
        return found.reshape(-1)

    def tokens_between(self, borders: Positions, start: int, n: int) -> Positions:
        """Count tokens as `Windows.tokens_between` describes. Places that no sample fills do not count."""
        counts = np.zeros(borders.size - 1, dtype=np.int64)
        while n > 0:
            number, place = divmod(start, self.windows_per_epoch)
            epoch = self._epoch(number)
            chosen = epoch.windows[place : place + n]
            pieces = epoch.piece_of[self._plan.of_windows(chosen)]
            source = np.searchsorted(borders, self._first[pieces], side="right") - 1
            np.add.at(counts, source, self._size[pieces])
            start, n = start + chosen.size, n - chosen.size
        return counts

    def _pieces(self, window: int) -> list[tuple[int, int]]:
        """Return the position of the first token and the number of places of each piece in a window."""
        number, place = divmod(window, self.windows_per_epoch)
        epoch = self._epoch(number)
        pieces = epoch.piece_of[self._plan.of_window(int(epoch.windows[place]))]
        return list(zip(self._first[pieces].tolist(), self._size[pieces].tolist(), strict=True))

    def _epoch(self, number: int) -> _Epoch:
        """Return the epoch with this number. The last epoch is cached in one attribute, so several threads may call
        this method.
        """
        drawn = self._drawn
        if drawn.number != number:
            draw = np.random.Generator(np.random.PCG64([self.seed, number]))
            with memory_for("seed", 32 * self._size.size, f"an order of {self._size.size} samples"):
                shuffled = draw.permutation(self._size.size)
                piece_of = shuffled[np.argsort(-self._size[shuffled], kind="stable")]
                self._drawn = drawn = _Epoch(number, piece_of, draw.permutation(self.windows_per_epoch))
        return drawn

    def _targets_of(self, first: Positions, size: Positions) -> Positions:
        """Return the number of targets that count in each piece."""
        if self._counted is None or first.size == 0:
            return size
        edges = np.stack([first + 1, first + 1 + size], axis=1).reshape(-1)
        if edges[-1] == self._counted.size:
            edges = edges[:-1]
        return np.add.reduceat(self._counted, edges, dtype=np.int64)[::2]

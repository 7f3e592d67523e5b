"""SampleWindows: put whole samples into windows, several into one window, in an order that a seed determines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toynn.arguments import INT31_MAX, integer
from toynn.data.packed import PackedTokens
from toynn.data.packing import PackingPlan, plan_of
from toynn.data.sample_pieces import Positions, SamplePieces
from toynn.data.windows import Batch, EqualWindows
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.labels import IGNORED
from toynn.tinynn.memory import memory_for


@dataclass(frozen=True)
class _Epoch:
    """One pass over the samples. piece_of: the piece in each slot of the plan. windows: the order of the windows."""

    number: int
    piece_of: Positions
    windows: Positions


class SampleWindows(EqualWindows, Initialised):
    """Returns windows of t_seq tokens with whole samples, or parts of long samples: see `SamplePieces`.

    The end of a window that no sample fills is padding, with the id 0 and no target.

    The lengths of the samples in each window come from `plan_of`, so every epoch has the same number of windows. In
    each epoch, samples of equal length are exchanged at random, and the windows are used in a random order. Both orders
    depend only on the seed and the number of the epoch, so a resumed run needs only the number of its next window.

    samples: number of samples that are used.
    divided: number of used samples that are longer than a window.
    filled: share of the tokens in the windows that are not padding, from 0 to 1.
    """

    def __init__(self, split: PackedTokens, t_seq: int, seed: int) -> None:
        self.t_seq = integer("t_seq", t_seq, 1)
        self.seed = integer("seed", seed, 0, 2**63 - 1)
        self._pieces = SamplePieces.of(split, self.t_seq)
        with memory_for("split", 100 * self._pieces.size.size, f"the places of {self._pieces.size.size} samples"):
            self._plan: PackingPlan = plan_of(self._pieces.size, self.t_seq)
        self.windows_per_epoch = self._plan.windows
        self.samples, self.divided = self._pieces.samples, self._pieces.divided
        self.filled = float(self._pieces.size.sum()) / max(self.windows_per_epoch * self.t_seq, 1)
        self._drawn = _Epoch(-1, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def targets(self, windows: int) -> int:
        """Return the number of targets that count in the first windows of the first epoch.

        windows: the number of these windows; 0: all windows.
        """
        if windows == 0 or windows >= self.windows_per_epoch:
            return int(self._pieces.targets.sum())
        epoch = self._epoch(0)
        return int(self._pieces.targets[epoch.piece_of[self._plan.of_windows(epoch.windows[:windows])]].sum())

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
                for piece in self._in_window(start + row):
                    size = int(self._pieces.size[piece])
                    self._pieces.write(piece, ids[row, at:], targets[row, at:])
                    starts[row, at : at + size] = at
                    at += size
        return Batch(ids.reshape(-1), targets.reshape(-1), starts.reshape(-1))

    def positions(self, start: int, n: int) -> Positions:
        """Return, for each token of these windows, the position of its target in the data, int64 (n * t_seq,).

        -1 for padding.
        """
        found = np.full((n, self.t_seq), -1, dtype=np.int64)
        for row in range(n):
            at = 0
            for piece in self._in_window(start + row):
                first, size = int(self._pieces.first[piece]), int(self._pieces.size[piece])
                found[row, at : at + size] = np.arange(first + 1, first + 1 + size)
                at += size
        return found.reshape(-1)

    def tokens_between(self, borders: Positions, start: int, n: int) -> Positions:
        """Count tokens as `Windows.tokens_between` describes. Padding does not count."""
        counts = np.zeros(borders.size - 1, dtype=np.int64)
        while n > 0:
            number, place = divmod(start, self.windows_per_epoch)
            epoch = self._epoch(number)
            chosen = epoch.windows[place : place + n]
            pieces = epoch.piece_of[self._plan.of_windows(chosen)]
            counts += self._pieces.tokens_between(borders, pieces)
            start, n = start + chosen.size, n - chosen.size
        return counts

    def _in_window(self, window: int) -> list[int]:
        """Return the pieces in a window, in their order."""
        number, place = divmod(window, self.windows_per_epoch)
        epoch = self._epoch(number)
        found: list[int] = epoch.piece_of[self._plan.of_window(int(epoch.windows[place]))].tolist()
        return found

    def _epoch(self, number: int) -> _Epoch:
        """Return the epoch with this number. Several threads can call this method, because the cached epoch is one
        attribute, which is replaced as a whole.
        """
        drawn = self._drawn
        if drawn.number != number:
            draw = np.random.Generator(np.random.PCG64([self.seed, number]))
            with memory_for("seed", 32 * self._pieces.size.size, f"an order of {self._pieces.size.size} samples"):
                shuffled = draw.permutation(self._pieces.size.size)
                piece_of = shuffled[np.argsort(-self._pieces.size[shuffled], kind="stable")]
                self._drawn = drawn = _Epoch(number, piece_of, draw.permutation(self.windows_per_epoch))
        return drawn

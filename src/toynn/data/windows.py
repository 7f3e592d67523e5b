"""WindowBatcher: divide a token file into windows and return them in a random order that depends only on a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from toynn.arguments import INT31_MAX, integer
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.labels import IGNORED
from toynn.tinynn.memory import memory_for

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Batch:
    """Consecutive windows of a run.

    ids, targets: int32 (n * t_seq,), the tokens of the windows, one after the other.
    starts: for each token, the position in its window of the first token of its sample, int32 (n * t_seq,); None if a
        window is one sample.
    """

    ids: IntArray
    targets: IntArray
    starts: IntArray | None = None


class Windows(Protocol):
    """The windows of a run. Window i does not depend on the windows that were read before.

    windows_per_epoch: number of windows in one pass over the data.
    """

    windows_per_epoch: int

    @property
    def longest(self) -> int:
        """The number of tokens of the longest sequence of all windows."""
        ...

    def read(self, start: int, n: int) -> Batch:
        """Return the windows from start to start + n - 1, which have the same length."""
        ...

    def length(self, window: int) -> int:
        """Return the number of tokens of a sequence in this window."""
        ...

    def tokens_before(self, window: int) -> int:
        """Return the number of tokens in all windows before this one, including padding."""
        ...

    def tokens_between(self, borders: npt.NDArray[np.int64], start: int, n: int) -> npt.NDArray[np.int64]:
        """Count the tokens between each border and the next border, int64 (len(borders) - 1,).

        Only the tokens in the windows from start to start + n - 1 count. borders: positions in the data.
        """
        ...


class EqualWindows:
    """A base class for `Windows` in which all windows have the same length.

    sequences: number of sequences of t_seq tokens in a window.
    """

    t_seq: int
    sequences = 1

    @property
    def longest(self) -> int:
        return self.t_seq

    def length(self, window: int) -> int:  # noqa: ARG002
        return self.t_seq

    def tokens_before(self, window: int) -> int:
        return integer("window", window, 0, 2**62) * self.sequences * self.t_seq


@dataclass(frozen=True)
class _Epoch:
    """One pass over the tokens. starts: the position of the first token of each window, in the order of the epoch."""

    number: int
    starts: npt.NDArray[np.int64]


def document_starts(ids: IntArray, t_seq: int, end_id: int) -> IntArray:
    """Return for each token the position in its window at which its document begins, int32 (n * t_seq,).

    A document begins at the start of a window, and after each token end_id.
    """
    rows = ids.reshape(-1, t_seq)
    begins = np.tile(np.arange(t_seq, dtype=np.int32), (rows.shape[0], 1))
    begins[:, 1:][rows[:, :-1] != end_id] = 0
    return np.maximum.accumulate(begins, axis=1).reshape(-1)


def windows_per_epoch(tokens: int, t_seq: int) -> int:
    """Return the number of windows of t_seq tokens in one pass over `tokens` tokens."""
    return max(tokens - 1, 0) // t_seq


class WindowBatcher(EqualWindows, Initialised):
    """Returns windows of t_seq tokens. The targets of a window are the same tokens shifted by one.

    Each epoch divides the tokens, from a random offset on, into windows that do not overlap. The epoch uses each window
    once, in a random order. Offset and order depend only on the seed and the number of the epoch. So window i does not
    depend on the batch size or on the windows that were read before. A resumed run needs only the number of its next
    window.

    Args:
        tokens: array (n,) of integers, with n at least t_seq + 1.
        t_seq: tokens per window, at least 1.
        seed: seed of the offsets and orders.
        counted: array (n,) of uint8, 1 for each token that counts for the loss and 0 for the others. None: every token
            counts. A target that does not count is -100. Windows without any target that counts are replaced by other
            windows of the same epoch.
        end_id: the token that ends each document, if a token must see only tokens of its own document. None: a token
            sees all tokens before it in its window. Only `read` uses end_id.

    Raises TinyNNValueError or TinyNNTypeError with the name of the argument.
    """

    def __init__(
        self,
        tokens: npt.NDArray[Any],
        t_seq: int,
        seed: int,
        counted: npt.NDArray[np.uint8] | None = None,
        end_id: int | None = None,
    ) -> None:
        self.t_seq = integer("t_seq", t_seq, 1)
        self.seed = integer("seed", seed, 0, 2**63 - 1)
        self.end_id = None if end_id is None else integer("end_id", end_id, 0, INT31_MAX)
        if not isinstance(tokens, np.ndarray) or isinstance(tokens, np.ma.MaskedArray):
            raise TinyNNTypeError(f"tokens must be a plain numpy array, got {type(tokens).__name__}")
        if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
            raise TinyNNValueError(
                f"tokens must be a flat array of integers, got shape {tokens.shape} and dtype {tokens.dtype}"
            )
        if tokens.size < self.t_seq + 1:
            raise TinyNNValueError(
                f"tokens: a window needs t_seq + 1 = {self.t_seq + 1} tokens, got {tokens.size}; "
                "use a smaller t_seq or more text"
            )
        self._tokens: npt.NDArray[Any] = np.asarray(tokens)
        self._counted = None if counted is None else _checked_marks(counted, int(tokens.size))
        # The first window of an epoch begins at one of the tokens 0 to _slack, so every epoch has the same number of
        # windows. The last token is only a target.
        self.windows_per_epoch = windows_per_epoch(int(tokens.size), self.t_seq)
        self._slack = (int(tokens.size) - 1) % self.t_seq
        self._drawn = _Epoch(-1, np.zeros(0, dtype=np.int64))

    def start_of(self, i: int) -> int:
        """Return the position of the first token of window i."""
        epoch, place = divmod(integer("i", i, 0, 2**62), self.windows_per_epoch)
        return int(self._epoch(epoch).starts[place])

    def window(self, i: int) -> tuple[IntArray, IntArray]:
        """Return the ids and targets of window i, as two int32 arrays (t_seq,). Target t is the token after id t."""
        return self._cut(np.array([self.start_of(i)]))

    def read(self, start: int, n: int) -> Batch:
        """Return the windows from start to start + n - 1."""
        ids, targets = self.batch(start, n)
        return Batch(ids, targets, None if self.end_id is None else document_starts(ids, self.t_seq, self.end_id))

    def batch(self, start: int, n: int) -> tuple[IntArray, IntArray]:
        """Return the ids and targets of the windows from start to start + n - 1, as two int32 arrays (n * t_seq,)."""
        n = integer("n", n, 1)
        start = integer("start", start, 0, 2**62 - n)
        if n * self.t_seq > INT31_MAX:
            raise TinyNNValueError(f"n * t_seq must be at most {INT31_MAX}, got {n} * {self.t_seq}")
        # Bytes of the arrays for each window: its start; t_seq + 1 tokens in their dtype; ids and targets in int32.
        nbytes = n * (8 + self._tokens.itemsize * (self.t_seq + 1) + 8 * self.t_seq)
        with memory_for("n", nbytes, f"{n} windows of {self.t_seq} tokens"):
            return self._cut(self._starts(start, n))

    def starts(self, start: int, n: int) -> npt.NDArray[np.int64]:
        """Return the positions of the first tokens of the windows from start to start + n - 1, int64 (n,)."""
        n = integer("n", n, 1)
        start = integer("start", start, 0, 2**62 - n)
        with memory_for("n", 8 * n, f"the positions of {n} windows"):
            return self._starts(start, n)

    def tokens_between(self, borders: npt.NDArray[np.int64], start: int, n: int) -> npt.NDArray[np.int64]:
        """Count tokens as `Windows.tokens_between` describes."""
        inside = np.clip(borders - self.starts(start, n)[:, None], 0, self.t_seq)  # (n, borders)
        counts: npt.NDArray[np.int64] = np.diff(inside, axis=1).sum(axis=0)
        return counts

    def _starts(self, start: int, n: int) -> npt.NDArray[np.int64]:
        starts, done = np.empty(n, dtype=np.int64), 0
        while done < n:
            epoch, place = divmod(start + done, self.windows_per_epoch)
            part = self._epoch(epoch).starts[place : place + n - done]
            starts[done : done + part.size] = part
            done += part.size
        return starts

    def _epoch(self, number: int) -> _Epoch:
        """Return the epoch with this number. Several threads can call this method, because the cached epoch is one
        attribute, which is replaced as a whole.
        """
        drawn = self._drawn
        if drawn.number != number:
            draw = np.random.Generator(np.random.PCG64([self.seed, number]))
            offset = int(draw.integers(self._slack + 1))
            with memory_for("t_seq", 8 * self.windows_per_epoch, f"an order of {self.windows_per_epoch} windows"):
                starts = draw.permutation(self.windows_per_epoch)
            starts *= self.t_seq
            starts += offset
            if self._counted is not None:
                starts = self._useful(starts, offset)
            self._drawn = drawn = _Epoch(number, starts)
        return drawn

    def _useful(self, starts: npt.NDArray[np.int64], offset: int) -> npt.NDArray[np.int64]:
        """Return the starts of the windows that have a target that counts, repeated until there are windows_per_epoch
        starts.
        """
        n, t = self.windows_per_epoch, self.t_seq
        targets = np.asarray(self._counted)[offset + 1 : offset + 1 + n * t]
        counts = np.any(targets.reshape(n, t), axis=1)  # (n,): whether window i has a target that counts
        useful = starts[counts[(starts - offset) // t]]
        if useful.size == 0:
            raise TinyNNValueError(f"counted: none of the {n} windows has a target that counts; use more samples")
        return np.resize(useful, n)

    def _cut(self, starts: npt.NDArray[np.int64]) -> tuple[IntArray, IntArray]:
        """Return the ids and targets of the windows that begin at these positions."""
        raw = sliding_window_view(self._tokens, self.t_seq + 1)[starts]  # (n, t_seq + 1)
        may_be_invalid = raw.dtype.kind == "i" or raw.dtype.itemsize > 2
        if may_be_invalid and not (int(raw.min()) >= 0 and int(raw.max()) <= INT31_MAX):
            wrong = next(i for i, row in enumerate(raw) if int(row.min()) < 0 or int(row.max()) > INT31_MAX)
            low, high = int(raw[wrong].min()), int(raw[wrong].max())
            raise TinyNNValueError(
                f"tokens must be ids from 0 to {INT31_MAX}, got {low} to {high} in the window at {starts[wrong]}"
            )
        ids, targets = raw[:, :-1], raw[:, 1:]
        if self._counted is not None:
            marks = sliding_window_view(self._counted, self.t_seq + 1)[starts][:, 1:]
            targets = np.where(marks, targets.astype(np.int32), np.int32(IGNORED))
        return ids.astype(np.int32, order="C").reshape(-1), targets.astype(np.int32, order="C").reshape(-1)


def _checked_marks(counted: object, n: int) -> npt.NDArray[np.uint8]:
    if not isinstance(counted, np.ndarray) or isinstance(counted, np.ma.MaskedArray):
        raise TinyNNTypeError(f"counted must be a plain numpy array, got {type(counted).__name__}")
    if counted.shape != (n,) or counted.dtype != np.uint8:
        raise TinyNNValueError(
            f"counted must have shape ({n},) and dtype uint8, got shape {counted.shape} and dtype {counted.dtype}"
        )
    return np.asarray(counted)

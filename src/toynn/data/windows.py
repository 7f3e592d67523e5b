"""Windows of a token file in an endless seeded order, of which any place can be had at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from toynn.arguments import INT31_MAX, integer
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.tinynn.memory import memory_for

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Epoch:
    """starts: where its windows begin in the tokens, in their order."""

    number: int
    starts: npt.NDArray[np.int64]


class WindowBatcher:
    """Windows of t_seq tokens and the t_seq that follow each by one.

    An epoch cuts the tokens into windows that do not overlap, from an offset of its own, and visits each once in an
    order of its own; both are drawn from the seed and the epoch's number alone. So window i is the same however the
    windows are batched and wherever one starts to read: a run goes on from a number.

    Args:
        tokens: (n,) unsigned, n at least t_seq + 1.
        t_seq: tokens of a window, at least 1.
        seed: of offsets and orders.

    Raises TinyNNValueError, by name.
    """

    def __init__(self, tokens: npt.NDArray[Any], t_seq: int, seed: int) -> None:
        self.t_seq = integer("t_seq", t_seq, 1)
        self.seed = integer("seed", seed, 0, 2**63 - 1)
        if not isinstance(tokens, np.ndarray) or isinstance(tokens, np.ma.MaskedArray):
            raise TinyNNTypeError(f"tokens must be a plain array, got {type(tokens).__name__}")
        if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
            raise TinyNNValueError(f"tokens must be flat and whole, got shape {tokens.shape} and dtype {tokens.dtype}")
        if tokens.size < self.t_seq + 1:
            raise TinyNNValueError(
                f"tokens: {tokens.size} are too few for windows of t_seq + 1 = {self.t_seq + 1}; "
                "shorten t_seq or add text"
            )
        self._tokens: npt.NDArray[Any] = np.asarray(tokens)
        # the last token is a target only; offsets up to slack leave every epoch the same number of windows
        self.windows_per_epoch = (int(tokens.size) - 1) // self.t_seq
        self._slack = (int(tokens.size) - 1) % self.t_seq
        self._drawn = _Epoch(-1, np.zeros(0, dtype=np.int64))

    def start_of(self, i: int) -> int:
        """Where window i begins in the tokens."""
        epoch, place = divmod(integer("i", i, 0, 2**62), self.windows_per_epoch)
        return int(self._epoch(epoch).starts[place])

    def window(self, i: int) -> tuple[IntArray, IntArray]:
        """Window i: ids and targets, int32 (t_seq,) each; target t is the token after id t."""
        return self._cut(np.array([self.start_of(i)]))

    def batch(self, start: int, n: int) -> tuple[IntArray, IntArray]:
        """Windows start..start+n-1, one after the other: ids and targets, int32 (n * t_seq,) each."""
        n = integer("n", n, 1)
        start = integer("start", start, 0, 2**62 - n)
        if n * self.t_seq > INT31_MAX:
            raise TinyNNValueError(f"n: {n} windows of t_seq = {self.t_seq} are more tokens than fit 31 bits")
        # where each begins; the tokens as they are, one more a window; ids and targets
        nbytes = n * (8 + self._tokens.itemsize * (self.t_seq + 1) + 8 * self.t_seq)
        with memory_for("n", nbytes, f"{n} windows of {self.t_seq} tokens"):
            starts = np.empty(n, dtype=np.int64)
            done = 0
            while done < n:
                epoch, place = divmod(start + done, self.windows_per_epoch)
                part = self._epoch(epoch).starts[place : place + n - done]
                starts[done : done + part.size] = part
                done += part.size
            return self._cut(starts)

    def _epoch(self, number: int) -> _Epoch:
        """Drawn anew unless it is the last one. In a single step: neither a thread nor an error sees half of one."""
        drawn = self._drawn
        if drawn.number != number:
            draw = np.random.Generator(np.random.PCG64([self.seed, number]))
            offset = int(draw.integers(self._slack + 1))
            with memory_for("t_seq", 8 * self.windows_per_epoch, f"an order of {self.windows_per_epoch} windows"):
                starts = draw.permutation(self.windows_per_epoch)
            starts *= self.t_seq
            starts += offset
            self._drawn = drawn = _Epoch(number, starts)
        return drawn

    def _cut(self, starts: npt.NDArray[np.int64]) -> tuple[IntArray, IntArray]:
        """The windows that begin there."""
        raw = sliding_window_view(self._tokens, self.t_seq + 1)[starts]  # (n, t_seq + 1)
        could_be_none = raw.dtype.kind == "i" or raw.dtype.itemsize > 2
        if could_be_none and not (int(raw.min()) >= 0 and int(raw.max()) <= INT31_MAX):
            wrong = next(i for i, row in enumerate(raw) if int(row.min()) < 0 or int(row.max()) > INT31_MAX)
            low, high = int(raw[wrong].min()), int(raw[wrong].max())
            raise TinyNNValueError(f"tokens from {starts[wrong]} on hold {low} to {high}: no token ids")
        ids, targets = raw[:, :-1], raw[:, 1:]
        return ids.astype(np.int32, order="C").reshape(-1), targets.astype(np.int32, order="C").reshape(-1)

"""Windows of a token file in an endless seeded order, of which any place can be had at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toynn._checks import INT31_MAX, whole
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.tinynn.arguments import memory_for

IntArray = npt.NDArray[np.int32]


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
        self.t_seq = whole("t_seq", t_seq, 1)
        self.seed = whole("seed", seed, 0, 2**63 - 1)
        if not isinstance(tokens, np.ndarray):
            raise TinyNNTypeError(f"tokens must be an array, got {type(tokens).__name__}")
        if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
            raise TinyNNValueError(f"tokens must be flat and whole, got shape {tokens.shape} and dtype {tokens.dtype}")
        if tokens.size < self.t_seq + 1:
            raise TinyNNValueError(
                f"tokens: {tokens.size} are too few for windows of t_seq + 1 = {self.t_seq + 1}; "
                "shorten t_seq or add text"
            )
        self._tokens = tokens
        # the last token is a target only; offsets up to slack leave every epoch the same number of windows
        self.windows_per_epoch = (int(tokens.size) - 1) // self.t_seq
        self._slack = (int(tokens.size) - 1) % self.t_seq
        self._epoch = -1
        self._offset = 0
        self._order: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def start_of(self, i: int) -> int:
        """Where window i begins in the tokens."""
        epoch, place = divmod(whole("i", i, 0, 2**62), self.windows_per_epoch)
        if epoch != self._epoch:
            draw = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._offset = int(draw.integers(self._slack + 1))
            with memory_for("t_seq", 8 * self.windows_per_epoch, f"an order of {self.windows_per_epoch} windows"):
                self._order = draw.permutation(self.windows_per_epoch)
            self._epoch = epoch
        return self._offset + int(self._order[place]) * self.t_seq

    def window(self, i: int) -> tuple[IntArray, IntArray]:
        """Window i: ids and targets, int32 (t_seq,) each; target t is the token after id t."""
        start = self.start_of(i)
        raw = self._tokens[start : start + self.t_seq + 1]
        if not (int(raw.min()) >= 0 and int(raw.max()) <= INT31_MAX):
            raise TinyNNValueError(f"tokens from {start} on hold {int(raw.min())} to {int(raw.max())}: no token ids")
        part = np.asarray(raw, dtype=np.int32)
        return part[:-1].copy(), part[1:].copy()

    def batch(self, start: int, n: int) -> tuple[IntArray, IntArray]:
        """Windows start..start+n-1, one after the other: ids and targets, int32 (n * t_seq,) each."""
        start, n = whole("start", start, 0, 2**62), whole("n", n, 1)
        if n * self.t_seq > INT31_MAX:
            raise TinyNNValueError(f"n: {n} windows of t_seq = {self.t_seq} are more tokens than fit 31 bits")
        with memory_for("n", 16 * n * self.t_seq, f"{n} windows of {self.t_seq} tokens"):
            windows = [self.window(start + i) for i in range(n)]
            return np.concatenate([ids for ids, _ in windows]), np.concatenate([targets for _, targets in windows])

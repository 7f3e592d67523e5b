"""PairBatcher: the preference pairs of a split, each as two windows, in a random order that depends only on a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, IntArray, integer
from toynn.data.packed import PackedTokens
from toynn.data.windows import Batch, EqualWindows
from toynn.errors import TinyNNValueError
from toynn.llm.labels import IGNORED
from toynn.tinynn.memory import memory_for


def tokens_needed(tokens: PackedTokens) -> int:
    """Return the length of a window that holds the longest sequence of a split of pairs. The last token of a sequence
    is only a target.
    """
    starts = _starts(tokens)
    return int(np.diff(starts, append=len(tokens)).max(initial=1)) - 1


class PairBatcher(EqualWindows):
    """Returns pairs as windows of t_seq tokens, the chosen sequence before the rejected one.

    Each epoch uses each pair once, in a random order, which depends only on the seed and the number of the epoch. The
    end of a window is padded with tokens that have no target.

    Args:
        tokens: a split of pairs.
        t_seq: tokens of a window; at least `tokens_needed(tokens)`.
        seed: seed of the orders. None: the order of the file.

    pairs, windows_per_epoch: number of pairs in the split.
    filled: share of the windows that is not padding, from 0 to 1.
    """

    sequences = 2

    def __init__(self, tokens: PackedTokens, t_seq: int, seed: int | None) -> None:
        self.t_seq = integer("t_seq", t_seq, 1)
        self._seed = seed
        if tokens.counted is None:
            raise TinyNNValueError(
                "tokens.counted must be an array that marks the tokens that count for the loss, got None"
            )
        self._tokens, self._counted = tokens.tokens, tokens.counted
        self._starts = np.append(_starts(tokens), len(tokens))
        self.pairs = self.windows_per_epoch = (self._starts.size - 1) // 2
        self.filled = (len(tokens) - 2 * self.pairs) / max(2 * self.pairs * self.t_seq, 1)
        if (needed := tokens_needed(tokens)) > t_seq:
            raise TinyNNValueError(f"t_seq must be at least {needed} (the longest sequence of the pairs), got {t_seq}")
        self._drawn: tuple[int, npt.NDArray[np.int64]] = (-1, np.zeros(0, dtype=np.int64))

    def numbers(self, start: int, n: int) -> npt.NDArray[np.int64]:
        """Return the positions of n pairs in the split, int64 (n,).

        start: the place of the first of these pairs in the order of the epochs.
        """
        n = integer("n", n, 1)
        start = integer("start", start, 0, 2**62 - n)
        with memory_for("n", 8 * n, f"the numbers of {n} pairs"):
            found, done = np.empty(n, dtype=np.int64), 0
        while done < n:
            epoch, place = divmod(start + done, self.pairs)
            part = self._order(epoch)[place : place + n - done]
            found[done : done + part.size] = part
            done += part.size
        return found

    def starts(self, n: int) -> npt.NDArray[np.int64]:
        """Return the position of the first token of each of the first n pairs of the split, int64 (n,)."""
        return self._starts[: 2 * n : 2]

    def counted_tokens(self, n: int) -> int:
        """Return the number of tokens that count in the first n pairs of the split."""
        return int(self._counted[: self._starts[2 * n]].sum(dtype=np.int64))

    def read(self, start: int, n: int) -> Batch:
        """Return the pairs at the places start to start + n - 1 in the order of the epochs, as 2 * n windows."""
        return Batch(*self.cut(self.numbers(start, n), n))

    def tokens_between(self, borders: npt.NDArray[np.int64], start: int, n: int) -> npt.NDArray[np.int64]:
        """Count the tokens between each border and the next border, int64 (len(borders) - 1,).

        Only the pairs at the places start to start + n - 1 in the order of the epochs count. borders: positions in the
        data.
        """
        numbers = self.numbers(start, n)
        first, end = self._starts[2 * numbers][:, None], self._starts[2 * numbers + 2][:, None]  # (n, 1)
        between: npt.NDArray[np.int64] = np.diff(np.clip(borders, first, end), axis=1).sum(axis=0)
        return between

    def cut(self, numbers: npt.NDArray[np.int64], n: int) -> tuple[IntArray, IntArray]:
        """Return the ids and targets of pairs, as two int32 arrays (2 * n * t_seq,).

        numbers: the positions of at most n pairs in the split. If there are fewer than n, the remaining windows have no
            targets.
        """
        t = self.t_seq
        if 2 * n * t > INT31_MAX:
            raise TinyNNValueError(f"2 * n * t_seq must be at most {INT31_MAX}, got 2 * {n} * {t}")
        with memory_for("n", 16 * n * t, f"{n} pairs of windows of {t} tokens"):
            ids, targets = np.zeros((2 * n, t), dtype=np.int32), np.full((2 * n, t), IGNORED, dtype=np.int32)
        for i, sequence in enumerate((2 * numbers[:, None] + np.arange(2)).ravel().tolist()):
            first, end = int(self._starts[sequence]), int(self._starts[sequence + 1])
            row = slice(0, max(end - first - 1, 0))
            ids[i, row] = self._tokens[first : end - 1]
            following = slice(first + 1, end)
            targets[i, row] = np.where(self._counted[following], self._tokens[following].astype(np.int32), IGNORED)
        return ids.ravel(), targets.ravel()

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the positions of all pairs in the order of an epoch. The order of the last epoch is cached."""
        drawn = self._drawn
        if drawn[0] != epoch:
            with memory_for("tokens", 8 * self.pairs, f"an order of {self.pairs} pairs"):
                if self._seed is None:
                    order = np.arange(self.pairs)
                else:
                    order = np.random.Generator(np.random.PCG64([self._seed, epoch])).permutation(self.pairs)
            self._drawn = drawn = (epoch, order)
        return drawn[1]


def _starts(tokens: PackedTokens) -> npt.NDArray[np.int64]:
    if not tokens.meta.pairs or tokens.starts is None:
        raise TinyNNValueError("tokens must be preference pairs, but the data folder was made of other samples")
    return np.asarray(tokens.starts, dtype=np.int64)

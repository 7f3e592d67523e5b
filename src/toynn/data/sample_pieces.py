"""SamplePieces: the samples of a split as pieces that fit into windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.data.packed import PackedTokens
from toynn.errors import TinyNNValueError
from toynn.llm.labels import IGNORED
from toynn.tinynn.memory import memory_for

Positions = npt.NDArray[np.int64]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SamplePieces:
    """The samples of a split, in pieces that fit into windows of t_seq tokens.

    A token of a sample predicts the next token of the same sample, so a sample of n tokens takes n - 1 tokens of a
    window. A sample that takes more than t_seq tokens is divided into pieces of at most t_seq. Each piece is then used
    like a sample. Pieces without a target that counts are left out.

    split: a split made of samples.
    first: the position in the split of the first token of each piece, (pieces,).
    size: the number of tokens that each piece takes in a window, from 1 to t_seq, (pieces,).
    targets: the number of targets of each piece that count, at least 1, (pieces,).
    samples: number of samples that are used.
    divided: number of used samples that are longer than a window.
    """

    split: PackedTokens
    first: Positions
    size: Positions
    targets: Positions
    samples: int
    divided: int

    @classmethod
    def of(cls, split: PackedTokens, t_seq: int) -> SamplePieces:
        """Return the pieces of a split. Raises TinyNNValueError if the split is plain text."""
        if split.starts is None:
            raise TinyNNValueError("split must be made of samples, got a split of plain text")
        with memory_for("split", 100 * split.starts.size, f"the places of {split.starts.size} samples"):
            ends = np.append(split.starts[1:], len(split))
            # (samples,): number of tokens that each sample takes in a window
            sizes = np.maximum(ends - split.starts - 1, 0)
            pieces = -(-sizes // t_seq)
            sample = np.repeat(np.arange(sizes.size), pieces)  # (pieces,)
            before = (np.arange(sample.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * t_seq
            first, size = split.starts[sample] + before, np.minimum(sizes[sample] - before, t_seq)
            targets = _targets(split.counted, first, size)
            useful = targets > 0
            used = np.unique(sample[useful])
        return cls(split, first[useful], size[useful], targets[useful], int(used.size), int((pieces[used] > 1).sum()))

    def write(self, piece: int, ids: IntArray, targets: IntArray) -> None:
        """Write the tokens and the targets of a piece to arrays of at least `size` elements. The rest is unchanged."""
        first, size = int(self.first[piece]), int(self.size[piece])
        tokens = np.asarray(self.split.tokens[first : first + size + 1], dtype=np.int32)
        ids[:size], targets[:size] = tokens[:-1], tokens[1:]
        if self.split.counted is not None:
            targets[:size][self.split.counted[first + 1 : first + size + 1] == 0] = IGNORED

    def tokens_between(self, borders: Positions, pieces: Positions) -> Positions:
        """Return the number of tokens of these pieces between each border and the next border, as an int64 array.

        borders: positions in the split, (n,). The result has the shape (n - 1,).
        """
        counts = np.zeros(borders.size - 1, dtype=np.int64)
        np.add.at(counts, np.searchsorted(borders, self.first[pieces], side="right") - 1, self.size[pieces])
        return counts


def _targets(counted: npt.NDArray[np.uint8] | None, first: Positions, size: Positions) -> Positions:
    """Return the number of targets that count in each piece."""
    if counted is None or first.size == 0:
        return size
    edges = np.stack([first + 1, first + 1 + size], axis=1).reshape(-1)
    if edges[-1] == counted.size:
        edges = edges[:-1]
    return np.add.reduceat(counted, edges, dtype=np.int64)[::2]

"""AdamW on the slices of the weights that a process updates, with the same bits as AdamW in a training graph."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from toynn.model.weights import MOMENTS
from toynn.tinynn import tnn_slice_adamw, tnn_slice_squares
from toynn.training.optimizer import StepValues
from toynn.training.shard import F32, Shard
from toynn.training.shares import Piece

F64 = npt.NDArray[np.float64]


class ShardedAdamW(Shard):
    """The slices of the weights that one process updates by AdamW.

    decays: for each weight, whether weight decay applies to it.
    """

    ends = MOMENTS

    def __init__(self, pieces: list[Piece], bf16: bool, decays: Mapping[str, bool]) -> None:
        super().__init__(pieces, bf16)
        self._decays = decays

    def step(self, values: StepValues, factor: np.float32) -> None:
        row = values.hp.reshape(-1).astype(np.float32)
        without_decay = row.copy()
        without_decay[4] = 0.0
        for piece, place in self.places():
            hp = row if self._decays[piece.name] else without_decay
            m, v = (self.moment(end, place) for end in self.ends)
            tnn_slice_adamw(self.weights[place], m, v, self.gradient[place], hp, float(factor))
            if self.bf16:  # in f32, m and v are views of the stored moments
                for end, moment in zip(self.ends, (m, v), strict=True):
                    self.keep_moment(end, piece, place, moment, values.step)


def squares_of_piece(piece: Piece, size: int, gradient: F32) -> F64:
    """Return the sum of the squares of each of the 64 parts of a weight's gradient, 0 for parts outside of the piece.

    size: number of elements of the weight.
    """
    return tnn_slice_squares(gradient, size, *piece.parts)


def norm_and_factor(squares: F64, max_norm: float) -> tuple[float, np.float32]:
    """Return the norm of all gradients, and the factor that clips them to max_norm (0: no limit).

    squares: the sums of all parts, in the order of the weights.
    """
    norm = math.sqrt(float(np.add.accumulate(squares)[-1]))
    limit = float(np.float32(max_norm))
    factor = np.float32(limit / norm) if limit > 0 and norm > limit else np.float32(1.0)
    return float(np.float32(norm)), factor

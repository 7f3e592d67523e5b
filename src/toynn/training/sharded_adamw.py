"""AdamW on the slices of the weights of one process, with the bits of csrc/kernels/adamw.c and grad_norm.c."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from toynn.model.weights import MOMENTS
from toynn.training.optimizer import StepValues
from toynn.training.shard import F32, Shard
from toynn.training.shares import PARTS, Piece, part_limits

F64 = npt.NDArray[np.float64]

CHUNK = 1 << 14  # elements: the arrays of a chunk stay in the cache


class ShardedAdamW(Shard):
    """The slices of the weights that one process updates by AdamW.

    decays: for each weight, whether weight decay applies to it.
    """

    ends = MOMENTS

    def __init__(self, pieces: list[Piece], decays: Mapping[str, bool]) -> None:
        super().__init__(pieces)
        self._decays = decays
        self._scratch: tuple[F32, F32, F32] = (*(np.empty(CHUNK, dtype=np.float32) for _ in range(3)),)  # type: ignore[assignment]

    def step(self, gradient: F32, values: StepValues, factor: np.float32) -> None:
        row = values.hp.reshape(-1).astype(np.float32)
        for piece, place in self.places():
            hp = row.copy()
            if not self._decays[piece.name]:
                hp[4] = 0.0
            for at in range(place.start, place.stop, CHUNK):
                self._update(slice(at, min(at + CHUNK, place.stop)), gradient, hp, factor)

    def _update(self, at: slice, gradient: F32, hp: F32, factor: np.float32) -> None:
        """Update the elements of a chunk, with the operations of csrc/kernels/adamw.c in their order."""
        alpha, beta1, beta2, eps, decay, beta1h, beta2h = hp
        one = np.float32(1.0)
        w, m, v = self.weights[at], self.moments[".m"][at], self.moments[".v"][at]
        g, a, b = (scratch[: w.size] for scratch in self._scratch)
        np.multiply(gradient[at], factor, out=g)
        np.multiply(m, beta1, out=m)
        np.multiply(g, one - beta1, out=a)
        np.add(m, a, out=m)
        np.multiply(v, beta2, out=v)
        np.multiply(g, g, out=a)
        np.multiply(a, one - beta2, out=a)
        np.add(v, a, out=v)
        np.multiply(w, one - alpha * decay, out=w)
        np.multiply(m, beta1h, out=a)
        np.multiply(a, alpha, out=a)
        np.multiply(v, beta2h, out=b)
        np.sqrt(b, out=b)
        np.add(b, eps, out=b)
        np.divide(a, b, out=a)
        np.subtract(w, a, out=w)


def squares_of_piece(piece: Piece, size: int, gradient: F32) -> F64:
    """Return the sum of the squares of each of the 64 parts of a weight's gradient, 0 for parts outside of the piece.

    Four lanes are added along each part, as in csrc/kernels/grad_norm.c. size: number of elements of the weight.
    """
    squares = np.zeros(PARTS, dtype=np.float64)
    limits = part_limits(size)
    for part in range(*piece.parts):
        of_part = gradient[limits[part] - piece.begin : limits[part + 1] - piece.begin].astype(np.float64)
        np.multiply(of_part, of_part, out=of_part)
        whole = of_part.size // 4 * 4
        lanes = np.zeros(4, dtype=np.float64)
        if whole:
            lanes = np.add.accumulate(of_part[:whole].reshape(-1, 4), axis=0)[-1]
        for rest in of_part[whole:]:
            lanes[0] += rest
        squares[part] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
    return squares


def norm_and_factor(squares: F64, max_norm: float) -> tuple[float, np.float32]:
    """Return the norm of all gradients, and the factor that clips them to max_norm (0: no limit).

    squares: the sums of all parts, in the order of the weights.
    """
    norm = math.sqrt(float(np.add.accumulate(squares)[-1]))
    limit = float(np.float32(max_norm))
    factor = np.float32(limit / norm) if limit > 0 and norm > limit else np.float32(1.0)
    return float(np.float32(norm)), factor

"""Shard: the part of the weights that one process updates, with its moments.

No other process has these moments, so n processes together keep one copy of all moments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from toynn.training.optimizer import StepValues
from toynn.training.shares import Piece

F32 = npt.NDArray[np.float32]


class Shard(ABC):
    """The weights, gradient and moments of the pieces of one process, as flat arrays in the order of the pieces.

    ends: the ends of the names of the moments, which are the keys of `moments`.
    """

    ends: ClassVar[tuple[str, ...]]

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        size = sum(piece.size for piece in pieces)
        self.weights: F32 = np.zeros(size, dtype=np.float32)
        self.gradient: F32 = np.zeros(size, dtype=np.float32)
        self.moments: dict[str, F32] = {one: np.zeros(size, dtype=np.float32) for one in self.ends}

    def places(self) -> Iterator[tuple[Piece, slice]]:
        """Yield each piece with its place in the flat arrays."""
        at = 0
        for piece in self.pieces:
            yield piece, slice(at, at + piece.size)
            at += piece.size

    @abstractmethod
    def step(self, values: StepValues, factor: np.float32) -> None:
        """Update weights and moments. factor: the number by which the gradient is multiplied to clip it."""

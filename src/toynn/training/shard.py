"""Shard: the part of the weights that one process updates, with its moments.

No other process has these moments, so n processes together keep one copy of all moments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from toynn.errors import TinyNNValueError
from toynn.llm.optimizer import rounding_seed
from toynn.model.weights import MOMENTS
from toynn.tinynn import tnn_slice_round
from toynn.training.optimizer import StepValues
from toynn.training.shares import Piece

F32 = npt.NDArray[np.float32]
_WHOLE = slice(None)


class Shard(ABC):
    """The weights, gradient and moments of the pieces of one process, as flat arrays in the order of the pieces.

    ends: the suffixes of the names of the moments, for example (".m", ".v").
    bf16: the moments are stored in bfloat16.
    """

    ends: ClassVar[tuple[str, ...]]

    def __init__(self, pieces: list[Piece], bf16: bool) -> None:
        self.pieces, self.bf16 = pieces, bf16
        size = sum(piece.size for piece in pieces)
        self.weights: F32 = np.zeros(size, dtype=np.float32)
        self.gradient: F32 = np.zeros(size, dtype=np.float32)
        # numpy has no bfloat16, so uint16 holds the upper halves of float32 numbers
        dtype = np.uint16 if bf16 else np.float32
        self._moments: dict[str, npt.NDArray[Any]] = {one: np.zeros(size, dtype=dtype) for one in self.ends}

    def places(self) -> Iterator[tuple[Piece, slice]]:
        """Yield each piece with its place in the flat arrays."""
        at = 0
        for piece in self.pieces:
            yield piece, slice(at, at + piece.size)
            at += piece.size

    def moment(self, end: str, place: slice = _WHOLE) -> F32:
        """Return a moment, or a part of it, in float32: a view, or a copy if the moments are bfloat16.

        end: one of `ends`, for example ".m". place: the part, by default the whole moment.
        """
        stored = self._moments[end][place]
        return (stored.astype(np.uint32) << 16).view(np.float32) if self.bf16 else stored

    def set_moment(self, end: str, place: slice, values: F32) -> None:
        """Set a part of a moment. end, place: as for `moment`. values: bfloat16 numbers if the moments are bfloat16."""
        self._moments[end][place] = values.view(np.uint32) >> 16 if self.bf16 else values

    def keep_moment(self, end: str, piece: Piece, place: slice, values: F32, step: int | None) -> None:
        """Set the moment of a piece to the result of a step, float32, which is rounded if the moments are bfloat16.

        end, place: as for `moment`. step: the number of the step, for moments in bfloat16.
        """
        if self.bf16:
            if step is None:
                raise TinyNNValueError("step must be a number, because the moments are bfloat16, got None")
            tnn_slice_round(values, rounding_seed(piece.name), step, piece.begin, second=end == MOMENTS[1])
        self.set_moment(end, place, values)

    @abstractmethod
    def step(self, values: StepValues, factor: np.float32) -> None:
        """Update weights and moments. factor: the number by which the gradient is multiplied to clip it."""

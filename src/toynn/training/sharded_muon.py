"""Muon on the matrices that one process updates.

Each element of a step depends on the whole gradient of the matrix, so each matrix is updated by one process. The
kernels of csrc/kernels/muon.c compute the step, with the same bits as a single process.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from toynn.errors import TinyNNValueError
from toynn.llm.muon_step import MuonStep
from toynn.model.weights import MOMENTS
from toynn.training.optimizer import StepValues
from toynn.training.shard import Shard
from toynn.training.shares import Piece


class MuonSteps:
    """The graphs of Muon's steps, one for each shape of a matrix. n_threads: number of threads of a step."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._steps: dict[tuple[int, ...], MuonStep] = {}

    def of(self, shape: tuple[int, ...]) -> MuonStep:
        """Return the step for matrices of this shape.

        Raises TinyNNMemoryError if the graph of the step does not fit into memory.
        """
        if shape not in self._steps:
            rows, columns = shape
            self._steps[shape] = MuonStep(rows, columns, self._n_threads)
        return self._steps[shape]


class ShardedMuon(Shard):
    """The matrices that one process updates by Muon.

    shapes: rows and columns of each matrix.
    steps: the graphs of the steps, which several shards can share.
    """

    ends = MOMENTS[:1]

    def __init__(
        self, pieces: list[Piece], bf16: bool, shapes: Mapping[str, tuple[int, ...]], steps: MuonSteps
    ) -> None:
        super().__init__(pieces, bf16)
        self._step_of = {piece.name: steps.of(shapes[piece.name]) for piece in pieces}

    def step(self, values: StepValues, factor: np.float32) -> None:
        if values.muon_hp is None:
            raise TinyNNValueError("values.muon_hp must be an array, because Muon updates the matrices, got None")
        (end,) = self.ends
        for piece, place in self.places():
            given = (self.weights[place], self.gradient[place] * factor, self.moment(end, place))
            self.weights[place], momentum = self._step_of[piece.name].take(*given, values.muon_hp)
            self.keep_moment(end, piece, place, momentum, values.step)

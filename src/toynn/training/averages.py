"""Averages of the trained weights over the steps of a run (EMA). The averages are evaluated and saved as the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from toynn.arguments import FloatArray
from toynn.llm.engine import LlamaSeqEngine
from toynn.model.weights import UNAVERAGED
from toynn.storage.tensor_files import MadeTensors, Tensors


class AveragedWeights:
    """The exponential moving average of each trained weight, in f32 on the host.

    After step t, average += (1 - d) (weight - average), with d = min(decay, (1 + t) / (10 + t)). In the first steps d
    is small, so the averages soon depend very little on the initial weights.

    decay: the value of optimizer.ema. values: the averages by name, or None to start with the weights of the engine.
    """

    def __init__(self, engine: LlamaSeqEngine, decay: float, values: Mapping[str, FloatArray] | None = None) -> None:
        self._engine, self._decay = engine, decay
        self.shapes = {weight.name: weight.size for weight in engine.trained_weights()}
        given = engine.download_weight if values is None else values.__getitem__
        self._values = {name: np.array(given(name), dtype=np.float32) for name in self.shapes}

    def update(self, step: int) -> None:
        """Add the weights after a step, counted from 1, to the averages."""
        share = np.float32(1.0 - min(self._decay, (1 + step) / (10 + step)))
        for name, average in self._values.items():
            change = self._engine.download_weight(name)
            change -= average
            change *= share
            np.add(average, change, out=average)

    def weight(self, name: str) -> FloatArray:
        """Return the average of a trained weight, or the weight of the engine if it is frozen."""
        return self._values[name] if name in self._values else self._engine.download_weight(name)

    def unaveraged(self) -> Tensors:
        """Return the weights of the engine, copied when they are read. The weight X has the name "X.w" here."""
        shapes = {name + UNAVERAGED: size for name, size in self.shapes.items()}
        return MadeTensors(shapes, lambda name: self._engine.download_weight(name.removesuffix(UNAVERAGED)))

    @contextmanager
    def in_engine(self) -> Iterator[None]:
        """Put the averages into the engine for the block, and put the weights back after the block."""
        weights = {name: self._engine.download_weight(name) for name in self.shapes}
        try:
            for name, average in self._values.items():
                self._engine.upload_weight(name, average)
            yield
        finally:
            for name, values in weights.items():
                self._engine.upload_weight(name, values)

"""Take one optimizer step: read its batches, compute the training graph, and check that the results are finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toynn.arguments import FloatArray, IntArray
from toynn.data import WindowBatcher
from toynn.errors import TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.training.config import TrainConfig
from toynn.training.divergence import SQUARES, DivergedError, first_not_finite
from toynn.training.memory_need import build_graph
from toynn.training.optimizer import Optimizer


@dataclass(frozen=True)
class StepResult:
    """The result of a step. loss: mean over its targets, before the update. gradient_norm: before clipping."""

    loss: float
    learning_rate: float
    gradient_norm: float


class TrainingSteps:
    """Takes the steps of a run on a realized engine.

    interrupted: a function that is called between two batches of a step. If it returns true, the step is abandoned.
    """

    def __init__(
        self, engine: LlamaSeqEngine, windows: WindowBatcher, config: TrainConfig, interrupted: Callable[[], bool]
    ) -> None:
        self._engine, self._windows, self._config, self._train = engine, windows, config, config.train
        self._interrupted = interrupted
        self._optimizer = Optimizer(config)
        self._built = False

    def take(self, step: int) -> StepResult | None:
        """Take a step. Return None if it was interrupted between two batches; the weights are then unchanged.

        step: the number of the step, from 1. Raises DivergedError if the loss or the gradient norm is NaN or infinite;
        the weights are then unchanged too.
        """
        self.build_graph()
        values = self._optimizer.values(step)
        n = self._train.accumulate
        batches = [self._batch(step, i) for i in range(n)]
        divisor = self._divisor(step, [targets for _, targets in batches])
        losses = []
        norm: float | None = None
        for i, (ids, targets) in enumerate(batches):
            if i > 0 and self._interrupted():
                return None
            loss, norm = self._engine.train_step(
                ids,
                targets,
                values,
                accumulate=i > 0,
                update=i == n - 1,
                max_norm=self._optimizer.max_norm,
                gradient_scale=1.0 / n,
                loss_divisor=divisor,
            )
            if not math.isfinite(loss):
                raise self._divergence(step, f"loss is {loss}", values)
            losses.append(loss)
        if norm is None:
            raise AssertionError("bug in toynn: the training graph clips gradients, but has no gradient norm")
        if not math.isfinite(norm):
            raise self._divergence(step, f"gradients' norm is {norm}", values)
        loss = losses[0] if n == 1 else math.fsum(losses) / n
        return StepResult(loss, self._optimizer.learning_rate(step), norm)

    def graph_dropped(self) -> None:
        """Build the training graph again in the next step. Call this after the engine has built another graph."""
        self._built = False

    def build_graph(self) -> None:
        """Build the training graph, if the engine does not have it. Raises TinyNNMemoryError."""
        if not self._built:
            build_graph(self._engine, keep_gradients=self._train.accumulate > 1)
            self._built = True

    def _batch(self, step: int, i: int) -> tuple[IntArray, IntArray]:
        """Return the ids and targets of batch i of a step."""
        train = self._train
        return self._windows.batch(((step - 1) * train.accumulate + i) * train.batch, train.batch)

    def _divisor(self, step: int, targets: list[IntArray]) -> float:
        """Return the mean number of targets per batch, the divisor of the sum of the losses of each batch."""
        counted = sum(int(np.count_nonzero(one != IGNORED)) for one in targets)
        if counted == 0:
            raise TinyNNValueError(
                f"step {step} has no target that counts for the loss: all {sum(one.size for one in targets)} targets "
                "are ignored; use a larger train.batch or train.accumulate, or data with more counted tokens"
            )
        return counted / len(targets)

    def _divergence(self, step: int, what: str, values: FloatArray) -> DivergedError:
        """Find the first tensor that contains NaN or infinity, and return the error that names it."""
        self._built = False
        batches = [self._batch(step, i) for i in range(self._train.accumulate)]
        divisor = self._divisor(step, [targets for _, targets in batches])
        found = (first_not_finite(self._engine, ids, targets, values, divisor) for ids, targets in batches)
        tensor = next((name for name in found if name is not None), SQUARES)
        return DivergedError(step, what, tensor, self._config)

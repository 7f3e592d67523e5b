"""Take one optimizer step: read its batches, compute the training graph, and check that the results are finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toynn.data.windows import Batch, Windows
from toynn.errors import TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.llm.window_sums import step_loss
from toynn.storage.tensor_files import MadeTensors, Tensors
from toynn.training.config import TrainConfig
from toynn.training.divergence import SQUARES, DivergedError, first_not_finite
from toynn.training.events import PairFigures
from toynn.training.memory_need import build_graph
from toynn.training.optimizer import Optimizer, StepValues
from toynn.training.pairs_of_step import PairsOfStep


@dataclass(frozen=True)
class StepResult:
    """The result of a step. loss: mean over its targets or pairs, before the update. gradient_norm: before clipping.

    figures: means over the preference pairs of the step; None without pairs.
    """

    loss: float
    learning_rate: float
    gradient_norm: float
    figures: PairFigures | None = None


class StepsOnWindows:
    """The common part of a step in one process and of a step in several processes. Some methods are for windows; the
    classes for preference pairs override these methods.

    pairs: the reference of the preference pairs, or None if the run has none.
    """

    pairs: PairsOfStep | None = None

    def __init__(
        self, engine: LlamaSeqEngine, windows: Windows, config: TrainConfig, optimizer: Optimizer | None = None
    ) -> None:
        self._engine, self._windows, self._config = engine, windows, config
        self._optimizer = optimizer or Optimizer(config)
        self._built = False

    def graph_dropped(self) -> None:
        """Let the next step build the training graph again. Call this after the engine has built another graph."""
        self._built = False

    def use_schedule(self, config: TrainConfig) -> None:
        """Use the schedule and the number of steps of `config` from now on. All other keys must be as before."""
        self._config = config
        self._optimizer.use_schedule(config)

    # ---- what depends on the objective ----

    def _inputs(self, start: int) -> dict[str, Any]:  # noqa: ARG002
        """Return further arguments of the engine's step for the batch that begins with this window."""
        return {}

    def _losses(self) -> list[float]:
        """Return the losses of the last batch. Their sum over all batches, divided by the divisor, is a step's loss."""
        losses: list[float] = self._engine.window_losses().tolist()
        return losses

    def _figures(self) -> PairFigures | None:
        """Return the means over the preference pairs of the last step, or None without pairs."""
        return None


class TrainingSteps(StepsOnWindows):
    """Takes the steps of a run on a realized engine.

    interrupted: a function that is called between two batches of a step. If it returns true, the step is abandoned.
    optimizer: the hyperparameters of each step. Default: the hyperparameters of the configuration.
    """

    def __init__(
        self,
        engine: LlamaSeqEngine,
        windows: Windows,
        config: TrainConfig,
        interrupted: Callable[[], bool],
        optimizer: Optimizer | None = None,
    ) -> None:
        super().__init__(engine, windows, config, optimizer)
        self._train = config.train
        self._interrupted = interrupted
        self._read: tuple[int, Batch] | None = None
        # the graph is built for steps with this number of batches; at first, for steps like the last step
        self._batches = config.batches_of(config.train.steps)

    def take(self, step: int) -> StepResult | None:
        """Take a step. Return None if it was interrupted between two batches; the weights are then unchanged.

        step: the number of the step, from 1. Raises DivergedError if the loss or the gradient norm is NaN or infinite;
        the weights are then unchanged too.
        """
        n = self._config.batches_of(step)
        self._built, self._batches = self._built and n == self._batches, n
        self.build_graph(self._windows.length(self._start(step, 0)))
        values = self._optimizer.values(step)
        counted = self._divisor(step)
        if counted is None:
            return None
        window_losses: list[float] = []
        norm: float | None = None
        for i in range(n):
            if i > 0 and self._interrupted():
                return None
            batch = self._batch(step, i)
            loss, norm = self._engine.train_step(
                batch.ids,
                batch.targets,
                values.hp,
                accumulate=i > 0,
                update=i == n - 1,
                max_norm=self._optimizer.max_norm,
                loss_divisor=counted,
                muon_hp=values.muon_hp,
                step=values.step,
                starts=batch.starts,
                **self._inputs(self._start(step, i)),
            )
            if not math.isfinite(loss):
                raise self._divergence(step, f"loss is {loss}", values)
            window_losses += self._losses()
        if norm is None:
            raise AssertionError(
                "bug in toynn: the training graph clips gradients, but has no gradient norm; please report it"
            )
        if not math.isfinite(norm):
            raise self._divergence(step, f"gradients' norm is {norm}", values)
        loss = step_loss(window_losses, counted)
        return StepResult(loss, self._optimizer.learning_rate(step), norm, self._figures())

    def moments(self) -> Tensors:
        """Return all moments by name. The engine copies each moment when it is read."""
        sizes = {weight.name: weight.size for weight in self._engine.trained_weights()}
        names = self._engine.moment_names()
        shapes, bf16 = {name: sizes[name[:-2]] for name in names}, self._engine.bf16_moment_names()
        return MadeTensors(shapes, self._engine.download_weight, bf16)

    def build_graph(self, length: int | None = None) -> None:
        """Build the training graph, if the engine does not have it.

        Raises TinyNNMemoryError if the graph does not fit into memory.

        length: tokens of a sequence. Default: the length of the longest window. The memory of the longest graph is used
        again for all other graphs.
        """
        length = self._windows.longest if length is None else length
        if not self._built or self._engine.seq_t != length:
            self._engine.use_sequence_length(length)
            build_graph(self._engine, self._config, self._config.data.shares_windows, self._batches)
            self._built = True

    def _batch(self, step: int, i: int) -> Batch:
        """Return batch i of a step. The batch that was read last is cached."""
        start = self._start(step, i)
        if self._read is None or self._read[0] != start:
            self._read = (start, self._windows.read(start, self._train.batch))
        return self._read[1]

    def _start(self, step: int, i: int) -> int:
        """Return the number of the first window, or pair, of batch i of a step."""
        return self._config.windows_before(step - 1) + i * self._train.batch

    # ---- what depends on the objective ----

    def _divisor(self, step: int) -> int | None:
        """Return the number of targets of a step that are not ignored, or None if the step was interrupted.

        Raises TinyNNValueError if all targets are ignored.
        """
        counted, n = 0, self._config.batches_of(step)
        for i in range(n):
            if i > 0 and self._interrupted():
                return None
            targets = self._batch(step, i).targets
            counted += int(np.count_nonzero(targets != IGNORED))
        if counted == 0:
            raise TinyNNValueError(
                f"step {step} has no target that counts for the loss: all {targets.size * n} "
                "targets are ignored; use a larger train.batch or train.accumulate, or data with more counted tokens"
            )
        return counted

    def _divergence(self, step: int, what: str, values: StepValues) -> DivergedError:
        """Find the first tensor that contains NaN or infinity, and return the error that names it."""
        self._built = False
        # after an interruption the divisor is unknown; 1 also works, because a NaN stays NaN
        counted = self._divisor(step) or 1
        found = (
            first_not_finite(
                self._engine,
                self._batch(step, i),
                values,
                counted,
                self._config.preference,
                **self._inputs(self._start(step, i)),
            )
            for i in range(self._config.batches_of(step))
        )
        tensor = next((name for name in found if name is not None), SQUARES)
        return DivergedError(step, what, tensor, self._config)

"""Steps and evaluations on preference pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toynn.arguments import FloatArray
from toynn.data import PackedTokens
from toynn.data.pairs import PairBatcher
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.preference import Preference
from toynn.llm.window_sums import step_loss
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes
from toynn.training.config import TrainConfig
from toynn.training.evaluation import ValidationLoss
from toynn.training.events import PairFigures
from toynn.training.pairs_of_step import Array, PairsOfStep, figures_of_pairs
from toynn.training.parallel_step import ParallelSteps
from toynn.training.shares import WindowShare
from toynn.training.sources import borders_of
from toynn.training.step import StepResult, TrainingSteps


class PreferenceSteps(TrainingSteps):
    """Takes the steps of a run on preference pairs, as `TrainingSteps` does on windows."""

    pairs: PairsOfStep

    def __init__(
        self, engine: LlamaSeqEngine, pairs: PairBatcher, config: TrainConfig, interrupted: Callable[[], bool]
    ) -> None:
        super().__init__(engine, pairs, config, interrupted)
        self.pairs = PairsOfStep(pairs)

    def take(self, step: int) -> StepResult | None:
        self.pairs.begin()
        return super().take(step)

    def _divisor(self, step: int) -> int | None:  # noqa: ARG002
        return self._train.batch * self._train.accumulate

    def _inputs(self, start: int) -> dict[str, Any]:
        return self.pairs.inputs(start, self._train.batch)

    def _losses(self) -> list[float]:
        return self.pairs.losses(self._engine)

    def _figures(self) -> PairFigures:
        return self.pairs.figures(self._config.dpo.beta)


class ParallelPreferenceSteps(ParallelSteps):
    """Takes the steps of a run on preference pairs in several processes, as `ParallelSteps` does on windows."""

    pairs: PairsOfStep

    def __init__(
        self,
        engine: LlamaSeqEngine,
        pairs: PairBatcher,
        config: TrainConfig,
        processes: Processes,
        share: WindowShare,
        moments: Mapping[str, FloatArray],
    ) -> None:
        super().__init__(engine, pairs, config, processes, share, moments)
        self.pairs = PairsOfStep(pairs)

    def take(self, step: int) -> StepResult:
        self.pairs.begin()
        return super().take(step)

    def _divisor(self, step: int) -> int:  # noqa: ARG002
        return self._share.windows

    def _inputs(self, start: int) -> dict[str, Any]:
        return self.pairs.inputs(start, self._share.batch)

    def _losses(self) -> list[float]:
        return self.pairs.losses(self._engine)

    def _figures(self) -> PairFigures:
        return self.pairs.figures(self._config.dpo.beta, self._processes)


@dataclass(frozen=True)
class PairEvaluation:
    """The results for preference pairs.

    loss: the mean loss. figures: means of rewards and log-probabilities. losses: the loss of each pair.
    """

    loss: float
    figures: PairFigures
    losses: list[float]


def evaluate_pairs(
    engine: LlamaSeqEngine,
    pairs: PairBatcher,
    reference: Array,
    preference: Preference,
    n_pairs: int,
    processes: Processes | None = None,
) -> PairEvaluation:
    """Return the losses, rewards and log-probabilities of the first n_pairs pairs. The engine's graph is dropped.

    The results do not depend on the size of the batches.

    reference: the log-probabilities in the reference model, float64, at least (2 * n_pairs,).
    processes: the processes that divide the batches among themselves. All of them call this function. None: this
        process computes all batches.
    """
    n = engine.seq_b // 2

    def compute(first: int) -> tuple[list[float], Array]:
        numbers = np.arange(first, min(first + n, n_pairs))
        given = np.zeros(2 * n)
        given[: 2 * numbers.size] = reference[2 * first : 2 * (first + numbers.size)]
        engine.mean_loss(*pairs.cut(numbers, n), preference=preference, reference=given)
        return engine.pair_losses()[: numbers.size].tolist(), -engine.window_losses()[: 2 * numbers.size]

    found = in_turn(processes, range(0, n_pairs, n), compute)
    losses = [loss for of_batch, _ in found for loss in of_batch]
    log_probs = [of_batch for _, of_batch in found]
    figures = figures_of_pairs(np.concatenate(log_probs), reference[: 2 * n_pairs], preference.beta)
    return PairEvaluation(step_loss(losses, n_pairs), figures, losses)


class PairValidation:
    """The validation split of preference pairs, with the interface of `Validation`.

    pairs: evaluate only this many pairs; 0: all.
    tokens: number of predicted tokens that count.
    reference: the log-probabilities of the split in the reference model. The caller sets this attribute before the
        first evaluation.
    """

    reference: Array

    def __init__(self, tokens: PackedTokens, t_seq: int, preference: Preference, pairs: int) -> None:
        self._batcher, self._preference = PairBatcher(tokens, t_seq, None), preference
        self._n = min(self._batcher.pairs, pairs) if pairs > 0 else self._batcher.pairs
        borders = borders_of(tokens)
        self._sources = len(borders)
        self._source_of = np.searchsorted(borders, self._batcher.starts(self._n), side="right") if borders else None
        self.tokens = self._batcher.counted_tokens(self._n)

    def bits_per_byte(self, loss: float) -> float:  # noqa: ARG002
        """Return NaN, because the loss of a pair is not the loss of a text."""
        return math.nan

    def loss(self, engine: LlamaSeqEngine, processes: Processes | None = None) -> ValidationLoss:
        """Return the mean loss of all pairs and of the pairs of each source, and the means in `PairFigures`.

        processes: as for `evaluate_pairs`.
        """
        found = evaluate_pairs(engine, self._batcher, self.reference, self._preference, self._n, processes)
        losses = np.array(found.losses)
        parts = [losses[self._source_of == source].tolist() for source in range(self._sources)]
        of_sources = tuple(step_loss(one, len(one)) if one else None for one in parts)
        return ValidationLoss(found.loss, of_sources, found.figures)

"""Steps and evaluations on preference pairs, and their figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.data import PackedTokens
from toynn.data.pairs import PairBatcher
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.preference import Preference
from toynn.llm.window_sums import step_loss, tree_sum
from toynn.parallel.processes import Processes
from toynn.training.config import TrainConfig
from toynn.training.evaluation import ValidationLoss
from toynn.training.events import PairFigures
from toynn.training.reference import Array
from toynn.training.step import StepResult, TrainingSteps


def figures_of_pairs(log_probs: Array, reference: Array, beta: float) -> PairFigures:
    """Return the means over all pairs. log_probs, reference: float64 (2 n,), the chosen sequence of a pair first."""
    rewards = beta * (log_probs - reference)
    margins = rewards[::2] - rewards[1::2]
    right = (margins > 0).astype(np.float64)
    parts = (rewards[::2], rewards[1::2], margins, right, log_probs[::2], log_probs[1::2])
    return PairFigures(*(tree_sum(part.tolist()) / part.size for part in parts))


class PreferenceSteps(TrainingSteps):
    """Takes the steps of a run on preference pairs, as `TrainingSteps` does on windows.

    reference: the log-probabilities of the training split in the reference model. It is set before the first step.
    """

    reference: Array

    def __init__(
        self, engine: LlamaSeqEngine, pairs: PairBatcher, config: TrainConfig, interrupted: Callable[[], bool]
    ) -> None:
        super().__init__(engine, pairs, config, interrupted)
        self._pairs = pairs
        self._log_probs: list[Array] = []
        self._references: list[Array] = []

    def take(self, step: int) -> StepResult | None:
        self._log_probs, self._references = [], []
        return super().take(step)

    def _divisor(self, step: int) -> int | None:  # noqa: ARG002
        return self._train.batch * self._train.accumulate

    def _inputs(self, start: int) -> dict[str, Any]:
        numbers = self._pairs.numbers(start, self._train.batch)
        reference = self.reference.reshape(-1, 2)[numbers].ravel()
        self._references.append(reference)
        return {"reference": reference}

    def _losses(self) -> list[float]:
        self._log_probs.append(-self._engine.window_losses())
        losses: list[float] = self._engine.pair_losses().tolist()
        return losses

    def _figures(self) -> PairFigures:
        return figures_of_pairs(
            np.concatenate(self._log_probs), np.concatenate(self._references), self._config.dpo.beta
        )


@dataclass(frozen=True)
class PairEvaluation:
    """The mean loss of pairs, and their figures."""

    loss: float
    figures: PairFigures


def evaluate_pairs(
    engine: LlamaSeqEngine, pairs: PairBatcher, reference: Array, preference: Preference, n_pairs: int
) -> PairEvaluation:
    """Return the loss and the figures of the first n_pairs pairs, which do not depend on the size of the batches.

    The engine's graph is dropped.

    reference: the log-probabilities in the reference model, float64, at least (2 * n_pairs,).
    """
    n = engine.seq_b // 2
    losses: list[float] = []
    log_probs: list[npt.NDArray[np.float64]] = []
    for first in range(0, n_pairs, n):
        numbers = np.arange(first, min(first + n, n_pairs))
        given = np.zeros(2 * n)
        given[: 2 * numbers.size] = reference[2 * first : 2 * (first + numbers.size)]
        engine.mean_loss(*pairs.cut(numbers, n), preference=preference, reference=given)
        losses += engine.pair_losses()[: numbers.size].tolist()
        log_probs.append(-engine.window_losses()[: 2 * numbers.size])
    figures = figures_of_pairs(np.concatenate(log_probs), reference[: 2 * n_pairs], preference.beta)
    return PairEvaluation(step_loss(losses, n_pairs), figures)


class PairValidation:
    """The validation split of preference pairs, with the interface of `Validation`.

    pairs: evaluate only this many pairs; 0: all.
    tokens: number of predicted tokens that count.
    reference: the log-probabilities of the split in the reference model. It is set before the first evaluation.
    """

    reference: Array

    def __init__(self, tokens: PackedTokens, t_seq: int, preference: Preference, pairs: int) -> None:
        self._batcher, self._preference = PairBatcher(tokens, t_seq, None), preference
        self._n = min(self._batcher.pairs, pairs) if pairs > 0 else self._batcher.pairs
        self.tokens = self._batcher.counted_tokens(self._n)

    def bits_per_byte(self, loss: float) -> float:  # noqa: ARG002
        """Return NaN, because the loss of a pair is not that of a text."""
        return math.nan

    def loss(self, engine: LlamaSeqEngine, processes: Processes | None = None) -> ValidationLoss:  # noqa: ARG002
        """Return the mean loss of the pairs and their figures."""
        found = evaluate_pairs(engine, self._batcher, self.reference, self._preference, self._n)
        return ValidationLoss(found.loss, (), found.figures)

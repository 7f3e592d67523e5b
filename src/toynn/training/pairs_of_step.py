"""What a step on preference pairs needs and returns besides windows: log-probabilities of pairs, and rewards."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from toynn.data.pairs import PairBatcher
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.window_sums import tree_sum
from toynn.parallel.processes import Processes
from toynn.training.events import PairFigures

Array: TypeAlias = npt.NDArray[np.float64]


def figures_of_pairs(log_probs: Array, reference: Array, beta: float) -> PairFigures:
    """Return the means over n pairs.

    log_probs, reference: log-probabilities in the model and in the reference model, float64 (2 n,), the chosen sequence
        of a pair first. beta: the factor of the rewards.
    """
    rewards = beta * (log_probs - reference)
    margins = rewards[::2] - rewards[1::2]
    right = (margins > 0).astype(np.float64)
    parts = (rewards[::2], rewards[1::2], margins, right, log_probs[::2], log_probs[1::2])
    return PairFigures(*(tree_sum(part.tolist()) / part.size for part in parts))


class PairsOfStep:
    """The log-probabilities of the pairs that this process computes in a step, in the model and in the reference.

    reference: the log-probabilities of the training split in the reference model. The caller sets `reference` before
        the first step.
    """

    reference: Array

    def __init__(self, pairs: PairBatcher) -> None:
        self._pairs = pairs
        self._log_probs: list[Array] = []
        self._references: list[Array] = []

    def begin(self) -> None:
        """Forget the pairs of the last step."""
        self._log_probs, self._references = [], []

    def inputs(self, start: int, n: int) -> dict[str, Any]:
        """Return the argument `reference` of the engine's step, as a dict with this key.

        The batch has the pairs at the places start to start + n - 1 in the order of the epochs.
        """
        numbers = self._pairs.numbers(start, n)
        reference = self.reference.reshape(-1, 2)[numbers].ravel()
        self._references.append(reference)
        return {"reference": reference}

    def losses(self, engine: LlamaSeqEngine) -> list[float]:
        """Return the losses of the pairs of the batch that the engine has computed."""
        self._log_probs.append(-engine.window_losses())
        losses: list[float] = engine.pair_losses().tolist()
        return losses

    def figures(self, beta: float, processes: Processes | None = None) -> PairFigures:
        """Return the mean rewards and log-probabilities of the pairs of the step.

        processes: the processes that divide the pairs of the step; None: this process computes all pairs.
        """
        own = (np.concatenate(self._log_probs), np.concatenate(self._references))
        every = [own] if processes is None else processes.gathered(own)
        log_probs, references = (np.concatenate(parts) for parts in zip(*every, strict=True))
        return figures_of_pairs(log_probs, references, beta)

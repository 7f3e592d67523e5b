"""Compute the loss on the validation split, and keep the best evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from toynn.data import PackedTokens
from toynn.llm.adapters.model_on_base import AnyModel
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.storage.checkpoint import TrainingState


class ContinuePrompts(Protocol):
    """A function that returns the text with which a model continues each prompt."""

    def __call__(
        self, model: AnyModel, prompts: Sequence[str], max_tokens: int, temperature: float
    ) -> tuple[str, ...]: ...


class Validation:
    """The windows of the validation split, in order. The model sees one window at a time.

    Every token except the first is predicted and counted once. In data made of samples, only the tokens that count for
    the loss are counted. The last window and the last batch are padded with tokens that have no target.

    windows: evaluate only this many windows; 0: all. tokens: number of predicted tokens. bytes: size of their text,
    estimated from the mean number of bytes per token in the split.
    """

    def __init__(self, tokens: PackedTokens, t_seq: int, t_batch: int, windows: int) -> None:
        self._tokens, self._counted, self._t, self._b = tokens.tokens, tokens.counted, t_seq, t_batch
        n = max(len(tokens) - 1, 0)
        self._n = min(n, windows * t_seq) if windows > 0 else n
        self.tokens = self._n if self._counted is None else int(self._counted[1 : self._n + 1].sum(dtype=np.int64))
        split = tokens.meta.splits[tokens.split]
        self.bytes = split.bytes * self.tokens / max(split.tokens, 1)

    def bits_per_byte(self, loss: float) -> float:
        """Return the bits per byte of the text for a loss in nats per token; NaN if the size of the text is unknown."""
        return loss * self.tokens / math.log(2) / self.bytes if self.bytes else math.nan

    def loss(self, engine: LlamaSeqEngine) -> float:
        """Return the mean loss in nats per token. The result does not depend on the size of the batches.

        The mean of each window is rounded to float32, as the loss of a batch with one window is. The means times the
        numbers of tokens are added in the order of the windows, in float64.

        The engine frees its training graph, which must be built again before the next step.
        """
        t, b = self._t, self._b
        nats, total = 0.0, 0
        for start in range(0, self._n, t * b):
            n = min(t * b, self._n - start)
            part = np.asarray(self._tokens[start : start + n + 1], dtype=np.int32)
            ids = np.zeros(t * b, dtype=np.int32)
            targets = np.full(t * b, IGNORED, dtype=np.int32)
            ids[:n], targets[:n] = part[:-1], part[1:]
            if self._counted is not None:
                targets[:n][self._counted[start + 1 : start + n + 1] == 0] = IGNORED
            counts = np.count_nonzero(targets.reshape(b, t) != IGNORED, axis=1).tolist()
            if not any(counts):
                continue
            engine.mean_loss(ids, targets)
            for loss, counted in zip(engine.window_losses().tolist(), counts, strict=True):
                if counted > 0:
                    nats += float(np.float32(loss / counted)) * counted
                    total += counted
        return nats / total


@dataclass
class BestEvaluation:
    """The best evaluation of a run so far.

    loss, step: of the best evaluation, None before the first one. bad: number of evaluations after the best one.
    """

    loss: float | None = None
    step: int | None = None
    bad: int = 0

    @classmethod
    def of(cls, state: TrainingState | None) -> BestEvaluation:
        """Return the best evaluation of a resumed run. state: the state of its checkpoint, or None for a new run."""
        if state is None:
            return cls()
        progress = state.progress
        return cls(progress.best_loss, progress.best_step, progress.bad_evaluations)

    def update(self, step: int, loss: float, min_delta: float) -> bool:
        """Add an evaluation. Return whether its loss is lower than the best loss so far by more than min_delta."""
        best = self.loss is None or loss < self.loss - min_delta
        if best:
            self.loss, self.step, self.bad = loss, step, 0
        else:
            self.bad += 1
        return best

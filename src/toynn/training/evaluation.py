"""Compute the loss on the validation split, and keep the best evaluation."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from toynn.arguments import IntArray
from toynn.data import PackedTokens
from toynn.data.windows import document_starts
from toynn.llm.adapters.model_on_base import AnyModel
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes
from toynn.storage.checkpoint import TrainingState
from toynn.training.events import PairFigures
from toynn.training.sources import borders_of


class ContinuePrompts(Protocol):
    """A function that returns the text with which a model continues each prompt."""

    def __call__(
        self, model: AnyModel, prompts: Sequence[str], max_tokens: int, temperature: float
    ) -> tuple[str, ...]: ...


class ValidationLoss(NamedTuple):
    """The mean loss of the validation split, in nats per token.

    of_sources: the mean loss of each source, None for a source without tokens that count; () for data without several
    sources.
    """

    mean: float
    of_sources: tuple[float | None, ...]
    figures: PairFigures | None = None

    @property
    def perplexity(self) -> float:
        """The exponential of the loss of the next token; NaN for preference pairs."""
        if self.figures is not None:
            return math.nan
        return math.exp(self.mean) if self.mean < 700 else math.inf


class Validation:
    """The windows of the validation split, in order. The model sees one window at a time.

    Every token except the first is predicted and counted once. In data made of samples, only the tokens that count for
    the loss are counted. The last window and the last batch are padded with tokens that have no target.

    windows: evaluate only this many windows; 0: all.
    end_id: the token that ends each document, if a token sees only its own document; otherwise None.
    tokens: number of predicted tokens.
    bytes: size of their text, estimated from the mean number of bytes per token in the split.
    """

    def __init__(self, tokens: PackedTokens, t_seq: int, t_batch: int, windows: int, end_id: int | None = None) -> None:
        self._end_id = end_id
        self._tokens, self._counted, self._t, self._b = tokens.tokens, tokens.counted, t_seq, t_batch
        n = max(len(tokens) - 1, 0)
        self._n = min(n, windows * t_seq) if windows > 0 else n
        self._borders = borders_of(tokens)
        self.tokens = self._n if self._counted is None else int(self._counted[1 : self._n + 1].sum(dtype=np.int64))
        split = tokens.meta.splits[tokens.split]
        self.bytes = split.bytes * self.tokens / max(split.tokens, 1)

    def bits_per_byte(self, loss: float) -> float:
        """Return the bits per byte of the text for a loss in nats per token; NaN if the size of the text is unknown."""
        return loss * self.tokens / math.log(2) / self.bytes if self.bytes else math.nan

    def loss(self, engine: LlamaSeqEngine, processes: Processes | None = None) -> ValidationLoss:
        """Return the mean loss. The result does not depend on the size of the batches.

        processes: the processes that divide the windows among themselves. All of them call this method. None: this
            process computes all windows.

        The mean of each window is rounded to float32, as the loss of a batch with one window is. Each mean is
        multiplied by the number of tokens of its window, and the products are added in the order of the windows, in
        float64. A window with tokens of several sources is computed again for each of these sources, without the
        targets of the others.

        The engine frees its training graph, which must be built again before the next step.
        """
        t, b = self._t, self._b
        whole, of_sources = _Mean(), [_Mean() for _ in self._borders]
        starts = range(0, self._n, t * b)
        batches = [partial(self._batch, range(start, start + t * b, t)) for start in starts]
        for start, losses in zip(starts, self._computed(engine, batches, processes), strict=True):
            for i, (nats, n) in enumerate(losses):
                whole.add(nats, n)
                first, last = self._sources_of(start + i * t)
                if of_sources and n > 0 and first == last:
                    of_sources[first].add(nats, n)
        parts = [
            (source, start)
            for start in range(0, self._n, t)
            for first, last in [self._sources_of(start)]
            if first != last
            for source in range(first, last + 1)
        ]
        batches_of_parts = [parts[at : at + b] for at in range(0, len(parts), b)]
        batches = [partial(self._batch_of_sources, batch) for batch in batches_of_parts]
        for batch, losses in zip(batches_of_parts, self._computed(engine, batches, processes), strict=True):
            for (source, _), (nats, n) in zip(batch, losses, strict=False):
                of_sources[source].add(nats, n)
        return ValidationLoss(whole.mean(), tuple(one.mean() if one.n else None for one in of_sources))

    def _computed(
        self,
        engine: LlamaSeqEngine,
        batches: Sequence[Callable[[], tuple[IntArray, IntArray]]],
        processes: Processes | None,
    ) -> list[list[tuple[float, int]]]:
        """Return the losses of the windows of each batch. Each process computes a part of the batches."""
        return in_turn(processes, batches, lambda batch: self._window_losses(engine, *batch()))

    def _batch_of_sources(self, parts: Sequence[tuple[int, int]]) -> tuple[IntArray, IntArray]:
        """Return the ids and targets of windows (source, start), without the targets of other sources."""
        t = self._t
        ids, targets = self._batch([start for _, start in parts])
        for i, (source, start) in enumerate(parts):
            positions = np.arange(start + 1, start + 1 + t)
            others = np.searchsorted(self._borders, positions, side="right") != source
            targets[i * t : (i + 1) * t][others] = IGNORED
        return ids, targets

    def _batch(self, starts: Sequence[int]) -> tuple[IntArray, IntArray]:
        """Return the ids and targets of the windows that begin at these positions, int32 (t_batch * t_seq,)."""
        t = self._t
        ids, targets = np.zeros(self._b * t, dtype=np.int32), np.full(self._b * t, IGNORED, dtype=np.int32)
        for i, start in enumerate(starts):
            n = min(t, max(self._n - start, 0))
            row = slice(i * t, i * t + n)
            ids[row], targets[row] = self._tokens[start : start + n], self._tokens[start + 1 : start + n + 1]
            if self._counted is not None:
                targets[row][self._counted[start + 1 : start + n + 1] == 0] = IGNORED
        return ids, targets

    def _sources_of(self, start: int) -> tuple[int, int]:
        """Return the numbers of the first and the last source with targets in the window that begins at this position.
        (0, 0) if the data does not have several sources.
        """
        if not self._borders:
            return 0, 0
        last = min(start + self._t, self._n)
        return bisect_right(self._borders, start + 1), bisect_right(self._borders, last)

    def _window_losses(self, engine: LlamaSeqEngine, ids: IntArray, targets: IntArray) -> list[tuple[float, int]]:
        """Return for each window of a batch the sum of its losses, in nats, and the number of its targets."""
        losses, counts = np.zeros(self._b), np.count_nonzero(targets.reshape(self._b, -1) != IGNORED, axis=1).tolist()
        if any(counts):
            starts = None if self._end_id is None else document_starts(ids, self._t, self._end_id)
            engine.mean_loss(ids, targets, starts=starts)
            losses = engine.window_losses()
        return [
            (float(np.float32(loss / n)) * n if n else 0.0, n) for loss, n in zip(losses.tolist(), counts, strict=True)
        ]


@dataclass
class _Mean:
    """A mean loss. nats: the sum of the losses of n tokens."""

    nats: float = 0.0
    n: int = 0

    def add(self, nats: float, n: int) -> None:
        self.nats += nats
        self.n += n

    def mean(self) -> float:
        return self.nats / self.n


@dataclass
class BestEvaluation:
    """The best evaluation of a run so far.

    loss, step: of the best evaluation, None before the first one.
    bad: number of evaluations after the best one.
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

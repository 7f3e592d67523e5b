"""Compute the loss of validation samples that are packed into windows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toynn.data import PackedTokens
from toynn.data.sample_windows import SampleWindows
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes
from toynn.training.config import EvaluationArgs
from toynn.training.data_config import DataArgs, end_of_documents, packs_samples
from toynn.training.evaluation import Validation, ValidationLoss


class _BatchLosses(NamedTuple):
    """The losses of a batch of windows, in nats.

    windows: the sum of the losses of each window. targets: the number of targets of each window.
    sources: for data with several sources, the number of the source of each target, int64 (targets,); otherwise empty.
    tokens: the loss of each of these targets, float32, as long as `sources`.
    """

    windows: list[float]
    targets: list[int]
    sources: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.float32]


class PackedValidation(Validation):
    """The samples of the validation split, in the windows of the first epoch of `SampleWindows` with the seed 0.

    A token of a sample predicts the next token of the same sample. The last batch is padded with tokens without target.

    windows, tokens, bytes: as in `Validation`.
    """

    def __init__(self, split: PackedTokens, t_seq: int, t_batch: int, windows: int) -> None:
        super().__init__(split, t_seq, t_batch, windows)
        self._windows = SampleWindows(split, t_seq, 0)
        most = self._windows.windows_per_epoch
        self._number = min(most, windows) if windows > 0 else most
        all_tokens, self.tokens = self.tokens, self._windows.targets(windows)
        self.bytes *= self.tokens / max(all_tokens, 1)

    def loss(self, engine: LlamaSeqEngine, processes: Processes | None = None) -> ValidationLoss:
        """Return the mean loss. The result does not depend on the size of the batches.

        processes: the processes that divide the batches among themselves. All of them call this method. None: this
            process computes all batches.

        The mean of each window is computed and added up as `Validation.loss` does. The losses of the tokens of a source
        are added in float64, in the order of the windows.

        The engine frees its training graph, which must be built again before the next step.
        """
        engine.use_sequence_length(self._t)
        nats, total = 0.0, 0
        of_sources, counts = np.zeros(len(self._borders)), np.zeros(len(self._borders), dtype=np.int64)
        for batch in in_turn(processes, range(0, self._number, self._b), lambda first: self._losses(engine, first)):
            for loss, of_window in zip(batch.windows, batch.targets, strict=True):
                nats += float(np.float32(loss / of_window)) * of_window if of_window else 0.0
                total += of_window
            # adds the losses in the order of the windows
            np.add.at(of_sources, batch.sources, batch.tokens.astype(np.float64))
            np.add.at(counts, batch.sources, 1)
        means = tuple(float(one / n) if n else None for one, n in zip(of_sources, counts.tolist(), strict=True))
        return ValidationLoss(nats / total, means)

    def _losses(self, engine: LlamaSeqEngine, first: int) -> _BatchLosses:
        """Return the losses of a batch. first: the number of its first window."""
        t, b = self._t, self._b
        batch = self._windows.read(first, b)
        targets = batch.targets
        targets[(self._number - first) * t :] = IGNORED
        engine.mean_loss(batch.ids, targets, starts=batch.starts)
        in_windows = np.count_nonzero(targets.reshape(b, t) != IGNORED, axis=1).tolist()
        windows = engine.window_losses().tolist()
        if not self._borders:
            return _BatchLosses(windows, in_windows, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        source = np.searchsorted(self._borders, self._windows.positions(first, b), side="right")
        own = targets != IGNORED
        return _BatchLosses(windows, in_windows, source[own], engine.row_losses()[own])


def validation_of(split: PackedTokens, t_seq: int, t_batch: int, windows: int, args: DataArgs) -> Validation:
    """Return the validation of a run. Raises ConfigurationError as `end_of_documents` does."""
    if packs_samples(split, args):
        return PackedValidation(split, t_seq, t_batch, windows)
    return Validation(split, t_seq, t_batch, windows, end_of_documents(split, args))


def notes_on_validation(evaluated: int, tokens: int, settings: EvaluationArgs) -> tuple[str, ...]:
    """Return a note if the model cannot be evaluated, although there is validation text or evaluation.patience is set.

    evaluated: number of validation tokens that count for the loss. tokens: number of tokens of the validation split.
    """
    if evaluated > 0:
        return ()
    if tokens == 1:
        return ("the validation split has only 1 token, so the model is never evaluated; prepare more text",)
    if tokens > 0:
        n = settings.windows
        what, remedy = "the validation split", "prepare more samples"
        if n > 0:
            what = "the first validation window" if n == 1 else f"the first {n} validation windows"
            remedy = "increase evaluation.windows"
        return (f"no token of {what} counts for the loss, so the model is never evaluated; {remedy}",)
    if settings.patience > 0:
        return ("evaluation.patience has no effect, because the data has no validation split",)
    if settings.prompts:
        return ("evaluation.prompts has no effect, because the data has no validation split",)
    return ()

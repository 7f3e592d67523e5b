"""Compute the loss of validation samples that are packed into windows."""

from __future__ import annotations

import numpy as np

from toynn.data import PackedTokens
from toynn.data.sample_windows import SampleWindows
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.parallel.processes import Processes
from toynn.training.data_config import DataArgs, end_of_documents, packs_samples
from toynn.training.evaluation import Validation, ValidationLoss


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

    def loss(self, engine: LlamaSeqEngine, processes: Processes | None = None) -> ValidationLoss:  # noqa: ARG002
        """Return the mean loss. The result does not depend on the size of the batches.

        Each of several processes computes all windows.

        The mean of each window is computed and added up as `Validation.loss` does. The losses of the tokens of a source
        are added in float64, in the order of the windows.

        The engine frees its training graph, which must be built again before the next step.
        """
        t, b = self._t, self._b
        nats, total = 0.0, 0
        of_sources, counts = np.zeros(len(self._borders)), np.zeros(len(self._borders), dtype=np.int64)
        for first in range(0, self._number, b):
            batch = self._windows.read(first, b)
            targets = batch.targets
            targets[(self._number - first) * t :] = IGNORED
            engine.mean_loss(batch.ids, targets, starts=batch.starts)
            in_windows = np.count_nonzero(targets.reshape(b, t) != IGNORED, axis=1).tolist()
            for loss, n in zip(engine.window_losses().tolist(), in_windows, strict=True):
                nats += float(np.float32(loss / n)) * n if n else 0.0
                total += n
            if self._borders:
                source = np.searchsorted(self._borders, self._windows.positions(first, b), side="right")
                own = targets != IGNORED
                # adds the losses one after the other
                np.add.at(of_sources, source[own], engine.row_losses()[own].astype(np.float64))
                np.add.at(counts, source[own], 1)
        means = tuple(float(one / n) if n else None for one, n in zip(of_sources, counts.tolist(), strict=True))
        return ValidationLoss(nats / total, means)


def validation_of(split: PackedTokens, t_seq: int, t_batch: int, windows: int, args: DataArgs) -> Validation:
    """Return the validation of a run. Raises ConfigurationError as `end_of_documents` does."""
    if packs_samples(split, args):
        return PackedValidation(split, t_seq, t_batch, windows)
    return Validation(split, t_seq, t_batch, windows, end_of_documents(split, args))

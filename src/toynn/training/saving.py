"""Saver: write the checkpoints of a run, and remove old ones."""

from __future__ import annotations

import time
from collections.abc import Callable

from toynn.arguments import FloatArray
from toynn.data import DataFolder
from toynn.llm.adapters.model_on_base import AnyModel, ModelOnBase
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.llm.engine import LlamaSeqEngine
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weights_of
from toynn.storage.checkpoint import RunFolder, TrainingState
from toynn.storage.checkpoint.meta import OVER_BATCHES, OVER_WINDOWS, TrainingProgress
from toynn.storage.tensor_files import MadeTensors, Tensors, chained
from toynn.training.averages import AveragedWeights
from toynn.training.config import TrainConfig
from toynn.training.data_identity import data_identity
from toynn.training.divergence import DivergedError, name_not_finite
from toynn.training.evaluation import BestEvaluation
from toynn.training.events import Saved
from toynn.training.special_tokens import special_tokens
from toynn.training.start import Start
from toynn.training.toml_config import to_toml


class Saver:
    """Writes the checkpoints of a run, and removes the old checkpoints that the configuration does not keep.

    run: the folder of the run, or None in a process that does not write it.
    moments: a function that returns the moments by name. All processes of a job call this function at the same place,
        because each process has a part of the moments.
    averages: the averages of the weights, which are saved as the weights of the model; None: the weights are saved.
    """

    def __init__(
        self,
        run: RunFolder | None,
        engine: LlamaSeqEngine,
        start: Start,
        data: DataFolder,
        moments: Callable[[], Tensors],
        averages: AveragedWeights | None,
    ) -> None:
        self._run, self._engine, self._start, self._data, self._moments = run, engine, start, data, moments
        self._averages = averages
        self._config = start.config
        model = None if start.checkpoint is None else start.checkpoint.contents
        self._tokens = special_tokens(model, start.state is not None, data)
        self._saved_step = None if start.state is None else start.step
        self.reference: str | None = None  # the SHA-256 of the log-probabilities in the reference model
        spec = start.config.adapter.spec()
        saved = weights_of(start.shape) if spec is None else spec.weights(start.shape)
        self._sizes = {weight.name: weight.size for weight in saved}

    def save(self, step: int, evaluations: BestEvaluation, *, best: bool = False) -> Saved | None:
        """Write a checkpoint of a step, remove old checkpoints, and return the event `Saved`. Return None if the step
        has been saved already, or if another process writes the run.

        evaluations: the best evaluation so far, which the checkpoint stores.
        best: make this checkpoint the best one.

        Raises DivergedError if a weight is NaN or infinite.
        """
        if self._saved_step == step:
            return None
        began = time.perf_counter()
        moments = self._moments() if step > 0 else {}
        if step > 0 and self._averages is not None:
            moments = chained(moments, self._averages.unaveraged())
        if self._run is None:
            self._saved_step = step
            return None
        state = TrainingState(self._progress(step, evaluations), moments)
        if self._start.base is None:
            weights = self._checked_weights(step)
            path = self._run.save(step, self._described(None), state, best=best, weights=weights)
        else:
            path = self._run.save(step, self.model(step), state, best=best)
        self._saved_step = step
        self._remove_old(self._run)
        size = sum(entry.stat().st_size for entry in path.iterdir())
        return Saved(step, path, size, time.perf_counter() - began)

    def use_schedule(self, config: TrainConfig) -> None:
        """Store this configuration in the next checkpoints. It has a new schedule and a new last step."""
        self._config = config

    def tidy(self, evaluations: BestEvaluation) -> None:
        """Correct `best` and remove old checkpoints, in case a killed process did not do this."""
        if self._run is None:
            return
        if self._config.checkpoint.keep_best:
            self._run.settle(evaluations.step)
        self._remove_old(self._run)

    def _remove_old(self, run: RunFolder) -> None:
        run.keep(self._config.checkpoint.keep_last, self._config.checkpoint.keep_best)

    def model(self, step: int) -> AnyModel:
        """Return the model after a step, with its tokenizer. Raises DivergedError if a weight is NaN or infinite."""
        weights = dict(self._checked_weights(step))
        shape, tokens, spec, base = self._start.shape, self._tokens, self._config.adapter.spec(), self._start.base
        if base is None or spec is None:
            return TrainedModel(
                shape, weights, tokens.tokenizer, tokens.eos_id, tokens.bos_id, tokens.other_eos_ids, tokens.foreign
            )
        return self._described(TrainedAdapter(spec, shape, weights, base.identity))

    def _described(self, adapter: TrainedAdapter | None) -> ModelOnBase:
        tokens = self._tokens
        return ModelOnBase(
            self._start.shape,
            adapter,
            tokens.tokenizer,
            tokens.eos_id,
            tokens.bos_id,
            tokens.other_eos_ids,
            tokens.foreign,
        )

    def _checked_weights(self, step: int) -> MadeTensors:
        """Return the weights of the model, or the matrices of the adapter, which the engine copies one at a time.

        Reading a weight raises DivergedError if a number in it is NaN or infinite.
        """
        names = self._engine.weights if self._start.base is None else self._engine.param_names()
        made = self._engine.download_weight if self._averages is None else self._averages.weight

        def checked(name: str) -> FloatArray:
            values = made(name)
            if step > 0 and (found := name_not_finite([(name, values)])) is not None:
                first = name_not_finite((one, made(one)) for one in names)
                raise DivergedError(step, "weights are not finite after it", first or found, self._config)
            return values

        return MadeTensors({name: self._sizes[name] for name in names}, checked)

    def _progress(self, step: int, evaluations: BestEvaluation) -> TrainingProgress:
        return TrainingProgress(
            windows=self._config.windows_before(step),  # for preference pairs, this is the number of pairs
            best_loss=evaluations.loss,
            best_step=evaluations.step,
            bad_evaluations=evaluations.bad,
            config=to_toml(self._config),
            data=data_identity(self._data.meta),
            separator=self._data.meta.separator,
            order_of_sums=OVER_WINDOWS
            if self._config.train.batch * self._config.batches_of(step) > 1
            else OVER_BATCHES,
            reference=self.reference,
        )

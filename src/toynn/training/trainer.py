"""The training loop. Configuration, data and start decide every bit it makes; where it stops and resumes does not."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from toynn.arguments import FloatArray, IntArray
from toynn.data import PackedTokens, WindowBatcher
from toynn.data.meta import TOKENIZER
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.llm.adamw import AdamW
from toynn.llm.engine import LlamaSeqEngine
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import moment_names
from toynn.storage.checkpoint import RunFolder, TrainingState
from toynn.storage.checkpoint.meta import TrainingProgress
from toynn.storage.checkpoint.run_folder import CONFIG, LOG
from toynn.storage.durable_files import replace_file, sha256_of
from toynn.storage.regular_files import naming_file, read_regular
from toynn.training.config import TrainArgs
from toynn.training.divergence import SQUARES, DivergedError, first_not_finite, name_not_finite, weight_not_finite
from toynn.training.evaluation import Validation
from toynn.training.events import Callback, Ended, Evaluated, Event, Saved, Started, Stepped, StopTraining
from toynn.training.interrupts import Interrupts
from toynn.training.run_log import RunLog
from toynn.training.schedule import learning_rate
from toynn.training.start import Start, data_identity, find_start, path_of
from toynn.training.toml_config import to_toml


def train(args: TrainArgs, callbacks: Sequence[Callback] = ()) -> Ended:
    """Trains a model as args say, in the fused layout, and returns how it ended.

    The run's folder gets run.toml, log.jsonl (see `toynn.training.run_log`) and checkpoints, one at step 0 among them.
    The first Ctrl-C or SIGTERM ends the training after the step, saved, or drops an accumulated step between two of its
    parts; a second raises KeyboardInterrupt at once. StopTraining from a callback ends it after the step, saved. Any
    other exception of a callback goes through, after a checkpoint was saved.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument or key, by name; data or a checkpoint that is damaged or does not
            fit.
        DivergedError: a loss or gradient that is not finite, with the tensor's name. The latest checkpoint is whole.
        SessionError: another process writes the run. TinyNNMemoryError, OSError.
    """
    if not isinstance(args, TrainArgs):
        raise TinyNNTypeError(f"args must be TrainArgs, got {type(args).__name__}")
    callbacks = checked_callbacks(callbacks)
    train_split = PackedTokens.open(args.data, "train")
    validation_split = PackedTokens.open(args.data, "validation")
    meta = train_split.meta
    if sha256_of(args.data / TOKENIZER) != meta.tokenizer_sha256:
        raise TinyNNValueError(f"{args.data / TOKENIZER} is damaged: its sha256 is not the one that meta.json records")
    tokenizer = read_regular(args.data / TOKENIZER)
    with Interrupts() as interrupts, RunFolder(args.out) as run, LlamaSeqEngine() as engine:
        start = find_start(args, run, meta, tokenizer)
        trainer = _Trainer(args, start, run, engine, train_split, validation_split, tokenizer, interrupts)
        trainer.realize()
        if args.resume_from is not None and start.state is not None:
            run.go_back(args.resume_from, start.state.progress.best_step)
        with RunLog(args.out / LOG) as log:
            return trainer.run((log, *callbacks))


def checked_callbacks(callbacks: object) -> tuple[Callback, ...]:
    if not isinstance(callbacks, Iterable):
        raise TinyNNTypeError(f"callbacks must be a sequence of functions, got {type(callbacks).__name__}")
    given = tuple(callbacks)
    for i, callback in enumerate(given):
        if not callable(callback):
            raise TinyNNTypeError(f"callbacks[{i}] must be a function of one event, got {type(callback).__name__}")
    return given


class _Trainer:
    """One call of `train`: what it holds, and its steps from start to end."""

    def __init__(
        self,
        args: TrainArgs,
        start: Start,
        run: RunFolder,
        engine: LlamaSeqEngine,
        train_split: PackedTokens,
        validation_split: PackedTokens,
        tokenizer: bytes,
        interrupts: Interrupts,
    ) -> None:
        self._args, self._start, self._run, self._engine = args, start, run, engine
        self._config = config = start.config
        self._meta, self._tokenizer = train_split.meta, tokenizer
        self._interrupts = interrupts
        self._t_seq = config.train.t_seq or start.shape.ctx
        if self._t_seq > start.shape.ctx:
            raise TinyNNValueError(f"train.t_seq must be at most model.ctx = {start.shape.ctx}, got {self._t_seq}")
        self._batch_tokens = self._t_seq * config.train.batch * config.train.accumulate
        self._windows = WindowBatcher(train_split.tokens, self._t_seq, config.train.seed)
        self._validation = Validation(validation_split, self._t_seq, config.train.batch, config.evaluation.windows)
        optimizer = config.optimizer
        self._adamw = AdamW(
            optimizer.lr, optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.weight_decay, bias_correct=True
        )
        self.step = start.step
        self._saved_step = None if start.state is None else start.step
        self._stopped = False
        self._failure: Exception | None = None
        self._last_loss: float | None = None
        progress = None if start.state is None else start.state.progress
        self._best_loss = None if progress is None else progress.best_loss
        self._best_step = None if progress is None else progress.best_step
        self._bad = 0 if progress is None else progress.bad_evaluations
        self._built = False
        self._callbacks: tuple[Callback, ...] = ()
        self._began = time.perf_counter()

    # ---- the run ----

    def run(self, callbacks: Sequence[Callback]) -> Ended:
        """The training, of a model that is realized."""
        self._callbacks = tuple(callbacks)
        with naming_file(self._args.out / CONFIG):
            replace_file(self._args.out / CONFIG, to_toml(self._config).encode("utf-8"))
        self._tell(self._started())
        if self._start.state is None:
            self._save(best=False)
        else:
            self._tidy()
        reason = self._loop()
        self._save(best=False)
        if self._failure is not None:
            raise self._failure
        latest = self._run.latest_path
        ended = Ended(
            self.step,
            reason,
            latest,
            self._last_loss,
            self._best_loss,
            self._best_step,
            time.perf_counter() - self._began,
        )
        self._tell(ended)
        if self._failure is not None:
            raise self._failure
        return ended

    def _loop(self) -> str:
        steps, evaluation, checkpoint = self._config.train.steps, self._config.evaluation, self._config.checkpoint
        while self.step < steps:
            if evaluation.patience and self._bad >= evaluation.patience:
                return "early stop"
            if self._stopped or self._failure is not None:
                return "stopped"
            if self._interrupts.asked:
                return "interrupted"
            if not self._take_step():
                return "interrupted"
            last = self.step == steps
            best = False
            if last or (evaluation.every and self.step % evaluation.every == 0):
                best = self._evaluate()
            if last or (checkpoint.every and self.step % checkpoint.every == 0) or (best and checkpoint.keep_best):
                self._save(best and checkpoint.keep_best)
        return "done"

    def _started(self) -> Started:
        engine, start = self._engine, self._start
        resumes = start.state is not None
        return Started(
            self._args.out,
            self._args.data,
            self.step,
            self._config.train.steps,
            sum(math.prod(tensor.ne) for tensor in engine.params().values()),
            self._batch_tokens,
            self._meta.splits["train"].tokens,
            self._meta.splits["validation"].tokens,
            path_of(start.checkpoint) if resumes else None,
            None if resumes else path_of(start.checkpoint),
            to_toml(self._config),
        )

    def _tell(self, event: Event) -> None:
        """Tells all callbacks. What one raises waits for the end of the step, so that the step is whole and saved."""
        for callback in self._callbacks:
            try:
                callback(event)
            except StopTraining:  # noqa: PERF203 (each callback is told)
                self._stopped = True
            except Exception as error:
                self._failure = self._failure or error

    # ---- the model ----

    def realize(self) -> None:
        """The model with its weights and moments. Nothing is on the disk yet: what fails here leaves no trace."""
        start, train = self._start, self._config.train
        if start.checkpoint is None:
            scale = self._config.model.init_scale if self._config.model is not None else 1.0
            self._engine.realize_for_random_init(
                start.shape,
                self._t_seq,
                train.batch,
                0,
                start.shape.untied,
                start.shape.qkv_bias,
                train.seed,
                scale,
                n_threads=self._args.n_threads,
                layout="fused",
            )
            return
        self._engine.realize_for_full_finetune(
            start.shape,
            start.checkpoint.model.weights,
            self._t_seq,
            train.batch,
            start.shape.untied,
            start.shape.qkv_bias,
            n_threads=self._args.n_threads,
        )
        if start.state is not None:
            for name, values in start.state.moments.items():
                self._engine.upload_weight(name, values)

    def _build(self) -> None:
        """The training graph, dropped by every evaluation."""
        if not self._built:
            keep = self._config.train.accumulate > 1
            self._engine.build_training_step(clip=True, decay_vectors=False, keep_gradients=keep)
            self._built = True

    # ---- one step ----

    def _take_step(self) -> bool:
        """False where an interrupt came between the parts of an accumulated step: then nothing moved."""
        began = time.perf_counter()
        self._build()
        step, train = self.step + 1, self._config.train
        lr = learning_rate(self._config.schedule, self._config.optimizer.lr, step, train.steps)
        self._adamw.lr = lr
        hp = self._adamw.hp(step)
        n = train.accumulate
        losses = []
        norm: float | None = None
        for i in range(n):
            if i > 0 and self._interrupts.asked:
                return False
            ids, targets = self._batch(i)
            loss, norm = self._engine.train_step(
                ids,
                targets,
                hp,
                accumulate=i > 0,
                update=i == n - 1,
                max_norm=self._config.optimizer.clip,
                gradient_scale=1.0 / n,
            )
            if not math.isfinite(loss):
                self._diverged(f"loss is {loss}", hp)
            losses.append(loss)
        if norm is None:
            raise AssertionError("a graph that clips has a norm")
        if not math.isfinite(norm):
            self._diverged(f"gradients' norm is {norm}", hp)
        self.step = step
        self._last_loss = loss = losses[0] if n == 1 else math.fsum(losses) / n
        seconds = time.perf_counter() - began
        self._tell(
            Stepped(step, loss, lr, norm, step * self._batch_tokens, seconds, self._batch_tokens / max(seconds, 1e-9))
        )
        return True

    def _batch(self, i: int) -> tuple[IntArray, IntArray]:
        """Ids and targets of the next step's batch i."""
        train = self._config.train
        return self._windows.batch((self.step * train.accumulate + i) * train.batch, train.batch)

    def _diverged(self, what: str, hp: FloatArray) -> None:
        """Raises DivergedError for the step under way, whose weights did not move."""
        self._built = False
        batches = (self._batch(i) for i in range(self._config.train.accumulate))
        found = (first_not_finite(self._engine, ids, targets, hp) for ids, targets in batches)
        tensor = next((name for name in found if name is not None), SQUARES)
        raise DivergedError(self.step + 1, what, tensor)

    def _evaluate(self) -> bool:
        """Evaluates where there is something to evaluate on; whether it is the best so far."""
        if self._validation.tokens == 0:
            return False
        began = time.perf_counter()
        self._built = False
        loss = self._validation.loss(self._engine)
        if not math.isfinite(loss):
            raise DivergedError(
                self.step, f"validation loss is {loss}", weight_not_finite(self._engine) or "an activation"
            )
        best = self._best_loss is None or loss < self._best_loss - self._config.evaluation.min_delta
        if best:
            self._best_loss, self._best_step, self._bad = loss, self.step, 0
        else:
            self._bad += 1
        bits = loss * self._validation.tokens / math.log(2) / self._validation.bytes
        self._tell(
            Evaluated(
                self.step,
                loss,
                math.exp(loss) if loss < 700 else math.inf,
                bits,
                self._validation.tokens,
                time.perf_counter() - began,
                best,
            )
        )
        return best

    # ---- saving ----

    def _tidy(self) -> None:
        """What a process that died did not come to, after its last checkpoint was written."""
        if self._config.checkpoint.keep_best:
            self._run.settle(self._best_step)
        self._run.keep(self._config.checkpoint.keep_last, self._config.checkpoint.keep_best)

    def _save(self, best: bool) -> None:
        """A checkpoint of this step, unless it is there already."""
        if self._saved_step == self.step:
            return
        began = time.perf_counter()
        engine, start = self._engine, self._start
        weights = {name: engine.download_weight(name) for name in engine.weights}
        if self.step > 0 and (name := name_not_finite(weights.items())) is not None:
            raise DivergedError(self.step, "weights are not finite after it", name)
        model = TrainedModel(
            start.shape,
            weights,
            self._tokenizer,
            eos_id=self._meta.eos_id,
            bos_id=self._meta.bos_id,
        )
        moments = {name: engine.download_weight(name) for name in moment_names(model.shape)} if self.step > 0 else {}
        progress = TrainingProgress(
            self.step * self._config.train.batch * self._config.train.accumulate,
            self._best_loss,
            self._best_step,
            self._bad,
            to_toml(self._config),
            data_identity(self._meta),
        )
        path = self._run.save(self.step, model, TrainingState(progress, moments), best=best)
        self._saved_step = self.step
        self._run.keep(self._config.checkpoint.keep_last, self._config.checkpoint.keep_best)
        size = sum(entry.stat().st_size for entry in path.iterdir())
        self._tell(Saved(self.step, path, size, time.perf_counter() - began))

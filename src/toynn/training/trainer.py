"""The training loop of a run. It uses these modules:

    start.py        the start of the run: random weights, another model, or a checkpoint of the run
    start_model.py  the model of the start, in an engine
    objective.py    which steps and evaluations a run has
    step.py         one optimizer step
    optimizer.py    the optimizer settings of a step
    evaluation.py   the validation loss
    preference.py   steps and evaluations on preference pairs
    reference.py    log-probabilities of preference pairs in the reference model
    saving.py       the checkpoints
    time_budget.py  the last step of a run with train.seconds

Configuration, data and start determine every bit of the result, also if the run is stopped and resumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial

from toynn.data import DataFolder
from toynn.errors import ConfigurationError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.parallel.processes import Processes, processes_of_job
from toynn.storage.checkpoint import RunFolder, RunReader
from toynn.storage.checkpoint.names import CONFIG, LOG
from toynn.storage.durable_files import replace_file
from toynn.storage.regular_files import naming_file
from toynn.training.callbacks import Callbacks, checked_callbacks
from toynn.training.data_config import filled_share, notes_on_windows, windows_of
from toynn.training.divergence import DivergedError, weight_not_finite
from toynn.training.evaluation import BestEvaluation, ContinuePrompts
from toynn.training.events import Callback, Ended, Evaluated, Rescheduled, Started, Stepped
from toynn.training.interrupts import Interrupts
from toynn.training.logged_figures import fields_of
from toynn.training.memory_need import naming_the_batch
from toynn.training.objective import steps_and_validation
from toynn.training.packed_validation import notes_on_validation
from toynn.training.parallel_start import check_start, check_weights
from toynn.training.preference import PairValidation
from toynn.training.reference import reference_of
from toynn.training.run_log import RunLog
from toynn.training.saving import Saver
from toynn.training.shares import WindowShare, share_of
from toynn.training.sources import SourcesRead
from toynn.training.start import Start, find_start
from toynn.training.start_model import averages_of, declare_model, realize
from toynn.training.time_budget import TimeBudget, budget_of, now
from toynn.training.toml_config import to_toml
from toynn.training.train_args import TrainArgs


def train(
    args: TrainArgs, callbacks: Sequence[Callback] = (), continue_prompts: ContinuePrompts | None = None
) -> Ended:
    """Train a model in the fused layout and return the last event of the run.

    The run writes run.toml, log.jsonl (see `toynn.training.run_log`) and checkpoints into its folder. The first
    checkpoint is for step 0. After the first Ctrl-C or SIGTERM, the run saves the current step and ends. A step with
    several batches (train.accumulate) is abandoned between two of them. A second signal raises KeyboardInterrupt at
    once. If a callback raises StopTraining, the run saves the step and ends. If it raises another exception, the run
    saves the step and raises this exception.

    continue_prompts: returns the texts of the model for evaluation.prompts. `toynn.train` passes a function that
    generates them. Without this function, a configuration with prompts is refused.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument is wrong (the message names it); data or a model does not fit.
        ConfigurationError: a key of the configuration is wrong; the message names the key.
        FileFormatError: data or a checkpoint is damaged or has a newer version.
        RunFolderError: another process is writing the run.
        DivergedError: a loss, gradient or weight is NaN or infinite; the message names the tensor. The latest
            checkpoint is complete.
        TinyNNMemoryError: the model or a step does not fit into memory. OSError: a file cannot be read or written.
    """
    if not isinstance(args, TrainArgs):
        raise TinyNNTypeError(f"args must be TrainArgs, got {type(args).__name__}")
    callbacks = checked_callbacks(callbacks)
    processes = processes_of_job()
    if processes is None:
        return _train(args, callbacks, continue_prompts, None)
    with processes.ending_together():
        return _train(args, callbacks, continue_prompts, processes)


def _train(
    args: TrainArgs,
    callbacks: Sequence[Callback],
    continue_prompts: ContinuePrompts | None,
    processes: Processes | None,
) -> Ended:
    began = now()
    writes, together = processes is None or processes.writes, nullcontext if processes is None else processes.together
    with ExitStack() as stack:
        interrupts, engine = stack.enter_context(Interrupts()), stack.enter_context(LlamaSeqEngine())
        with together():
            data = DataFolder.open(args.data)
            run = stack.enter_context(RunFolder(args.out)) if writes else None
        with together():
            start = find_start(args, run or RunReader(args.out), data)
            budget = budget_of(args, start, began, processes)
        # No file has been written yet. If the model or a step does not fit into memory, the run leaves no files behind.
        if processes is not None:
            args = replace(args, n_threads=check_start(processes, start, data, args.n_threads))
        with together():
            trainer = _Trainer(args, start, run, engine, data, interrupts, continue_prompts, processes)
            start = start.without_tensors()
            trainer.check_prompts()
        if processes is not None:
            check_weights(processes, engine)
        if run is not None and args.resume_from is not None and start.state is not None:
            run.go_back(args.resume_from, start.state.progress.best_step)
        if not writes:
            return trainer.run(None, (), budget)
        with RunLog(args.out / LOG) as log:
            return trainer.run(log, callbacks, budget)


class _Trainer:
    """The training loop of one run."""

    def __init__(
        self,
        args: TrainArgs,
        start: Start,
        run: RunFolder | None,
        engine: LlamaSeqEngine,
        data: DataFolder,
        interrupts: Interrupts,
        continue_prompts: ContinuePrompts | None,
        processes: Processes | None,
    ) -> None:
        """Realize the model and, if steps follow, its training graph. Raises TinyNNMemoryError if memory runs out."""
        self._processes = processes
        self._args, self._start, self._run, self._engine, self._data = args, start, run, engine, data
        self._config = config = start.config
        share = WindowShare(0, 0, config.train.batch, config.train.accumulate)
        if processes is not None:
            share = share_of(config.train, processes.rank, processes.n)
        per_step = config.windows_of_step
        self._windows = windows = windows_of(data.train, start.t_seq, config.train.seed, config.data, per_step)
        self._realize(share)
        self._interrupts, self._continue_prompts = interrupts, continue_prompts
        self._sources = SourcesRead(data.train, windows)
        self._epochs_per_step = per_step / windows.windows_per_epoch  # in steps like the first one
        self._steps, self._validation = steps_and_validation(
            start, data, engine, windows, share, lambda: interrupts.asked, processes
        )
        self._averages = averages_of(engine, start)
        self._saver = Saver(run, engine, start.without_tensors(), data, self._steps.moments, self._averages)
        self._step = start.step
        self._last_loss: float | None = None
        self._best = BestEvaluation.of(start.state)
        self._sync_log: Callable[[], None] = lambda: None
        self._callbacks = Callbacks(())
        self._began = time.perf_counter()
        self._budget: TimeBudget | None = None

        with self._naming_the_batch(share):
            if self._step < config.last_step:
                self._steps.build_graph()
        self._start = start.without_tensors()  # the engine has copied the weights and moments

    def _realize(self, share: WindowShare) -> None:
        updates = self._processes is None
        with self._naming_the_batch(share, (TinyNNMemoryError, ConfigurationError)):
            realize(self._engine, self._start, self._args.n_threads, share.batch, updates)

    def _naming_the_batch(
        self, share: WindowShare, refused: tuple[type[Exception], ...] = (TinyNNMemoryError, TinyNNValueError)
    ) -> AbstractContextManager[None]:
        declare = partial(declare_model, self._start, 1, updates=self._processes is None)
        train = replace(self._config.train, batch=share.batch, accumulate=share.batches)
        config = replace(self._config, train=train)
        return naming_the_batch(self._engine, declare, self._windows.longest, config, refused)

    def check_prompts(self) -> None:
        """Let the model read the texts of evaluation.prompts, so that a wrong text fails before the first step."""
        try:
            self._samples(max_tokens=0)
        except ConfigurationError:
            raise
        except TinyNNValueError as error:
            raise ConfigurationError(f"evaluation.prompts cannot be used: {error}") from None

    def _samples(self, max_tokens: int) -> tuple[str, ...]:
        """Return the texts with which the model continues evaluation.prompts."""
        evaluation = self._config.evaluation
        if not evaluation.prompts or not self._writes:
            return ()
        if self._data.tokenizer is None:
            raise ConfigurationError(
                "evaluation.prompts needs data with a tokenizer, but this data has only token ids; leave out "
                "evaluation.prompts"
            )
        if self._continue_prompts is None:
            raise ConfigurationError("evaluation.prompts needs a function that generates texts; use toynn.train")
        return self._continue_prompts(
            self._saver.model(self._step), evaluation.prompts, max_tokens, evaluation.sample_temperature
        )

    @property
    def _writes(self) -> bool:
        """True if this process writes the run: it is the only process, or process 0 of several."""
        return self._processes is None or self._processes.writes

    def run(self, log: RunLog | None, callbacks: Sequence[Callback], budget: TimeBudget | None) -> Ended:
        """Train the realized model to the end of the run, and return the last event.

        log: the log of the run, or None in a process that does not write it. budget: the time of the run, or None.
        """
        self._budget = budget
        if log is not None:
            views = callbacks if budget is None else (budget, *callbacks)
            self._sync_log, self._callbacks = log.sync, Callbacks((log, *views))
            self._write_config()
        self._callbacks.send(self._started())
        self._load_reference()
        if self._start.state is None:
            self._save()
        else:
            self._saver.tidy(self._best)
        reason = self._loop()
        self._save()
        self._callbacks.raise_failure()
        if self._processes is not None:
            self._processes.from_writer(None)  # waits until process 0 has saved the last step
        ended = self._ended(reason)
        self._callbacks.send(ended)
        self._callbacks.raise_failure()
        return ended

    def _write_config(self) -> None:
        with naming_file(self._args.out / CONFIG):
            replace_file(self._args.out / CONFIG, to_toml(self._config).encode("utf-8"))

    def _load_reference(self) -> None:
        """Load the log-probabilities of preference pairs in the reference model, or compute and store them."""
        if self._steps.pairs is None or not isinstance(self._validation, PairValidation):
            return
        asked, processes, report = lambda: self._interrupts.asked, self._processes, self._callbacks.send
        found = reference_of(self._args.out, self._start, self._data, self._engine, asked, report, processes)
        self._steps.pairs.reference, self._validation.reference = found.train, found.validation
        self._saver.reference = found.sha256
        self._steps.graph_dropped()

    def _loop(self) -> str:
        """Take steps, evaluate and save until the run ends. Return the reason for its end, as in `Ended`."""
        evaluation, checkpoint = self._config.evaluation, self._config.checkpoint
        while self._step < self._config.last_step:
            if evaluation.patience and self._best.bad >= evaluation.patience:
                return "early stop"
            stopped, interrupted = self._requests()
            if stopped:
                return "stopped"
            if interrupted or not self._take_step():
                return "interrupted"
            self._keep_time()
            last = self._step == self._config.last_step
            best = _is_due(self._step, evaluation.every, last) and self._evaluate() and checkpoint.keep_best
            if best or _is_due(self._step, checkpoint.every, last):
                self._save(best=best)
        return "done"

    def _requests(self) -> tuple[bool, bool]:
        """Return whether a callback has ended the run, and whether a signal has asked for its end, in any process."""
        own = (self._callbacks.stopped or self._callbacks.failure is not None, self._interrupts.asked)
        every = [own] if self._processes is None else self._processes.gathered(own)
        return any(stopped for stopped, _ in every), any(asked for _, asked in every)

    def _take_step(self) -> bool:
        """Take the next step. Return False if it was interrupted; the weights are then unchanged."""
        began = time.perf_counter()
        result = self._steps.take(self._step + 1)
        if result is None:
            return False
        self._step += 1
        if self._averages is not None:
            self._averages.update(self._step)
        self._last_loss = result.loss
        seconds = time.perf_counter() - began
        before, tokens = (self._windows.tokens_before(self._config.windows_before(self._step + n)) for n in (-1, 0))
        self._callbacks.send(
            Stepped(
                step=self._step,
                loss=result.loss,
                learning_rate=result.learning_rate,
                gradient_norm=result.gradient_norm,
                tokens=tokens,
                seconds=seconds,
                tokens_per_second=(tokens - before) / max(seconds, 1e-9),
                epoch=self._epochs(self._step),
                **fields_of(result.figures),
            )
        )
        return True

    def _keep_time(self) -> None:
        """With train.seconds, decide at which step the run ends, or move this step."""
        decided = None if self._budget is None else self._budget.decide(self._step, self._config)
        if self._budget is None or decided is None:
            return
        self._config = decided
        self._steps.use_schedule(decided)
        self._saver.use_schedule(decided)
        self._write_config()
        falls = decided.schedule.falls
        self._callbacks.send(Rescheduled(self._step, decided.train.steps, falls, self._budget.used))

    def _epochs(self, steps: int) -> float:
        """Return the number of passes over the training tokens after `steps` steps."""
        return self._config.windows_before(steps) / self._config.windows_of_step * self._epochs_per_step

    def _evaluate(self) -> bool:
        """Evaluate the model. Return whether this is the best evaluation so far, or False without validation tokens."""
        if self._validation.tokens == 0:
            return False
        began = time.perf_counter()
        with nullcontext() if self._averages is None else self._averages.in_engine():
            found = self._validation.loss(self._engine, self._processes)
        loss = found.mean
        self._steps.graph_dropped()
        if not math.isfinite(loss):
            tensor = weight_not_finite(self._engine) or "an activation"
            error = DivergedError(self._step, f"validation loss is {loss}", tensor, self._config)
            raise error if self._processes is None else self._processes.shared(error)
        seconds = time.perf_counter() - began
        best = self._best.update(self._step, loss, self._config.evaluation.min_delta)
        self._callbacks.send(
            Evaluated(
                step=self._step,
                loss=loss,
                perplexity=found.perplexity,
                bits_per_byte=self._validation.bits_per_byte(loss),
                tokens=self._validation.tokens,
                seconds=seconds,
                best=best,
                prompts=self._config.evaluation.prompts,
                samples=self._samples(self._config.evaluation.sample_tokens),
                sources=self._sources.names,
                source_losses=found.of_sources,
                source_tokens=self._sources.tokens(self._config.windows_before(self._step)),
                **fields_of(found.figures),
            )
        )
        return best

    def _save(self, *, best: bool = False) -> None:
        """Write a checkpoint of the current step, unless the step has a checkpoint already."""
        self._sync_log()  # a resumed run does not repeat the steps before the checkpoint, so their events must be kept
        saved = self._saver.save(self._step, self._best, best=best)
        if saved is not None:
            self._callbacks.send(saved)

    def _started(self) -> Started:
        start, splits = self._start, self._data.meta.splits
        checkpoint = None if start.checkpoint is None else start.checkpoint.path
        return Started(
            run=self._args.out,
            data=self._args.data,
            step=self._step,
            steps=self._config.train.steps,
            parameters=sum(math.prod(tensor.ne) for tensor in self._engine.params().values()),
            batch_tokens=self._windows.longest * self._config.windows_of_batch * self._config.train.accumulate,
            train_tokens=splits["train"].tokens,
            validation_tokens=splits["validation"].tokens,
            resumes=None if start.state is None else checkpoint,
            inits=checkpoint if start.state is None else None,
            config=to_toml(self._config),
            epochs=self._epochs(self._config.train.steps),
            notes=(
                *start.notes,
                *notes_on_windows(self._windows),
                *notes_on_validation(self._validation.tokens, splits["validation"].tokens, self._config.evaluation),
            ),
            windows_per_epoch=self._windows.windows_per_epoch,
            filled=filled_share(self._windows),
            seconds_used=0.0 if self._budget is None else self._budget.used,
        )

    def _ended(self, reason: str) -> Ended:
        return Ended(
            step=self._step,
            reason=reason,
            checkpoint=(self._run or RunReader(self._args.out)).latest_path,
            loss=self._last_loss,
            best_loss=self._best.loss,
            best_step=self._best.step,
            seconds=time.perf_counter() - self._began,
        )


def _is_due(step: int, every: int, last: bool) -> bool:
    """Return whether an action is due after this step. every: steps between two actions; 0: only at the end."""
    return last or (every > 0 and step % every == 0)

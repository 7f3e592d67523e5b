"""Train a model on prepared data."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias, cast, overload

from toynn.api.base_model import base_of, described_base, open_base
from toynn.api.load_model import load, read_model
from toynn.api.plain_progress import PlainProgress
from toynn.api.plan_training import timed_start
from toynn.api.text_model import TextModel
from toynn.api.train_settings import changes_of, checkpoint_to_resume, config_of, overrides_of
from toynn.arguments import boolean
from toynn.errors import TinyNNError, TinyNNTypeError
from toynn.extras import naming_the_extra
from toynn.llm.adapters.model_on_base import AnyModel
from toynn.llm.adapters.open_base import OpenBase
from toynn.parallel.launch import launched_rank
from toynn.storage.checkpoint import Checkpoint
from toynn.storage.regular_files import path_of

with naming_the_extra():
    from toynn.training import trainer
    from toynn.training.callbacks import checked_callbacks
    from toynn.training.config import TrainConfig
    from toynn.training.diagnosis import Diagnosis
    from toynn.training.evaluation import ContinuePrompts
    from toynn.training.events import Callback, Ended, Event, Started
    from toynn.training.train_args import TrainArgs

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class TrainingResult(Ended):
    """The result of `toynn.train`: the fields of `Ended`, the folder of the run, its notes, and advice.

    Functions that take the path of a run also take this object.

    notes: sentences about settings that were chosen or changed.
    advice: sentences about signs that the run trained badly; docs/diagnosis.md describes them.
    """

    run: Path
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def event(self) -> Ended:
        """The last event that the callbacks of the run received."""
        return Ended(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Ended)})

    def load(self, which: str = "latest", *, n_ctx: int | None = None, n_threads: int | None = None) -> TextModel:
        """Load the trained model; see `toynn.load`."""
        return load(self.run, which=which, n_ctx=n_ctx, n_threads=n_threads)

    def __fspath__(self) -> str:
        return str(self.run)

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        best = "" if self.best_loss is None else f", best validation loss {self.best_loss:.4f} at step {self.best_step}"
        return f"<toynn.TrainingResult {str(self.run)!r}: {self.reason} after step {self.step}{loss}{best}>"


@overload
def train(
    data: TrainArgs, callbacks: Sequence[Callback] = (), /, *, progress: bool | None = None
) -> TrainingResult: ...


@overload
def train(
    data: TrainArgs, /, *, callbacks: Sequence[Callback] = (), progress: bool | None = None
) -> TrainingResult: ...


@overload
def train(
    data: PathLike,
    out: PathLike,
    *,
    init: PathLike | TextModel | Checkpoint | None = None,
    base: PathLike | None = None,
    config: PathLike | TrainConfig | None = None,
    resume: bool = False,
    resume_from: str | None = None,
    n_threads: int | None = None,
    time: float | str | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: object,
) -> TrainingResult: ...


def train(
    data: object,
    out: object = None,
    *,
    init: object = None,
    base: PathLike | None = None,
    config: object = None,
    resume: bool = False,
    resume_from: str | None = None,
    n_threads: int | None = None,
    time: float | str | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: object,
) -> TrainingResult:
    """Train a model, write the run to the folder `out`, and return how it ended.

    The run contains checkpoints, the configuration (run.toml) and a log (log.jsonl). The same data, configuration and
    initial weights give a model with the same bytes, for any number of threads, also if training was interrupted and
    resumed. Ctrl-C ends training after the current step and saves a checkpoint; `resume=True` continues the run.

    Args:
        data: a data folder that `toynn.prepare` made, or a file of packed token ids with the header TOYC, of which the
            last 5 % are for validation.
        out: the folder of the run. It is created if it does not exist.
        init: the model to start from instead of random weights: a loaded model, or a path that `toynn.load` accepts.
            The data must have been prepared with the tokenizer of this model. If the model is a run with an adapter,
            this adapter is trained further.
        base: the path of a frozen model on which an adapter is trained (setting "adapter.rank"): a GGUF file, whose
            weights keep their types, a Hugging Face folder or a run. With resume, or if init is an adapter: the place
            of the base, if it was moved. Default: the base that the adapter was trained on.
        config: a `toynn.TrainConfig`, or the path of a TOML file. Default: the default of each setting.
        resume: continue the run in `out` with its configuration. Settings given in this call may change steps, epochs,
            evaluation.* and checkpoint.*. They may also change optimizer.* and schedule.*, but then the result differs
            from the result of a run without interruption; the run reports this as a note.
        resume_from: the checkpoint of the run to continue from, for example "step-00000070". Default: the latest.
        n_threads: number of threads. Default: the number of cores that this process may use.
        time: train by the plan of `toynn.plan`, and end within this time, in seconds or as a text like "20m". Settings
            in this call replace the settings of the plan. With resume: the time of the whole run.
        progress: show the progress on stderr: as a bar in a terminal, otherwise as a few lines. Default: true.
        callbacks: functions that are called with each event, see `toynn.training.events`. If a callback raises
            `toynn.training.StopTraining`, training ends after the current step and saves a checkpoint.
        settings: single settings, which override config: steps=300, lr=1e-3, d_model=64. A section takes a mapping:
            checkpoint={"every": 100}. A full key works as well: **{"checkpoint.every": 100}. A setting whose value is
            None has no effect. `toynn train --show-config` prints all settings with their meaning.

    `train(TrainArgs(...), callbacks)` takes all arguments except callbacks and progress as one object. The default of
    progress is then false.

    Raises:
        ConfigurationError: a setting is unknown or has a wrong value; the message names the setting.
        TinyNNValueError, TinyNNTypeError: an argument is wrong; data, init and configuration do not fit together.
        FileFormatError: the data or a model is damaged.
        DivergedError: the loss or a gradient is NaN or infinite. The latest checkpoint is complete.
        RunFolderError: another process is writing the run.
        TinyNNMemoryError: the model or a step does not fit into memory. OSError: a file cannot be read or written.
        KeyboardInterrupt: Ctrl-C was pressed a second time.
    """
    if isinstance(data, TrainArgs):
        given = {
            "init": init,
            "base": base,
            "config": config,
            "resume_from": resume_from,
            "n_threads": n_threads,
            "time": time,
            **settings,
        }
        wrong = [name for name, value in given.items() if value is not None] + (["resume"] if resume else [])
        if wrong:
            raise TinyNNTypeError(
                f"{wrong[0]} cannot be combined with a TrainArgs; set {wrong[0]} in the TrainArgs instead"
            )
        if out is not None and callbacks:
            raise TinyNNTypeError("callbacks are given twice, by position and by name; give the callbacks once")
        args, callbacks = data, callbacks if out is None else cast("Sequence[Callback]", out)
        if isinstance(args.init, Path):
            args = dataclasses.replace(args, init=read_model(args.init, name="init"))
        shown = False if progress is None else boolean("progress", progress)
        args = with_open_base(args)
    else:
        folder, run = path_of("data", data), path_of("out", out)
        shown = True if progress is None else boolean("progress", progress)
        resumed = run if boolean("resume", resume) else None
        if config is not None and not isinstance(config, TrainConfig):
            config = path_of("config", config)
        overrides = overrides_of(settings)
        start = initial_checkpoint(init)
        opened = None if base is None or resume or start is not None else open_base(base)
        shape_from = start if opened is None else described_base(opened)
        used = 0.0
        if time is None:
            wanted = config_of(config, overrides, init=shape_from, resumed=resumed, resume_from=resume_from)
        else:
            timed = timed_start(
                folder,
                time,
                config,
                overrides,
                n_threads,
                resumed=resumed,
                resume_from=resume_from,
                other_start=start is not None or base is not None,
            )
            wanted, used = timed.config, timed.seconds_used
        changes = changes_of(overrides) if resume else ()
        place = None if base is None else path_of("base", base)
        args = TrainArgs(folder, run, wanted, start, resume, n_threads, resume_from, changes, opened or place, used)
        args = with_open_base(args)
    with contextlib.ExitStack() as stack:
        view = [stack.enter_context(_progress_view())] if shown and launched_rank() == 0 else []
        notes: list[str] = []
        advice: list[str] = []
        if isinstance(args.base, OpenBase):
            stack.callback(args.base.close)
        collected = [_collector(notes), _adviser(advice)]
        ended = trainer.train(args, [*collected, *view, *checked_callbacks(callbacks)], _continue_prompts(args))
    values = {field.name: getattr(ended, field.name) for field in dataclasses.fields(ended)}
    return TrainingResult(**values, run=args.out, notes=tuple(notes), advice=tuple(advice))


def _continue_prompts(args: TrainArgs) -> ContinuePrompts:
    """Return a function that lets the model of a run continue prompts."""

    base = args.base if isinstance(args.base, OpenBase) else None

    def texts(model: AnyModel, prompts: Sequence[str], max_tokens: int, temperature: float) -> tuple[str, ...]:
        source = Checkpoint(args.out, 0, model, None, {})
        # the run closes the base later, so this model must not close it
        shared = None if base is None else dataclasses.replace(base, on_close=lambda: None)
        with TextModel(source, base=shared, n_threads=args.n_threads) as opened:
            return tuple(opened.generate(one, max_tokens=max_tokens, temperature=temperature) for one in prompts)

    return texts


def with_open_base(args: TrainArgs) -> TrainArgs:
    """Return the arguments with an open base instead of its path.

    A run that continues an adapter gets the base of the adapter.

    Raises the errors of `open_base` and `base_of`.
    """
    if isinstance(args.base, OpenBase):
        return args
    if not args.resume and isinstance(args.init, Checkpoint):
        return dataclasses.replace(args, base=base_of(args.init, args.base))
    if not args.resume:
        return args if args.base is None else dataclasses.replace(args, base=open_base(args.base))
    try:
        held = checkpoint_to_resume(args.out, args.resume_from)
    except (TinyNNError, OSError):
        return args  # the run reports this error when it starts
    return dataclasses.replace(args, base=base_of(held, args.base))


def _collector(notes: list[str]) -> Callback:
    """Return a callback that adds the notes of a run to a list."""

    def collect(event: Event) -> None:
        if isinstance(event, Started):
            notes.extend(event.notes)

    return collect


def _adviser(advice: list[str]) -> Callback:
    """Return a callback that adds the advice for a run to a list."""
    diagnosis = Diagnosis()

    def collect(event: Event) -> None:
        advice.extend(str(one) for one in diagnosis.read(event))

    return collect


def initial_checkpoint(init: object) -> Checkpoint | None:
    """Return the model that training starts from, or None. init: as for `train`."""
    if init is None or isinstance(init, Checkpoint):
        return init
    if isinstance(init, TextModel):
        return Checkpoint(init.path, init.step, init.trained_model(), None, {})
    return read_model(path_of("init", init), name="init")


def _progress_view() -> AbstractContextManager[Callback]:
    """Return a progress bar if stderr is a terminal and rich is installed, otherwise a view that prints lines."""
    if find_spec("rich") is None or sys.stderr is None or not sys.stderr.isatty():
        return PlainProgress()
    from rich.console import Console

    from toynn.training.progress import ProgressView

    return ProgressView(Console(stderr=True))

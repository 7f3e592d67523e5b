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

from toynn.api.load_model import load, read_model
from toynn.api.plain_progress import PlainProgress
from toynn.api.text_model import TextModel
from toynn.api.train_settings import changes_of, config_of, overrides_of
from toynn.arguments import boolean
from toynn.errors import TinyNNTypeError
from toynn.extras import naming_the_extra
from toynn.storage.checkpoint import Checkpoint
from toynn.storage.regular_files import path_of

with naming_the_extra():
    from toynn.training import trainer
    from toynn.training.callbacks import checked_callbacks
    from toynn.training.config import TrainArgs, TrainConfig
    from toynn.training.events import Callback, Ended

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class TrainingResult(Ended):
    """How training ended, with the fields of `Ended`, and the run it wrote. It can be used as the path of the run."""

    run: Path

    @property
    def event(self) -> Ended:
        """The event that callbacks got at the end."""
        return Ended(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Ended)})

    def load(self, which: str = "latest", *, n_ctx: int | None = None, n_threads: int | None = None) -> TextModel:
        """Open the trained model; see `toynn.load`."""
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
    config: PathLike | TrainConfig | None = None,
    resume: bool = False,
    resume_from: str | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: object,
) -> TrainingResult: ...


def train(
    data: object,
    out: object = None,
    *,
    init: object = None,
    config: object = None,
    resume: bool = False,
    resume_from: str | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: object,
) -> TrainingResult:
    """Train a model, write the run to the folder `out`, and return how it ended.

    The run holds checkpoints, the configuration (run.toml) and a log (log.jsonl). The same data, configuration and
    start give the same bytes, with any number of threads, resumed or not. Ctrl-C ends training after the current
    step, with a checkpoint; `resume=True` continues it.

    Args:
        data: a data folder that `toynn.prepare` made, or a file of packed token ids with the header TOYC, of which the
            last 5 % are for validation.
        out: the folder of the run. It is created if it does not exist.
        init: the model to start from instead of random weights: a loaded model, or a path that `toynn.load` accepts.
            Its tokenizer must be that of the data.
        config: a `toynn.TrainConfig`, or the path of a TOML file. Default: the default of each setting.
        resume: continue the run in `out`. Its configuration is kept; steps, epochs, evaluation.* and checkpoint.* can
            be changed. Settings of optimizer.* and schedule.* can be changed too, if they are given in this call, but
            then the result no longer has the bytes of a run that never stopped; the run notes this.
        resume_from: the checkpoint of the run to continue from, like "step-00000070". Default: the latest.
        n_threads: threads to compute with. Default: the number of cores that this process may use.
        progress: show the progress on stderr: a bar in a terminal, a few lines elsewhere. Default: true.
        callbacks: functions that are called with each event, see `toynn.training.events`. One that raises
            `toynn.training.StopTraining` ends training after the current step, with a checkpoint.
        settings: single settings, on top of config: steps=300, lr=1e-3, d_model=64. A section takes a mapping:
            checkpoint={"every": 100}. A full key works as well: **{"checkpoint.every": 100}. None changes nothing.
            `toynn train --show-config` prints all settings with their meaning.

    `train(TrainArgs(...), callbacks)` takes everything but callbacks and progress as one value; progress is then off
    by default.

    Raises:
        ConfigurationError: a setting that does not exist or has a wrong value, by name.
        TinyNNValueError, TinyNNTypeError: a wrong argument; data, init and configuration that do not fit together.
        FileFormatError: data or a model that is damaged.
        DivergedError: the loss or a gradient is no longer finite. The latest checkpoint is complete.
        RunFolderError: another process is writing the run. TinyNNMemoryError. OSError.
        KeyboardInterrupt: Ctrl-C was pressed a second time.
    """
    if isinstance(data, TrainArgs):
        given = {"init": init, "config": config, "resume_from": resume_from, "n_threads": n_threads, **settings}
        wrong = [name for name, value in given.items() if value is not None] + (["resume"] if resume else [])
        if wrong:
            raise TinyNNTypeError(f"{wrong[0]} cannot be combined with a TrainArgs; set it in the TrainArgs")
        if out is not None and callbacks:
            raise TinyNNTypeError("callbacks are given twice: once by position and once by name")
        args, callbacks = data, callbacks if out is None else cast("Sequence[Callback]", out)
        if isinstance(args.init, Path):
            args = dataclasses.replace(args, init=read_model(args.init))
        shown = False if progress is None else boolean("progress", progress)
    else:
        folder, run = path_of("data", data), path_of("out", out)
        shown = True if progress is None else boolean("progress", progress)
        resumed = run if boolean("resume", resume) else None
        if config is not None and not isinstance(config, TrainConfig):
            config = path_of("config", config)
        overrides = overrides_of(settings)
        wanted = config_of(config, overrides, resumed=resumed, resume_from=resume_from)
        changes = changes_of(overrides) if resume else ()
        args = TrainArgs(folder, run, wanted, _initial(init), resume, n_threads, resume_from, changes)
    with contextlib.ExitStack() as stack:
        view = [stack.enter_context(_progress_view())] if shown else []
        ended = trainer.train(args, [*view, *checked_callbacks(callbacks)])
    values = {field.name: getattr(ended, field.name) for field in dataclasses.fields(ended)}
    return TrainingResult(**values, run=args.out)


def _initial(init: object) -> Checkpoint | None:
    if init is None or isinstance(init, Checkpoint):
        return init
    if isinstance(init, TextModel):
        return Checkpoint(init.path, init.step, init.trained_model(), None, {})
    return read_model(path_of("init", init))


def _progress_view() -> AbstractContextManager[Callback]:
    """Return a bar for a terminal if rich is installed, otherwise plain lines."""
    if find_spec("rich") is None or sys.stderr is None or not sys.stderr.isatty():
        return PlainProgress()
    from rich.console import Console

    from toynn.training.progress import ProgressView

    return ProgressView(Console(stderr=True))

"""`toynn train`: train a model on prepared data."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import click

from toynn.api.base_model import described_base, open_base
from toynn.api.load_model import read_model
from toynn.api.plain_progress import PlainProgress
from toynn.api.plan_training import timed_start
from toynn.api.train_model import TrainingResult, train
from toynn.api.train_settings import changes_of, checkpoint_to_resume, config_of
from toynn.cli.given_path import GivenPath
from toynn.cli.interrupts import INTERRUPTED
from toynn.cli.parallel_command import ParallelCommand
from toynn.cli.plan_command import described, plan_as_json
from toynn.cli.process_start import reserved_seconds
from toynn.errors import TinyNNValueError
from toynn.extras import how_to_install, naming_the_extra
from toynn.parallel.processes import Processes
from toynn.planning.plan import Plan
from toynn.storage.checkpoint.names import LOG
from toynn.training.config import TrainConfig
from toynn.training.events import Callback, Event, Started
from toynn.training.progress import ProgressView
from toynn.training.run_log import as_json, read_log
from toynn.training.start import initial_config, own_config
from toynn.training.toml_config import commented_toml, to_plain
from toynn.training.train_args import TrainArgs

with naming_the_extra():
    from rich.console import Console


@click.command(cls=ParallelCommand)
@click.argument("data", required=False, type=GivenPath(exists=True, path_type=Path))
@click.option("--out", type=GivenPath(path_type=Path), help="Folder of the run.")
@click.option("--config", type=GivenPath(exists=True, dir_okay=False, path_type=Path), default=None,
              help="TOML file with settings. Keys that the file does not contain have their "
                   "default values.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Set one key, for example optimizer.lr=1e-3. Can be repeated.")  # fmt: skip
@click.option("--init", type=GivenPath(exists=True, path_type=Path), default=None,
              help="Start from the model of this run, GGUF file or Hugging Face folder.")  # fmt: skip
@click.option("--base", type=GivenPath(exists=True, path_type=Path), default=None,
              help="Train an adapter, whose rank is adapter.rank, on this frozen GGUF file, "
                   "Hugging Face folder or run.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--from", "resume_from", metavar="CHECKPOINT", default=None,
              help="With --resume: continue from this checkpoint, for example step-00000070.")  # fmt: skip
@click.option("--time", default=None, metavar="TIME",
              help="Train with the plan of `toynn plan` for this time, for example 20m or 1h30m.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
@click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard event files to the folder tensorboard in --out."
)
@click.option("--wandb", is_flag=True,
              help="Also log with Weights & Biases. The variables of wandb apply, for example WANDB_MODE.")  # fmt: skip
@click.option("--mlflow", is_flag=True,
              help="Also log with MLflow. The variables of MLflow apply, for example MLFLOW_TRACKING_URI.")  # fmt: skip
@click.option("--show-config", is_flag=True,
              help="Print every setting with its meaning as TOML (with --json: as JSON), and exit.")  # fmt: skip
@click.option("--log-every", type=click.IntRange(1), default=None, metavar="N",
              help="If stderr is not a terminal, print every Nth step. [default: about 100 lines]")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print only errors, notes, and one line with the losses at the end.")
@click.option("--json", "as_json_", is_flag=True, help="Print one JSON object at the end.")
@click.pass_obj
def command(
    processes: Processes | None,
    data: Path | None,
    out: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    base: Path | None,
    resume: bool,
    resume_from: str | None,
    time: str | None,
    threads: int | None,
    tensorboard: bool,
    wandb: bool,
    mlflow: bool,
    show_config: bool,
    log_every: int | None,
    quiet: bool,
    as_json_: bool,
) -> None:
    """Train a model on DATA, a folder that `toynn prepare` made, or a file of packed
    token ids with the header TOYC. With --resume, DATA can be left out: it is then
    the folder or file that the run used before.

    Ctrl-C ends training after the current step and saves a checkpoint. The same
    data, settings and initial weights give a model with the same bytes, for any
    number of threads, also if training was interrupted and resumed.

    --time chooses a model, and how to train it in the given time. With --resume,
    --time is the time of the whole run. Without --time, a resumed run keeps its
    time.

    `mpiexec -n 4 toynn train DATA --out RUN` trains in 4 processes, on one machine
    or several. The trained model has the same bytes as with one process.
    """
    began, reserved = perf_counter(), reserved_seconds()
    is_silent = processes is not None and not processes.writes
    if resume and out is None:
        raise click.UsageError(
            "--resume needs --out, the option that names the folder of the run to continue", click.get_current_context()
        )
    if show_config:
        _refuse_time(time)
        shown = _shown(config, overrides, init, base, out if resume else None, resume_from)
        text = json.dumps(to_plain(shown)) + "\n" if as_json_ else commented_toml(shown)
        click.echo(text, nl=False)
        return
    if data is None and resume and out is not None:
        data = _data_of_run(out)
    if data is None:
        raise click.UsageError(
            "the argument DATA is missing; give a data folder, which `toynn prepare` creates",
            click.get_current_context(),
        )
    if out is None:
        raise click.UsageError(
            "the option --out is missing; give the folder of the run to create", click.get_current_context()
        )
    resumed = out if resume else None
    start = None if init is None or resume else read_model(init)
    opened = None if base is None or resume or init is not None else open_base(base)
    shape_from = start if opened is None else described_base(opened)
    settings, plan = (
        (config_of(config, overrides, init=shape_from, resumed=resumed, resume_from=resume_from), None)
        if time is None
        else _timed(
            data, time, config, overrides, threads, resumed, resume_from, shape_from is not None, quiet, reserved
        )
    )
    callbacks: list[Callback] = []
    wanted = {"--tensorboard": tensorboard, "--wandb": wandb, "--mlflow": mlflow}
    loggers = [option for option, is_wanted in wanted.items() if is_wanted and not is_silent]
    with contextlib.ExitStack() as stack:
        callbacks.append(stack.enter_context(_view(log_every, quiet, is_silent)))
        callbacks += [stack.enter_context(_logger(option, out)) for option in loggers]
        args = TrainArgs(
            data,
            out,
            settings,
            start or init,
            resume,
            threads,
            resume_from,
            changes_of(overrides) if resume else (),
            opened or base,
            perf_counter() - began + reserved,
        )
        result = train(args, callbacks=callbacks)
    if is_silent:
        sys.exit(INTERRUPTED if result.reason == "interrupted" else 0)
    report = _report(result)
    if as_json_:
        planned = {} if plan is None else {"plan": plan_as_json(plan)}
        click.echo(json.dumps({**as_json(result.event), "report": report, "advice": result.advice, **planned}))
    elif quiet:
        click.echo(f"{_outcome(result)}{_losses(result)}")
    else:
        _print_summary(result, report, _resume_command(data, out, threads, loggers))
    if result.reason == "interrupted":
        sys.exit(INTERRUPTED)


def _refuse_time(time: str | None) -> None:
    if time is not None:
        raise click.UsageError(
            "--show-config and --time cannot be combined; `toynn plan` shows the settings for a time",
            click.get_current_context(),
        )


def _timed(
    data: Path,
    time: str,
    config: Path | None,
    overrides: tuple[str, ...],
    threads: int | None,
    resumed: Path | None,
    resume_from: str | None,
    other_start: bool,
    quiet: bool,
    reserved: float,
) -> tuple[TrainConfig, Plan | None]:
    """Return the configuration of a run that must end in a given time, and its plan. Print the plan."""
    timed = timed_start(
        data,
        time,
        config,
        overrides,
        threads,
        resumed=resumed,
        resume_from=resume_from,
        other_start=other_start,
        reserved=reserved,
    )
    if timed.plan is not None and not quiet:
        click.echo("\n".join(described(timed.plan)), err=True)
    return timed.config, timed.plan


def _data_of_run(run: Path) -> Path:
    """Return the data that a run was last trained on, from its log."""
    try:
        folders = [Path(event["data"]) for event in read_log(run) if event["event"] == "started"]
    except FileNotFoundError:
        raise TinyNNValueError(
            f"{run} has no {LOG}, so there is no run to resume; give DATA, and leave out --resume"
        ) from None
    if not folders:
        raise TinyNNValueError(f"the log of {run} does not name the data of the run; give the data folder as DATA")
    if not folders[-1].exists():
        raise TinyNNValueError(
            f"the data of {run} was in {folders[-1]}, which does not exist; give its new place as DATA"
        )
    return folders[-1]


def _shown(
    path: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    base: Path | None,
    resumed: Path | None,
    resume_from: str | None,
) -> TrainConfig:
    """Return the configuration that training with these arguments would use, with every key set."""
    if resumed is not None and path is None:
        return own_config(checkpoint_to_resume(resumed, resume_from), overrides)
    start = None if init is None else read_model(init)
    if base is not None and init is None:
        with open_base(base) as opened:
            start = described_base(opened)
    config = config_of(path, overrides, init=start) or TrainConfig()
    return config.explicit() if start is None else initial_config(config, start)[0]


def _view(log_every: int | None, quiet: bool, is_silent: bool) -> AbstractContextManager[Callback]:
    """Return a progress bar if stderr is a terminal, otherwise a view that prints lines. quiet: print only notes."""
    if quiet or is_silent:
        return contextlib.nullcontext(_nothing if is_silent else _notes)
    console = Console(stderr=True)
    return ProgressView(console) if console.is_terminal else PlainProgress(log_every, lines=100, ending=False)


def _logger(option: str, out: Path) -> AbstractContextManager[Callback]:
    """Return the callback for the option --tensorboard, --wandb or --mlflow."""
    if option == "--tensorboard":
        from toynn.training.tensorboard import TensorBoardView

        return TensorBoardView(out / "tensorboard")
    if option == "--wandb":
        from toynn.training.wandb_view import WandbView

        return WandbView()
    from toynn.training.mlflow_view import MlflowView

    return MlflowView()


def _nothing(event: Event) -> None:
    """Print nothing, because another process prints the events."""


def _notes(event: Event) -> None:
    """Print only the notes of a run."""
    if isinstance(event, Started):
        for note in event.notes:
            click.echo(f"note: {note}", err=True)


def _report(result: TrainingResult) -> str | None:
    """Write the report and return its path. Return None if matplotlib is missing or no step was taken.

    A damaged or missing log is only reported as a note, because the trained model does not depend on it.
    """
    if result.step == 0 or find_spec("matplotlib") is None:
        return None
    from toynn.training.report import write_report

    try:
        return str(write_report(result.run)[-1])
    except (TinyNNValueError, OSError) as error:
        click.echo(f"note: no report: {error}", err=True)
        return None


def _outcome(result: TrainingResult) -> str:
    if result.reason == "done" and result.loss is None:
        return f"nothing to do: the run has taken all its {result.step} steps (for more: --set train.steps=...)"
    steps = "1 step" if result.step == 1 else f"{result.step} steps"
    return {
        "done": f"done after {steps}",
        "early stop": f"ended early after {steps}: the validation loss has stopped falling",
        "stopped": f"stopped after {steps}",
        "interrupted": f"interrupted after {steps}, saved",
    }[result.reason]


def _losses(result: TrainingResult) -> str:
    """Return the training loss and the best validation loss as the end of a sentence."""
    loss = "" if result.loss is None else f", training loss {result.loss:.4f}"
    best = (
        "" if result.best_loss is None else f", best validation loss {result.best_loss:.4f} at step {result.best_step}"
    )
    return loss + best


def _print_summary(result: TrainingResult, report: str | None, resume_command: str) -> None:
    click.echo(_outcome(result))
    if result.best_loss is not None:
        click.echo(f"best validation loss {result.best_loss:.4f}, at step {result.best_step}")
    click.echo(f"model   {result.checkpoint}")
    if report is not None:
        click.echo(f"report  {report}")
    elif result.step > 0:
        click.echo(f"no plots, because matplotlib is not installed; {how_to_install('plot')}, then:")
        click.echo(shlex.join(["toynn", "report", str(result.run)]))
    if result.reason == "interrupted":
        click.echo(f"continue with: {resume_command}")


def _resume_command(data: Path, out: Path, threads: int | None, loggers: Sequence[str]) -> str:
    arguments = ["toynn", "train", str(data), "--out", str(out), "--resume"]
    arguments += [] if threads is None else ["--threads", str(threads)]
    arguments += loggers
    return shlex.join(arguments)

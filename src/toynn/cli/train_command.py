"""`toynn train`: train a model on prepared data."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import click

from toynn.api.load_model import read_model
from toynn.api.plain_progress import PlainProgress
from toynn.api.train_model import TrainingResult, train
from toynn.api.train_settings import changes_of, checkpoint_to_resume, config_of
from toynn.cli.interrupts import INTERRUPTED
from toynn.errors import TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.training.config import TrainArgs, TrainConfig
from toynn.training.events import Callback, Event, Started
from toynn.training.progress import ProgressView
from toynn.training.run_log import as_json
from toynn.training.start import initial_config, own_config
from toynn.training.toml_config import commented_toml, to_plain

with naming_the_extra():
    from rich.console import Console


@click.command()
@click.argument("data", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="TOML file with settings. Keys that it lacks have their defaults.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Set one key, for example optimizer.lr=1e-3. Can be repeated.")  # fmt: skip
@click.option("--init", type=click.Path(exists=True, path_type=Path), default=None,
              help="Start from this run, GGUF file or Hugging Face folder, not from random weights.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--from", "resume_from", metavar="CHECKPOINT", default=None,
              help="With --resume, continue from this checkpoint, like step-00000070.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: the cores this process may use]")  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Also write event files to RUN/tensorboard.")
@click.option("--show-config", is_flag=True,
              help="Print every key as TOML with its meaning, or with --json as JSON, and exit.")  # fmt: skip
@click.option("--log-every", type=click.IntRange(1), default=None, metavar="N",
              help="Without a terminal, print every Nth step. [default: about 100 steps of the run]")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print only errors, notes, and one line with the losses at the end.")
@click.option("--json", "as_json_", is_flag=True, help="Print one JSON object at the end.")
def command(
    data: Path | None,
    out: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    resume: bool,
    resume_from: str | None,
    threads: int | None,
    tensorboard: bool,
    show_config: bool,
    log_every: int | None,
    quiet: bool,
    as_json_: bool,
) -> None:
    """Train a model on DATA, a folder that `toynn prepare` made, or a file of packed
    token ids with the header TOYC.

    Ctrl-C ends training after the current step, with a checkpoint. The same
    data, configuration and start give the same bytes, with any number of threads,
    resumed or not.
    """
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the run to continue", click.get_current_context())
    if show_config:
        shown = _shown(config, overrides, init, out if resume else None, resume_from)
        click.echo(json.dumps(to_plain(shown)) if as_json_ else commented_toml(shown), nl=as_json_)
        return
    if data is None:
        raise click.UsageError("Missing argument 'DATA'", click.get_current_context())
    if out is None:
        raise click.UsageError("Missing option '--out'", click.get_current_context())
    resumed = out if resume else None
    settings = config_of(config, overrides, "--set", resumed=resumed, resume_from=resume_from)
    callbacks: list[Callback] = []
    with contextlib.ExitStack() as stack:
        callbacks.append(_notes if quiet else stack.enter_context(_progress_view(log_every)))
        if tensorboard:
            from toynn.training.tensorboard import TensorBoardView

            callbacks.append(stack.enter_context(TensorBoardView(out / "tensorboard")))
        args = TrainArgs(
            data, out, settings, init, resume, threads, resume_from, changes_of(overrides) if resume else ()
        )
        result = train(args, callbacks=callbacks)
    report = _report(result)
    if as_json_:
        click.echo(json.dumps({**as_json(result.event), "report": report}))
    elif quiet:
        click.echo(f"{_outcome(result)}{_losses(result)}")
    else:
        _print_summary(result, report, _resume_command(data, out, threads, tensorboard))
    if result.reason == "interrupted":
        sys.exit(INTERRUPTED)


def _shown(
    path: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    resumed: Path | None,
    resume_from: str | None,
) -> TrainConfig:
    """Return the configuration that training with these arguments would use, with every key set."""
    if resumed is not None and path is None:
        return own_config(checkpoint_to_resume(resumed, resume_from), overrides)
    config = config_of(path, overrides, "--set") or TrainConfig()
    return config.explicit() if init is None else initial_config(config, read_model(init))[0]


def _progress_view(log_every: int | None) -> AbstractContextManager[Callback]:
    """Return a bar for a terminal, and lines otherwise."""
    console = Console(stderr=True)
    return ProgressView(console) if console.is_terminal else PlainProgress(log_every, lines=100, ending=False)


def _notes(event: Event) -> None:
    """Print only the notes of a run."""
    if isinstance(event, Started):
        for note in event.notes:
            click.echo(f"note: {note}", err=True)


def _report(result: TrainingResult) -> str | None:
    """Write the report and return its path; None without matplotlib or steps.

    A damaged or missing log only gives a note, because the model does not depend on it.
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
    return {
        "done": f"done after {result.step} steps",
        "early stop": f"ended early after {result.step} steps: the validation loss has stopped falling",
        "stopped": f"stopped after {result.step} steps",
        "interrupted": f"interrupted after {result.step} steps, saved",
    }[result.reason]


def _losses(result: TrainingResult) -> str:
    """Return the losses of a run for the end of a line."""
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
        click.echo("no plots: they need matplotlib, pip install 'toynn[plot]', then:")
        click.echo(shlex.join(["toynn", "report", str(result.run)]))
    if result.reason == "interrupted":
        click.echo(f"continue with: {resume_command}")


def _resume_command(data: Path, out: Path, threads: int | None, tensorboard: bool) -> str:
    arguments = ["toynn", "train", str(data), "--out", str(out), "--resume"]
    arguments += [] if threads is None else ["--threads", str(threads)]
    arguments += ["--tensorboard"] if tensorboard else []
    return shlex.join(arguments)

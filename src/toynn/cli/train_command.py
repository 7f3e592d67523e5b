"""`toynn train`: prepared data becomes a trained model."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console

from toynn.errors import TinyNNValueError
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.storage.checkpoint.run_folder import named_checkpoint
from toynn.training import Ended, TrainArgs, train
from toynn.training.config import TrainConfig
from toynn.training.events import Callback
from toynn.training.progress import ProgressView
from toynn.training.run_log import as_json
from toynn.training.start import own_config, shape_of
from toynn.training.toml_config import commented_toml, from_toml, read_config

INTERRUPTED = 130


@click.command()
@click.argument("data", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="TOML; what it leaves out has its default.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One key, like optimizer.lr=1e-3.")
@click.option("--init", type=click.Path(exists=True, path_type=Path), default=None,
              help="Start from this run's weights, not at random.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--from", "resume_from", metavar="CHECKPOINT", default=None,
              help="With --resume: from this one, like step-00000070.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=None, help="Default: the cores this process may use.")
@click.option("--tensorboard", is_flag=True, help="Write event files into RUN/tensorboard too.")
@click.option("--show-config", is_flag=True, help="Print every key as TOML, with what it means, and do nothing.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors and, at the end, one line.")
@click.option("--json", "as_json_", is_flag=True, help="One JSON object on stdout, at the end.")
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
    quiet: bool,
    as_json_: bool,
) -> None:
    """Train a model on the data folder DATA (of `toynn prepare`).

    Ctrl-C ends it after the step, saved. The same data, configuration and start
    give the same bytes, resumed or not, with any number of threads.
    """
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the run to go on with", click.get_current_context())
    if show_config:
        click.echo(commented_toml(_shown(config, overrides, init, out if resume else None, resume_from)), nl=False)
        return
    if data is None:
        raise click.UsageError("Missing argument 'DATA'", click.get_current_context())
    if out is None:
        raise click.UsageError("Missing option '--out'", click.get_current_context())
    settings = _config(config, overrides, out if resume else None, resume_from)
    args = TrainArgs(data, out, settings, init, resume, threads, resume_from)
    callbacks: list[Callback] = []
    with contextlib.ExitStack() as stack:
        if not quiet:
            callbacks.append(stack.enter_context(ProgressView(Console(stderr=True))))
        if tensorboard:
            from toynn.training.tensorboard import TensorBoardView

            callbacks.append(stack.enter_context(TensorBoardView(out / "tensorboard")))
        ended = train(args, callbacks)
    report = _report(out, ended)
    if as_json_:
        click.echo(json.dumps({**as_json(ended), "report": report}))
    elif quiet:
        click.echo(_outcome(ended))
    else:
        _say(ended, args, tensorboard, report)
    if ended.reason == "interrupted":
        sys.exit(INTERRUPTED)


def _config(
    path: Path | None, overrides: tuple[str, ...], resumed: Path | None, resume_from: str | None
) -> TrainConfig | None:
    if path is not None:
        return read_config(path, overrides)
    if not overrides:
        return None
    if resumed is not None:  # what is set is set on top of the run's own
        return own_config(_held(resumed, resume_from), overrides)
    return from_toml("", "--set", overrides)


def _held(run: Path, resume_from: str | None) -> Checkpoint:
    """The checkpoint that a run goes on from. Its configuration rules: run.toml may tell of steps that were lost."""
    return load_checkpoint(run) if resume_from is None else named_checkpoint(run, resume_from)


def _shown(
    path: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    resumed: Path | None,
    resume_from: str | None,
) -> TrainConfig:
    """The configuration that a training with these words would have, nothing left open."""
    if resumed is not None and path is None:
        return own_config(_held(resumed, resume_from), overrides)
    config = _config(path, overrides, None, None) or TrainConfig()
    return config.explicit(None if init is None else shape_of(load_checkpoint(init)))


def _report(out: Path, ended: Ended) -> str | None:
    """Where the report is; None where there is nothing to draw with, or nothing to draw.

    A log that is damaged or gone is a note: the training is as good without it.
    """
    if ended.step == 0 or find_spec("matplotlib") is None:
        return None
    from toynn.training.report import write_report

    try:
        return str(write_report(out)[-1])
    except (TinyNNValueError, OSError) as error:
        click.echo(f"note: no report: {error}", err=True)
        return None


def _outcome(ended: Ended) -> str:
    if ended.reason == "done" and ended.loss is None:
        return f"nothing to do: the run has all its {ended.step} steps (more: --set train.steps=...)"
    return {
        "done": f"done after {ended.step} steps",
        "early stop": f"ended early after {ended.step} steps: the validation loss no longer falls",
        "stopped": f"stopped after {ended.step} steps",
        "interrupted": f"interrupted after {ended.step} steps, saved",
    }[ended.reason]


def _say(ended: Ended, args: TrainArgs, tensorboard: bool, report: str | None) -> None:
    click.echo(_outcome(ended))
    if ended.best_loss is not None:
        click.echo(f"best validation loss {ended.best_loss:.4f}, at step {ended.best_step}")
    click.echo(f"model   {ended.checkpoint}")
    if report is not None:
        click.echo(f"report  {report}")
    elif ended.step > 0:
        click.echo("no plots: they need matplotlib, pip install 'toynn[plot]', then:")
        click.echo(shlex.join(["toynn", "report", str(args.out)]))
    if ended.reason == "interrupted":
        words = ["toynn", "train", str(args.data), "--out", str(args.out), "--resume"]
        words += [] if args.n_threads is None else ["--threads", str(args.n_threads)]
        words += ["--tensorboard"] if tensorboard else []
        click.echo(f"go on with: {shlex.join(words)}")

"""`toynn train`: prepared data becomes a trained model."""

from __future__ import annotations

import contextlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console

from toynn.training import Ended, TrainArgs, train
from toynn.training.config import TrainConfig
from toynn.training.events import Callback
from toynn.training.progress import ProgressView
from toynn.training.run_log import as_json
from toynn.training.toml_config import from_toml, read_config, to_toml

INTERRUPTED = 130


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="TOML; what it leaves out has its default.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One key, like optimizer.lr=1e-3.")
@click.option("--init", type=click.Path(exists=True, path_type=Path), default=None,
              help="Start from this run's weights, not at random.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--threads", type=click.IntRange(1), default=None, help="Default: the cores this process may use.")
@click.option("--tensorboard", is_flag=True, help="Write event files into RUN/tensorboard too.")
@click.option("--show-config", is_flag=True, help="Print the whole configuration as TOML, and do nothing.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors and the last line.")
@click.option("--json", "as_json_", is_flag=True, help="One JSON object on stdout, at the end.")
def command(
    data: Path,
    out: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    resume: bool,
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
    chosen = _config(config, overrides, resume, out)
    if show_config:
        click.echo(to_toml(chosen or TrainConfig()), nl=False)
        return
    console = Console(stderr=True)
    callbacks: list[Callback] = []
    with contextlib.ExitStack() as stack:
        if not quiet:
            callbacks.append(stack.enter_context(ProgressView(console)))
        if tensorboard:
            from toynn.training.tensorboard import TensorBoardView

            callbacks.append(stack.enter_context(TensorBoardView(out / "tensorboard")))
        ended = train(TrainArgs(data, out, chosen, init, resume, threads), callbacks)
    report = _report(out, ended)
    if as_json_:
        click.echo(json.dumps({**as_json(ended), "report": report}))
    else:
        _say(ended, data, out, report)
    if ended.reason == "interrupted":
        sys.exit(INTERRUPTED)


def _config(path: Path | None, overrides: tuple[str, ...], resume: bool, out: Path) -> TrainConfig | None:
    if path is not None:
        return read_config(path, overrides)
    if resume:  # what is set is set on top of the run's own
        return read_config(out / "run.toml", overrides) if overrides else None
    return from_toml("", "--set", overrides) if overrides else None


def _report(out: Path, ended: Ended) -> str | None:
    """Where the report is; None where there is nothing to draw with, or nothing to draw."""
    if ended.step == 0 or find_spec("matplotlib") is None:
        return None
    from toynn.training.report import write_report

    return str(write_report(out)[-1])


def _say(ended: Ended, data: Path, out: Path, report: str | None) -> None:
    said = {
        "done": f"done after {ended.step} steps",
        "early stop": f"ended early after {ended.step} steps: the validation loss no longer falls",
        "stopped": f"stopped after {ended.step} steps",
        "interrupted": f"interrupted after {ended.step} steps, saved",
    }[ended.reason]
    click.echo(said)
    if ended.best_loss is not None:
        click.echo(f"best validation loss {ended.best_loss:.4f}, at step {ended.best_step}")
    click.echo(f"model   {ended.checkpoint}")
    if report is not None:
        click.echo(f"report  {report}")
    elif ended.step > 0:
        click.echo("no plots: they need matplotlib, pip install 'toynn[plot]', then: toynn report RUN")
    if ended.reason == "interrupted":
        click.echo(f"go on with: toynn train {data} --out {out} --resume")

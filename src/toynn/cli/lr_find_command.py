"""`toynn lr-find`: suggest a learning rate for a run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from toynn.api.find_learning_rate import tested_range
from toynn.api.load_model import read_model
from toynn.cli.given_path import GivenPath
from toynn.training.lr_range import HIGHEST, LOWEST, STEPS, RangeProgress, RangeTest, Report

_ROWS = 20  # approximate number of rows of the table
_PRINTED = 10  # approximate number of lines for the initial losses, and for the steps of the test


@click.command()
@click.argument("data", type=GivenPath(exists=True, path_type=Path))
@click.option("--config", type=GivenPath(exists=True, dir_okay=False, path_type=Path), default=None,
              help="TOML file with settings. Keys that the file does not contain have their "
                   "default values.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Set one key, for example model.d_model=256. Can be repeated.")  # fmt: skip
@click.option("--init", type=GivenPath(exists=True, path_type=Path), default=None,
              help="Start from the model of this run, GGUF file or Hugging Face folder.")  # fmt: skip
@click.option("--base", type=GivenPath(exists=True, path_type=Path), default=None,
              help="Train an adapter, whose rank is adapter.rank, on this frozen GGUF file, "
                   "Hugging Face folder or run.")  # fmt: skip
@click.option("--steps", type=click.IntRange(10), default=STEPS, show_default=True,
              help="Largest number of steps.")  # fmt: skip
@click.option("--lowest", type=float, default=LOWEST, show_default=True, help="Learning rate of the first step.")
@click.option("--highest", type=float, default=HIGHEST, show_default=True, help="Learning rate of the last step.")
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    data: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    base: Path | None,
    steps: int,
    lowest: float,
    highest: float,
    threads: int | None,
    as_json: bool,
) -> None:
    """Suggest a learning rate for `toynn train DATA` with the same options.

    The command trains the model for a few steps, each with a higher learning
    rate. It prints the loss at each rate, and suggests a quarter of the rate
    at which the loss has fallen most. It writes no files. The progress is shown
    on stderr.
    """
    start = None if init is None else read_model(init)
    with _shown_progress() as report:
        found = tested_range(data, config, overrides, start, base, threads, (lowest, highest, steps), report)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
    else:
        _print(found)


@contextlib.contextmanager
def _shown_progress() -> Iterator[Report]:
    """Show the progress of a range test on stderr: a bar in a terminal, otherwise lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_progress
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[figures]}"), console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(one: RangeProgress) -> None:
            part = _part(one)
            if part not in tasks:
                tasks[part] = bar.add_task(part, total=one.steps, figures="")
            bar.update(tasks[part], completed=one.step, figures=_figures(one))

        yield show


def _print_progress(one: RangeProgress) -> None:
    """Print the progress after each tenth of the steps."""
    if one.step % max(1, -(-one.steps // _PRINTED)) == 0 or one.step == one.steps:
        click.echo(f"{_part(one)} {one.step}/{one.steps}: {_figures(one)}", err=True)


def _part(one: RangeProgress) -> str:
    return "initial loss" if one.learning_rate is None else "step"


def _figures(one: RangeProgress) -> str:
    return f"loss {one.loss:.4f}" + ("" if one.learning_rate is None else f", lr {one.learning_rate:.2e}")


def _print(found: RangeTest) -> None:
    """Print a table of the test, and the suggestion."""
    best = min(range(len(found.changes)), key=found.changes.__getitem__)
    every = max(1, len(found.losses) // _ROWS)
    click.echo("learning rate    loss  mean change")
    for i in sorted({*range(0, len(found.losses), every), best, len(found.losses) - 1}):
        mark = "  lowest" if i == best else ""
        click.echo(f"{found.learning_rates[i]:13.2e}  {found.losses[i]:6.3f}  {found.changes[i]:+11.3f}{mark}")
    if found.diverged:
        click.echo("in the next step, the loss or a gradient was NaN or infinite")
    muon = "" if found.muon_lr is None else f" --set optimizer.muon_lr={found.muon_lr:g}"
    click.echo(f"suggestion: --set optimizer.lr={found.lr:g}{muon}")

"""`toynn plan`: choose a model, and how to train it in a given time."""

from __future__ import annotations

import dataclasses
import json
import shlex
import textwrap
from pathlib import Path

import click

from toynn.api.plan_training import plan_of
from toynn.api.train_settings import settings_as_toml
from toynn.cli.given_path import GivenPath
from toynn.cli.process_start import reserved_seconds
from toynn.planning.amounts import time_in_words
from toynn.planning.plan import Plan
from toynn.storage.durable_files import replace_file
from toynn.storage.regular_files import naming_file

_COLUMNS = 80
_SAVED = "plan.toml"  # the file of a plan in the printed commands, if the user has given no file


@click.command()
@click.argument("data", type=GivenPath(exists=True, path_type=Path))
@click.option("--time", default=None, metavar="TIME", help="Time for the training, for example 90s, 20m or 1h30m.")
@click.option("--params", default=None, metavar="N",
              help="Approximate number of parameters, for example 500k or 2M. [default: chosen by "
                   "the plan]")  # fmt: skip
@click.option("--memory", default=None, metavar="SIZE",
              help="Largest memory for the training, for example 4GB. [default: the available memory]")  # fmt: skip
@click.option("--config", type=GivenPath(exists=True, dir_okay=False, path_type=Path), default=None,
              help="TOML file with settings that the plan keeps.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Set one key, for example train.batch=8. The plan keeps this value. Can be repeated.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
@click.option("--save", type=GivenPath(dir_okay=False, path_type=Path), default=None, metavar="FILE",
              help="Write the settings to this TOML file, for toynn train --config.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    data: Path,
    time: str | None,
    params: str | None,
    memory: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    threads: int | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Print which model to train on DATA, a folder that `toynn prepare` made of
    plain text, how to train it, and the validation loss to expect.

    The speed of a few models is measured on this machine. This takes a few
    seconds. Without --time, the plan has a model with about --params weights,
    and the time for which a model of this size is the best.
    """
    found = plan_of(data, time, params, memory, config, overrides, threads, reserved_seconds())
    if save is not None:
        with naming_file(save):
            replace_file(save, settings_as_toml(found.settings).encode("utf-8"))
    if as_json:
        click.echo(json.dumps(plan_as_json(found)))
        return
    for line in described(found):
        click.echo(line)
    options = [] if config is None else ["--config", str(config)]
    options += [word for override in overrides for word in ("--set", override)]
    on_threads = [] if threads is None else ["--threads", str(threads)]
    if save is None and time is not None and params is None and memory is None:
        words = ["toynn", "train", str(data), "--out", "RUN", "--time", time, *options, *on_threads]
        click.echo(f"to train it: {shlex.join(words)}")
        return
    train = ["toynn", "train", str(data), "--out", "RUN", "--config", str(save or _SAVED), *on_threads]
    if save is None:
        limits = {"--time": time, "--params": params, "--memory": memory}
        given = [word for name, value in limits.items() if value is not None for word in (name, value)]
        words = ["toynn", "plan", str(data), *given, *options, *on_threads, "--save", _SAVED]
        click.echo(f"to save it: {shlex.join(words)}")
    click.echo(f"to train it: {shlex.join(train)}")


def plan_as_json(plan: Plan) -> dict[str, object]:
    """Return a plan as a JSON object: the fields of `Plan`."""
    return {**dataclasses.asdict(plan), "data": str(plan.data)}


def described(plan: Plan) -> list[str]:
    """Return the lines that describe a plan, of at most 80 columns."""
    settings = plan.settings
    bits = "" if plan.bits_per_byte is None else f", {plan.bits_per_byte:.3f} bits per byte"
    rows = {
        "model": f"{plan.parameters / 1e6:.2f} M parameters: d_model {settings['model.d_model']}, "
        f"{settings['model.n_layers']} layers, {settings['model.n_heads']} heads, d_ff {settings['model.d_ff']}, "
        f"context {settings['model.ctx']}",
        "training": f"{plan.steps} steps of {plan.tokens // plan.steps} tokens, which is {plan.epochs:.2f} epochs",
        "learning rate": f"{settings['optimizer.lr']:.3g}, for Muon {settings['optimizer.muon_lr']:.3g}"
        if settings["optimizer.kind"] == "muon"
        else f"{settings['optimizer.lr']:.3g}",
        "time": f"{time_in_words(plan.seconds)}, {1e3 * plan.seconds_per_step:.1f} ms for a step",
        "memory": f"{plan.memory / 1e6:.0f} MB",
        "validation loss": f"about {plan.loss:.3f} ({plan.loss_low:.3f} to {plan.loss_high:.3f}) nats per token{bits}",
    }
    lines = []
    width = max(map(len, rows))
    for name, value in rows.items():
        parts = textwrap.wrap(value, _COLUMNS - width - 2)
        lines += [f"{name if i == 0 else '':{width}}  {part}" for i, part in enumerate(parts)]
    for note in plan.notes:
        lines += textwrap.wrap(f"note: {note}", _COLUMNS)
    return lines

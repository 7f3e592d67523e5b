"""`toynn data`: look at prepared data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from toynn.api.shown_samples import ShownSample, shown_samples
from toynn.cli.given_path import GivenPath
from toynn.data.meta import SPLITS


@click.group()
def command() -> None:
    """Look at the data that `toynn prepare` has made."""


@command.command()
@click.argument("data", type=GivenPath(exists=True, path_type=Path))
@click.option("-n", "count", type=click.IntRange(1), default=3, show_default=True, metavar="N",
              help="Number of samples to print.")  # fmt: skip
@click.option("--from", "first", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Number of the first sample to print, counted from 0.")  # fmt: skip
@click.option("--split", type=click.Choice(SPLITS), default=SPLITS[0], show_default=True, help="Split to read.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each sample.")
def show(data: Path, count: int, first: int, split: str, as_json: bool) -> None:
    """Print samples of the folder DATA.

    Tokens that count for the loss are green in a terminal, and between [[ and ]]
    elsewhere. Plain texts are printed as documents.
    """
    for sample in shown_samples(data, split, first, count):
        if as_json:
            parts = [{"text": text, "counted": counted} for text, counted in sample.parts]
            click.echo(
                json.dumps({"sample": sample.number, "ids": sample.ids, "counted": sample.counted, "parts": parts})
            )
        else:
            click.echo(_heading(sample))
            click.echo("".join(_highlighted(text) if counted else text for text, counted in sample.parts))


def _heading(sample: ShownSample) -> str:
    cut, pair = ", cut" if sample.is_cut else "", f" ({sample.of_pair})" if sample.of_pair else ""
    return click.style(
        f"--- sample {sample.number}{pair}: {len(sample.ids)} tokens, {sum(sample.counted)} counted{cut} ---", bold=True
    )


def _highlighted(text: str) -> str:
    return click.style(text, fg="green") if sys.stdout.isatty() else f"[[{text}]]"

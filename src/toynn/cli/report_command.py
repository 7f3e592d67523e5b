"""`toynn report`: plot a run, and write a page with the plots."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.cli.given_path import GivenPath
from toynn.training.report import write_report


@click.command()
@click.argument("run", type=GivenPath(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: Path, as_json: bool) -> None:
    """Plot the loss, learning rate and gradient norm of RUN, and write report.html.

    The command reads the log of RUN, also while the run is training.
    """
    written = [str(path) for path in write_report(run)]
    if as_json:
        click.echo(json.dumps({"written": written}))
        return
    for path in written:
        click.echo(path)

"""`toynn report`: a run's plots and page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.training.report import write_report


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(run: Path, as_json: bool) -> None:
    """Plot RUN's loss, learning rate and gradient norm, and write report.html.

    It reads RUN's log, also while the run is still going.
    """
    written = [str(path) for path in write_report(run)]
    if as_json:
        click.echo(json.dumps({"written": written}))
        return
    for path in written:
        click.echo(path)

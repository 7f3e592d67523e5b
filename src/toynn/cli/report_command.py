"""`toynn report`: the plots of a run, and a page with them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.training.report import write_report


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: Path, as_json: bool) -> None:
    """Plot RUN's loss, learning rate and gradient norm, and write report.html.

    The figures come from RUN's log, which can be read while the run is training.
    """
    written = [str(path) for path in write_report(run)]
    if as_json:
        click.echo(json.dumps({"written": written}))
        return
    for path in written:
        click.echo(path)

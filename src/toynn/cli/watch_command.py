"""`toynn watch`: a page that follows a run."""

from __future__ import annotations

from pathlib import Path

import click

from toynn.cli.given_path import GivenPath
from toynn.serve.http_server import Listener, run_server
from toynn.serve.limits import Limits
from toynn.serve.watch_app import watch_app


@click.command()
@click.argument("run", type=GivenPath(exists=True, file_okay=False, path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True,
              help="Port to listen on; 0 chooses a free port.")  # fmt: skip
def command(run: Path, port: int) -> None:
    """Serve a web page that follows RUN while it is training: curves, speed, time
    left, and the texts of evaluation.prompts.

    Only programs on this machine can open the page, which loads nothing from other
    servers. The command reads the log of RUN and does not slow down the training.
    Ctrl-C ends the command.
    """
    listener = Listener("127.0.0.1", port)
    limits = Limits()
    run_server(
        watch_app(run), listener, limits, lambda: click.echo(f"watch {run} on {listener.url} (Ctrl-C ends the server)")
    )
    click.echo("the server has ended")

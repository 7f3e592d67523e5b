"""`toynn info`: what this build is, and what a folder holds."""

from __future__ import annotations

import json

import click

import toynn


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> None:
    """Show what this build of toynn is: versions, compiler, profile."""
    info = {"toynn": toynn.__version__, **toynn.build_info()}
    if as_json:
        click.echo(json.dumps(info))
        return
    for key, value in info.items():
        click.echo(f"{key:14} {value}")

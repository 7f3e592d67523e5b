"""GivenPath: the type of every path on the command line."""

from __future__ import annotations

import os
from typing import Any

import click


class GivenPath(click.Path):
    """A click.Path that returns a pathlib.Path and refuses an empty text, which would mean the current folder."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path must not be empty; use . for the current folder", param, ctx)
        return super().convert(value, param, ctx)

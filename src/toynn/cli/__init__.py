"""The command line, `toynn`. It needs the extra toynn[cli]; one file for each command, imported when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `toynn` command."""
    try:
        from toynn.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("toynn: the command line needs its extra: pip install 'toynn[cli]'", file=sys.stderr)
        sys.exit(1)
    app.main(prog_name="toynn")

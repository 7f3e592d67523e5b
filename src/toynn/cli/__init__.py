"""The command line, `toynn`. It needs the extra toynn[cli]; one file for each command, imported when it is called.

The process starts in `toynn_command`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command of sys.argv, and ends the process with its exit code."""
    try:
        from toynn.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("toynn: the command line needs its extra: pip install 'toynn[cli]'", file=sys.stderr)
        sys.exit(1)
    app.main(prog_name="toynn")

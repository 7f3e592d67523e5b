"""The start and the end of the process of the `toynn` command: signals, closed streams, modules that cannot be loaded.

Whatever goes wrong there is one line on stderr too. This module imports few others: until `main` runs, Ctrl-C shows
Python's traceback.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys

from toynn.cli.interrupts import INTERRUPTED, loading_modules


def main() -> None:
    """Run the command of `sys.argv` and end the process with its exit code; see `toynn.cli.app` for the codes."""
    _check_streams()
    try:
        with loading_modules():
            from toynn.cli.app import app
        app.main(prog_name="toynn")
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("toynn: the command line needs its extra: pip install 'toynn[cli]'", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("toynn: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command has ended, and its exit code is decided


def _check_streams() -> None:
    """Open stdin and stderr if the caller has closed them, make stdout print any text, and exit if stdout is closed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one of the three is closed; without this, a file opened later, like the log, would get its number
    if sys.stderr is None:
        sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8")
    else:
        os.close(descriptor)
    if sys.stdout is None:
        print("toynn: stdout is closed, so there is nowhere to write the output", file=sys.stderr)
        sys.exit(1)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("toynn.printable", _printable)
        sys.stdout.reconfigure(errors="toynn.printable")


def _printable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is printed for a character that stdout cannot encode, and the position after it.

    A byte of a path that is not UTF-8 goes out unchanged, as with "surrogateescape"; another character becomes "?".
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    return bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else "?", error.start + 1

"""Start and end the process of the `toynn` command: signals, closed streams, modules that cannot be loaded.

An error here is one line on stderr, as everywhere else. This module imports few other modules, because a Ctrl-C during
these imports, before `main` runs, prints Python's traceback.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys

from toynn.cli.interrupts import INTERRUPTED, loading_modules
from toynn.cli.process_start import remember_start


def main() -> None:
    """Run the command of `sys.argv` and end the process with its exit code; see `toynn.cli.app` for the codes."""
    remember_start()
    _check_streams()
    try:
        with loading_modules():
            from toynn.cli.app import app
        app.main(prog_name="toynn")
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        from toynn.extras import how_to_install

        print(f"toynn: click is not installed; {how_to_install('cli')}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("toynn: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        # the exit code of the command is decided, and Ctrl-C must not change it
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_streams() -> None:
    """Open stdin and stderr on /dev/null if they are closed, and exit if stdout is closed.

    Also make stdout print "?" for a character that its encoding does not have, instead of raising an error.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        # without this loop, a file that is opened later, such as the log, could get the number of the closed stream
        pass
    if sys.stderr is None:
        sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8")
    else:
        os.close(descriptor)
    if sys.stdout is None:
        print("toynn: cannot write the output: stdout is closed", file=sys.stderr)
        sys.exit(1)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("toynn.printable", _printable)
        sys.stdout.reconfigure(errors="toynn.printable")


def _printable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return a replacement for a character that stdout cannot encode, and the position after the character.

    A byte of a path that is not UTF-8 is printed unchanged, as with "surrogateescape". Other characters become "?".
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    return bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else "?", error.start + 1

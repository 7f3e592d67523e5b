"""The start and the end of the `toynn` command's process, so that whatever goes wrong around a command is one line too.

A package beside toynn, because to import anything of toynn is to load numpy and ggml. It loads little itself: until
`main` runs, Ctrl-C is Python's, with a trace.
"""

from __future__ import annotations

import io
import os
import signal
import sys

TYPE_CHECKING = False  # typing's own takes its time to load
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130


def main() -> None:
    """Entry point of the `toynn` command. Ends with the exit code; see `toynn.cli.app`."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a background job of a shell ignores it
    if ours:
        signal.signal(signal.SIGINT, _leave)
    _settle_streams()
    try:
        from toynn.cli import main as run
    except ModuleNotFoundError:
        raise
    except ImportError as error:  # this build and this CPU, or TOYNN_GEMM_KERNEL, do not fit
        if {"-v", "--verbose"} & set(sys.argv[1:]):
            raise
        print(f"toynn: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error.__cause__, ValueError) else 1)
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        print("toynn: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done, and how it ended is known


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (signal's signature)
    """Ends the process at once. While modules load nothing is under way, and an exception may get lost in one."""
    os.write(2, b"toynn: interrupted\n")
    os._exit(INTERRUPTED)


def _settle_streams() -> None:
    """What a caller may have done to stdin, stdout and stderr."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one of them is closed: a file opened later, like the log, would be written to in its place
    if sys.stderr is None:
        sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8")
    else:
        os.close(descriptor)
    if sys.stdout is None:
        print("toynn: stdout is closed: there is no place to write to", file=sys.stderr)
        sys.exit(1)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")  # a path need not be UTF-8: its bytes go out as they came

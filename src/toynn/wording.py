"""The wording of messages: an argument is named as a Python argument or as an option of the command line, and an error
is one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_COMMAND_LINE = ContextVar("_COMMAND_LINE", default=False)


@contextmanager
def on_the_command_line() -> Iterator[None]:
    """Let the messages of the block name options of the `toynn` command instead of Python arguments."""
    token = _COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def spelled(python: str, command: str) -> str:
    """Return the name of an argument for a message: `command` while the `toynn` command runs, otherwise `python`."""
    return command if _COMMAND_LINE.get() else python


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line. The message of an OSError begins with the files that the error names.

    For an error without a message, return the name of its class.
    """
    if isinstance(error, MemoryError) and not str(error):
        return "out of memory"
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]
        return " ".join(f"{' -> '.join(names)}: {error.strerror}".split())
    return " ".join(str(error).split()) or type(error).__name__

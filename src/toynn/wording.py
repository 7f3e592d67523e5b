"""Choose how messages name an argument: as a Python argument, or as an option of the command line."""

from __future__ import annotations

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

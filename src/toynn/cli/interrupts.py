"""Ctrl-C while modules load, and the exit code of an interrupted command. This module imports few others."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

TYPE_CHECKING = False  # importing typing would take longer than all the rest of this module
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130


@contextmanager
def loading_modules() -> Iterator[None]:
    """Make Ctrl-C end the process at once inside the block.

    Nothing is under way while modules load, and a KeyboardInterrupt could be swallowed inside one of them. If Ctrl-C is
    ignored, as in a background job of a shell, it stays ignored.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signature of a handler)
    os.write(2, b"toynn: interrupted\n")
    os._exit(INTERRUPTED)

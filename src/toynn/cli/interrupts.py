"""Handle Ctrl-C and stop garbage collection while modules load, and define the exit code of an interrupted command.

This module imports few other modules, because Ctrl-C is handled only after this module is loaded.
"""

from __future__ import annotations

import gc
import os
import signal
from contextlib import contextmanager

TYPE_CHECKING = False  # importing `typing` would take longer than loading the rest of this module
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130


@contextmanager
def loading_modules() -> Iterator[None]:
    """Inside the block, let Ctrl-C end the process at once, and stop garbage collection, which would free nothing.

    No work can be lost while modules load, and a module that is being loaded could catch a KeyboardInterrupt and go on.
    If the process ignores Ctrl-C before the block, as a background job of a shell does, Ctrl-C also has no effect
    inside the block.
    """
    collects = gc.isenabled()
    gc.disable()
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        if collects:
            gc.enable()
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signature of a handler)
    os.write(2, b"toynn: interrupted\n")
    os._exit(INTERRUPTED)

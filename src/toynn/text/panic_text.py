"""Prevent the tokenizers library from printing to stderr when its Rust code panics.

When Rust panics, it prints several lines to file descriptor 2. Then the library raises a Python exception, which toynn
reports with its own message. File descriptor 2 is shared by the whole process, so a library must not redirect it. Only
the `toynn` command, which owns its process, calls `hide_panics`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_PANIC = re.compile(rb"\n?thread '[^\n]*' (?:\(\d+\) )?panicked at .*\Z", re.DOTALL)
_held: list[BinaryIO] = []  # the file that replaces stderr; empty until `hide_panics` is called


def hide_panics() -> None:
    """Make later blocks of `panics_hidden` hide the text of panics. Do nothing if stderr is closed."""
    try:
        os.fstat(2)
    except OSError:
        return
    if not _held:
        import tempfile  # a slow import, which --help does not need

        _held.append(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 (it stays open)


@contextmanager
def panics_hidden() -> Iterator[None]:
    """Remove the text of a panic from the output of the block to stderr. Do nothing unless `hide_panics` was called."""
    if not _held:
        yield
        return
    held = _held[0]
    stderr = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        if held.tell() > 0:
            held.seek(0)
            text = _PANIC.sub(b"", held.read())
            held.seek(0)
            held.truncate()
            if text:
                os.write(2, text)

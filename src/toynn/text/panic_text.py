"""Keep the text that Rust prints when it panics away from stderr.

The tokenizers library is written in Rust. When it panics, Rust prints several lines to the file descriptor 2, and then
an exception reaches Python, which toynn reports itself. The descriptor belongs to the whole process, so only a program
that owns its process, like the command line, asks for this.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_PANIC = re.compile(rb"\n?thread '[^\n]*' (?:\(\d+\) )?panicked at .*\Z", re.DOTALL)
_held: list[BinaryIO] = []  # the file that stands in for stderr, once `hide_panics` was called


def hide_panics() -> None:
    """Hide the text of panics inside of `panics_hidden` from now on, if the process has a stderr."""
    try:
        os.fstat(2)
    except OSError:
        return
    if not _held:
        _held.append(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 (held to the end)


@contextmanager
def panics_hidden() -> Iterator[None]:
    """Pass on to stderr what the block prints there, without the text of a panic. Does nothing by default."""
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

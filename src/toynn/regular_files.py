"""Files that are opened to be read, where a name may stand for something that is no file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from toynn.errors import TinyNNTypeError, TinyNNValueError


def folder_of(folder: object) -> Path:
    """The folder as a Path. Raises TinyNNTypeError."""
    try:
        return Path(folder)  # type: ignore[arg-type]
    except TypeError:
        raise TinyNNTypeError(f"folder must be a path, got {type(folder).__name__}") from None


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading; a pipe or a device, which may hold a reader for ever, is refused.

    Raises OSError, ValueError for a path that can be none, TinyNNValueError for what is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # asked before fdopen, which leaves a folder's open
            raise TinyNNValueError(f"{path} is no regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise

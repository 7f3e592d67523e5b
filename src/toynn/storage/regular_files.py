"""Files and paths that are given, where a name may stand for something that is no file, or for nothing at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from toynn.errors import TinyNNTypeError, TinyNNValueError


def folder_of(folder: object) -> Path:
    """The folder as a Path. Raises TinyNNTypeError."""
    try:
        return Path(folder)  # type: ignore[arg-type]
    except TypeError:
        raise TinyNNTypeError(f"folder must be a path, got {type(folder).__name__}") from None


def path_of(name: str, value: object) -> Path:
    """A path that was given. Raises TinyNNTypeError or TinyNNValueError naming the argument."""
    try:
        path = Path(value)  # type: ignore[arg-type]
    except TypeError:
        raise TinyNNTypeError(f"{name} must be a path, got {type(value).__name__}") from None
    if "\0" in str(path):
        raise TinyNNValueError(f"{name} must not contain a NUL character, got {str(path)!r:.80}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise TinyNNValueError(f"{name} must be a path that the file system can hold, got {str(path)!r:.80}") from None
    return path


def shown(path: Path) -> str:
    """The path as text that can be encoded: a byte of its name that is no text is written as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading; a pipe or a device, which may hold a reader for ever, is refused.

    Raises OSError, ValueError for a path that can be none, TinyNNValueError for what is no regular file.
    """
    return _opened(path, os.O_RDONLY, "rb")


def open_regular_to_append(path: Path) -> BinaryIO:
    """The same, open for reading and for writing at its end; made where there is none."""
    return _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, "a+b")


def read_regular(path: Path, largest: int | None = None) -> bytes:
    """The content of a regular file. Raises as `open_regular` does, and TinyNNValueError beyond `largest` bytes."""
    with open_regular(path) as file:
        content = file.read(-1 if largest is None else largest + 1)
    if largest is not None and len(content) > largest:
        raise TinyNNValueError(f"{path} is larger than such a file can be")
    return content


def _opened(path: Path, flags: int, mode: str) -> BinaryIO:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # asked before fdopen, which leaves a folder's open
            raise TinyNNValueError(f"{path} is no regular file")
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Inside it, an OSError that names no file, like that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None

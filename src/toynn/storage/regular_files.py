"""Check paths that a user gives, and open files only if they are regular files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from toynn.arguments import kind_of
from toynn.errors import FileFormatError, TinyNNTypeError, TinyNNValueError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def folder_of(folder: object) -> Path:
    """Return a folder as a Path. Raises TinyNNTypeError for a value that is not a path, or TinyNNValueError for an
    empty text.
    """
    return _path("folder", folder)


def path_of(name: str, value: object) -> Path:
    """Return an argument as a Path. Raises TinyNNTypeError or TinyNNValueError with the name of the argument."""
    path = _path(name, value)
    if "\0" in str(path):
        raise TinyNNValueError(f"{name} must not contain a NUL character, got {str(path)!r:.80}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise TinyNNValueError(
            f"{name} must be a path that the file system can represent, got {str(path)!r:.80}"
        ) from None
    return path


def _path(name: str, value: object) -> Path:
    try:
        path = Path(value)  # type: ignore[arg-type]
        is_empty = os.fspath(value) == ""  # type: ignore[call-overload]
    except Exception as error:  # a TypeError, or an error raised by __fspath__ of the value
        raise TinyNNTypeError(f"{name} must be a path, got {kind_of(value)}") from error
    if is_empty:  # pathlib treats an empty path as the current folder
        raise TinyNNValueError(f"{name} must be a path, got an empty text; use '.' for the current folder")
    return path


def printable(path: Path) -> str:
    """Return the path as text that can be printed. Bytes that are not UTF-8 become escapes like \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Refuse pipes and devices, because reading from them may never end.

    Raises ValueError for an invalid path; FileFormatError if the path is not a regular file; or OSError if the file
    cannot be opened.
    """
    return _opened(path, os.O_RDONLY, "rb")


def open_regular_to_append(path: Path) -> BinaryIO:
    """Open a regular file for reading and appending, or create it. Raises the errors of
    `open_regular`.
    """
    return _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, "a+b")


def read_regular(path: Path, largest: int | None = None) -> bytes:
    """Return the content of a regular file.

    Raises the errors of `open_regular`, and FileFormatError if the file has more than `largest` bytes.
    """
    with open_regular(path) as file:
        content = file.read(-1 if largest is None else largest + 1)
    if largest is not None and len(content) > largest:
        raise FileFormatError(f"{path} is larger than {largest} bytes, the limit for a file of this kind")
    return content


def _opened(path: Path, flags: int, mode: str) -> BinaryIO:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        # os.fdopen would refuse the descriptor of a folder, and would not close it
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileFormatError(f"{path} is not a regular file; give the path of a file")
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add the name of a file to an OSError of the block if the error names no file, for example if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None


def refuse_lfs_pointer(content: bytes, what: str = "the file") -> None:
    """Raise FileFormatError if a file is a Git LFS pointer, the short text that Git LFS puts in place of a large file.

    content: the first bytes of the file.
    what: the name of the file in the message.
    """
    if content.startswith(_LFS_POINTER):
        raise FileFormatError(f"{what} is only a Git LFS pointer; fetch its content with `git lfs pull`")

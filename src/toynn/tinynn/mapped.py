"""Weights that are mapped from a file: MappedFile, and the call that attaches one to a session."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from types import TracebackType
from typing import BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from toynn.arguments import int64, kind_of, text
from toynn.errors import MappedFileError, SessionError, TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.tinynn.memory import new_array
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, native_session, status

__all__ = ["MappedFile", "tnn_session_attach_weight_mmap"]

_CHUNK = 1 << 24  # number of bytes that are read at once; Ctrl-C has an effect between two reads


class MappedFile(Initialised):
    """A file that is mapped into memory for reading, so that a session can use its bytes as weights.

    The pages are read from the file when they are first used, and other processes share them. Sessions to which the
    file is attached keep the mapping until they are closed. Python code reads the file with `read`, never through the
    mapping, so a file that becomes shorter causes an exception, not a signal. The caller can close `file` after this
    object was made.

    Args:
        file: a regular file that is open for reading in binary mode.
        name: the name of the file in error messages. Default: the name of `file`.

    Raises:
        TinyNNTypeError: `file` is not an open file.
        TinyNNValueError: the file is empty.
        OSError: the file cannot be mapped.
    """

    __slots__ = ("__weakref__", "_closed", "_finalizer", "_mapping", "_state", "fd", "name")

    def __init__(self, file: BinaryIO, name: str | None = None) -> None:
        try:
            source = file.fileno()
        except (AttributeError, TypeError, ValueError, OSError) as error:
            raise TinyNNTypeError(f"file must be an open file, got {kind_of(file)}: {error}") from error
        self.name = text("name", name) if name is not None else _name_of(file)
        self.fd = os.dup(source)
        self._closed = False
        self._finalizer = weakref.finalize(self, os.close, self.fd)
        self._finalizer.atexit = False
        try:
            self._state = _state(self.fd)
            if self._state[0] == 0:
                raise TinyNNValueError(f"{self.name} is empty, so there is nothing to map")
            self._mapping = mmap.mmap(self.fd, self._state[0], access=mmap.ACCESS_READ)
        except BaseException:
            self._finalizer()
            raise

    def __len__(self) -> int:
        """Return the size of the file in bytes when it was mapped."""
        return self._state[0]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TinyNNTypeError(
            "a MappedFile cannot be copied or pickled, because it owns a mapping; open the file again"
        )

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MappedFile {self.name!r}, {'closed' if self._closed else f'{len(self)} bytes'}>"

    def close(self) -> None:
        """Close the file and its mapping. If open sessions use the mapping, the mapping is closed with the last of
        these sessions.
        """
        mapping, self._closed = self._mapping, True
        with contextlib.suppress(BufferError):  # the mapping ends when the last session releases it
            mapping.close()
        self._finalizer()

    def check(self) -> None:
        """Raise MappedFileError if the file was changed since it was mapped. Raise SessionError if this object is
        closed.
        """
        if self._closed:
            raise SessionError(f"{self.name} is closed; open the file again")
        if (now := _state(self.fd)) != self._state:
            change = "became shorter" if now[0] < self._state[0] else "was changed"
            raise MappedFileError(f"{self.name} {change} while its tensors were in use; open the file again")

    def read(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return a copy of `nbytes` bytes from position `offset`, read from the file.

        Raises:
            TinyNNValueError: the bytes do not lie inside the file.
            MappedFileError: the file was changed since it was mapped.
            TinyNNMemoryError: there is not enough memory.
        """
        start, n = int64("offset", offset), int64("nbytes", nbytes)
        if start < 0 or n < 0 or start + n > len(self):
            raise TinyNNValueError(
                f"bytes {start} to {start + n} do not lie inside the {len(self)} bytes of {self.name}"
            )
        self.check()
        result = new_array("nbytes", n, np.uint8, f"{n} bytes of {self.name}")
        read_into(self.fd, start, result.data)
        self.check()
        return result


def read_into(fd: int, offset: int, target: memoryview) -> int:
    """Read bytes of an open file from position `offset` into target. Return the number of bytes before the file's end.

    The position of the file is neither used nor changed, so threads can share the file.
    """
    at = 0
    while at < len(target):
        n = os.preadv(fd, [target[at : at + _CHUNK]], offset + at)
        if n == 0:
            break
        at += n
    return at


def _name_of(file: BinaryIO) -> str:
    name: object = getattr(file, "name", None)
    return name if isinstance(name, str) else "the mapped file"  # the name can be the number of a descriptor


def _state(fd: int) -> tuple[int, int]:
    """Return the size of a file and the time of its last change in nanoseconds."""
    status_of_file = os.fstat(fd)
    return status_of_file.st_size, status_of_file.st_mtime_ns


def tnn_session_attach_weight_mmap(s: Session, base: MappedFile, size: int | None = None) -> None:
    """Attach a mapped file, whose bytes the calls `tnn_input_1d_persistent_mmap` (2d, 3d) use as weights.

    Several files can be attached. These calls then use the file that was attached last. A file can be attached again.
    The session keeps the mapping until it is closed. If the file is changed or becomes shorter, computing and
    downloading raise MappedFileError, and the process survives.

    Args:
        base: the file.
        size: how many of its bytes can be used. Default: all.

    Raises:
        TinyNNTypeError: `base` is not a MappedFile.
        TinyNNValueError: `size` is not between 1 and the size of the file.
        MappedFileError: the file was changed since it was mapped.
        SessionError: the weights are finalized already, or too many files are attached.
    """
    if not isinstance(base, MappedFile):
        raise TinyNNTypeError(f"base must be a MappedFile, got {kind_of(base)}")
    base.check()
    nbytes = len(base) if size is None else int64("size", size)
    if not 1 <= nbytes <= len(base):
        raise TinyNNValueError(f"size must be between 1 and {len(base)}, the size of {base.name}, got {nbytes}")
    name = base.name.encode("utf-8", "backslashreplace").replace(b"\0", b"?")[:200]
    buffer = ffi.from_buffer("char[]", base._mapping)
    native = native_session(s)
    with native.lock:
        native.live()
        kept = native.kept
        kept.append(buffer)  # the buffer is kept before the call, because C reads the buffer from the call on
        try:
            status(s, lib.tnn_session_attach_weight_mmap, buffer, nbytes, base.fd, name)
        except BaseException:
            kept.remove(buffer)
            raise

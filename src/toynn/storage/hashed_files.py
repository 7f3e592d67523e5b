"""Write a new file at the speed of the disk, and compute its SHA-256 at the same time.

The bytes of a large file bypass the page cache of the system (O_DIRECT), because copying a gigabyte into the page cache
can take several times as long as writing it to the disk. The first thread makes the content, the second thread writes
the content, and the third thread computes the SHA-256.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

_LARGE = 32 << 20  # smaller files are written through the page cache
_CHUNK = 8 << 20  # number of bytes that are written at once
_BUFFERS = 3  # two chunks are hashed and written while the next chunk is filled
_ALIGNMENT = 4096  # O_DIRECT writes whole blocks, at positions and from addresses that are multiples of a block


def write_hashed(path: Path, parts: Iterable[memoryview], size: int) -> str:
    """Write a new file, wait until it is on the disk, and return its SHA-256 as hexadecimal digits.

    parts: the content in order. The iterable may compute each part when it is needed.
    size: the number of bytes of all parts.

    Raises OSError if the file cannot be written. The file may then be incomplete.
    """
    digest = hashlib.sha256()
    with path.open("xb") as file:
        if size < _LARGE:
            for part in parts:
                file.write(part)
                digest.update(part)
        else:
            _write_large(path, file.fileno(), parts, digest.update)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _write_large(path: Path, file: int, parts: Iterable[memoryview], update: Callable[[memoryview], None]) -> None:
    from concurrent.futures import ThreadPoolExecutor  # a slow import, which reading a model does not need

    buffers = [mmap.mmap(-1, _CHUNK) for _ in range(_BUFFERS)]
    with _direct(path) as opened, ThreadPoolExecutor(1) as hashing, ThreadPoolExecutor(1) as writing:
        direct = opened
        running: deque[tuple[Future[None], Future[None]]] = deque()

        def write(chunk: memoryview, at: int) -> None:
            nonlocal direct
            direct = _write(file, direct, chunk, at)

        for n, length in enumerate(_filled(buffers, parts)):
            chunk = memoryview(buffers[n % _BUFFERS])[:length]
            running.append((hashing.submit(update, chunk), writing.submit(write, chunk, n * _CHUNK)))
            while len(running) >= _BUFFERS:  # the oldest chunk must be written, because its buffer is filled next
                _wait(running.popleft())
        while running:
            _wait(running.popleft())


def _wait(chunk: tuple[Future[None], Future[None]]) -> None:
    """Wait until a chunk is hashed and written, and raise an error of these tasks."""
    for task in chunk:
        task.result()


@contextlib.contextmanager
def _direct(path: Path) -> Iterator[int | None]:
    """Yield a descriptor of the file that bypasses the page cache, or None if the system does not support it."""
    flag: int | None = getattr(os, "O_DIRECT", None)
    if flag is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | flag)
    except OSError:  # the file system does not support O_DIRECT
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _filled(buffers: list[mmap.mmap], parts: Iterable[memoryview]) -> Iterator[int]:
    """Copy the parts into the buffers in turn. Yield the number of bytes in a buffer when it is full, or at the end."""
    n, at = 0, 0
    for part in parts:
        left = part.cast("B")
        while left:
            buffer = buffers[n % len(buffers)]
            count = min(len(left), len(buffer) - at)
            buffer[at : at + count] = left[:count]
            left, at = left[count:], at + count
            if at == len(buffer):
                yield at
                n, at = n + 1, 0
    if at:
        yield at


def _write(file: int, direct: int | None, chunk: memoryview, at: int) -> int | None:
    """Write a chunk at a position of the file.

    direct: the descriptor that bypasses the page cache and writes whole blocks, or None. Return None if this descriptor
        could not write the chunk, so that it is not used for the next chunk; otherwise return `direct`.
    """
    done = 0
    if direct is not None:
        whole = len(chunk) // _ALIGNMENT * _ALIGNMENT
        try:
            while done < whole:
                done += os.pwrite(direct, chunk[done:whole], at + done)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            direct = None  # blocks of this disk are larger, or only a part of a block was written: use the page cache
    while done < len(chunk):
        done += os.pwrite(file, chunk[done:], at + done)
    return direct

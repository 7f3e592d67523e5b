"""Read a file in parts. The content of a gzip or a Zstandard file is unpacked."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from toynn.errors import FileFormatError
from toynn.extras import naming_the_extra
from toynn.storage.regular_files import open_regular, refuse_lfs_pointer

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# the first bytes of a frame that Zstandard ignores
_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))
_PART = 1 << 20  # bytes
_PACKED_PART = 1 << 10  # bytes of a Zstandard file that are unpacked at once; they can become 32 MiB
_LARGEST_WINDOW = 1 << 27  # largest number of bytes that unpacking a Zstandard file may need
# A file with a larger ratio of unpacked to packed bytes is probably meant to fill the disk. Compression reduces real
# texts to a tenth of their size. It reduces texts that repeat themselves to a hundredth.
_MOST_RATIO, _ALWAYS_ALLOWED = 400, 1 << 28


def is_compressed(head: bytes) -> bool:
    """Return whether a file is compressed. head: its first bytes, at least 4."""
    return head.startswith((GZIP, ZSTD, *_SKIPPABLE))


def head_of(path: Path, n: int) -> bytes:
    """Return at least the first n bytes of the unpacked content of a file, or all of it. Raises the errors of
    `parts_of_file`.
    """
    found = b""
    for part in parts_of_file(path):
        found += part
        if len(found) >= n:
            break
    return found


def parts_of_file(path: Path) -> Iterator[bytes]:
    """Yield the unpacked content of a file in parts of a few megabytes at most.

    Raises FileFormatError if the file is damaged or unpacks to more than 400 times its size, or OSError if the file
    cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(8)
        refuse_lfs_pointer(head, str(path))
        file.seek(0)
        if not is_compressed(head):
            while part := file.read(_PART):
                yield part
            return
        unpacked = 0
        for part in _gzip(file, path) if head.startswith(GZIP) else _zstd(file, path):
            unpacked += len(part)
            if unpacked > _ALWAYS_ALLOWED and unpacked > _MOST_RATIO * file.tell():
                raise FileFormatError(
                    f"{path} unpacks to more than {_MOST_RATIO} times its size, which is not usual for texts; if this "
                    "is intended, unpack the file first"
                )
            yield part


def _gzip(file: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            while part := unpacked.read(_PART):
                yield part
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(f"{path} is damaged: {error}; use an intact copy of the file") from None


def _zstd(file: BinaryIO, path: Path) -> Iterator[bytes]:
    with naming_the_extra():
        import zstandard
    frames = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    frame = None  # the frame that is being read; None between two frames
    held: list[bytes] = []
    size = 0
    try:
        while packed := file.read(_PACKED_PART):
            while packed:
                frame = frame or frames.decompressobj()
                held.append(frame.decompress(packed))
                size += len(held[-1])
                packed, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
            if size >= _PART:
                yield b"".join(held)
                held, size = [], 0
    except zstandard.ZstdError as error:
        raise FileFormatError(f"{path} is damaged: {error}; use an intact copy of the file") from None
    if frame is not None:
        raise FileFormatError(
            f"{path} is damaged: it ends in the middle of a Zstandard frame; use an intact copy of the file"
        )
    yield from itertools.filterfalse(lambda part: not part, [b"".join(held)])

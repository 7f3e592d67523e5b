"""Files that are whole or not there, whatever happens: written beside their place, fsynced, renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from toynn.regular_files import open_regular

_CHUNK = 1 << 20


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and waits until the disk has it. Raises OSError; the file may then be there in part."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Waits until the disk has what was written to a file, or the entries of a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Gives a file new content in one step: a reader sees the old one or the new one. Raises OSError; then the old."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a regular file, read piece by piece. Raises OSError, TinyNNValueError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()

"""Files that are whole or not there, whatever happens: written beside their place, fsynced, renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from toynn.storage.regular_files import open_regular

_CHUNK = 1 << 20


def make_folder(path: Path) -> list[Path]:
    """Makes a folder, and those it lies in, where there is none; returns those it made, the innermost first.

    Raises OSError.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


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


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Gives the path to write a file to that takes its place when the block is done, in one step.

    Raises OSError. After an error, the block's own too, the old file is there as it was.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill that takes its place when the block is done; an old folder stays until then.

    The new folder's files are fsynced. Between the old one's leaving and the new one's coming a kill can leave neither
    at `path`; both are then beside it, whole, as .old-* and .tmp-*.

    Raises OSError. After an error, the block's own too, the old folder is there as it was.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    old = path.with_name(f".old-{os.getpid()}-{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that died
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        if path.exists() and any(path.iterdir()):
            path.rename(old)
            try:
                temporary.rename(path)
            except BaseException:
                old.rename(path)
                raise
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)
    if old.exists():
        shutil.rmtree(old)

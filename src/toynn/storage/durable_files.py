"""Files and folders that are complete or absent after any failure.

Each is written under a temporary name beside its place, synced to the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from toynn.errors import TinyNNValueError
from toynn.storage.regular_files import naming_file, open_regular

_CHUNK = 1 << 20


def make_folder(path: Path) -> list[Path]:
    """Make a folder and its missing parents, and wait until their names are on the disk.

    Return the folders that were made, the innermost first. Raises TinyNNValueError if the path leads through a link to
    a place that does not exist; OSError.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in missing:
        if folder.is_symlink():
            raise TinyNNValueError(
                f"{folder} is a link to {folder.readlink()}, which does not exist; make that folder or remove the link"
            )
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync(folder.parent)
    return missing


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk. Raises OSError; the file may then be incomplete."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new content in one step: a reader sees the old content or the new one.

    Raises OSError; the file then has its old content.
    """
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a regular file, read in chunks. Raises OSError, FileFormatError."""
    with open_regular(path) as file:
        return sha256_of_file(file)


def sha256_of_file(file: BinaryIO) -> str:
    """Return the hexadecimal SHA-256 of a file from its start, read in chunks, and go back to the start."""
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_CHUNK):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path for the block to write; afterwards that file replaces `path` in one step.

    replace: False keeps a file that another process has made at `path` in the meantime.

    Raises OSError; TinyNNValueError if a file is kept. If this or the block raises an error, `path` has its old
    content.
    """
    temporary = _beside(path, ".tmp")
    try:
        with naming_file(path):
            yield temporary
            sync(temporary)
        if replace:
            temporary.replace(path)
        else:
            _rename_to_new(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path, *, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder for the block to fill; afterwards it replaces the folder `path`.

    The files of the new folder are synced. The old folder is renamed away just before the new one is renamed into its
    place. A process killed between these two renames leaves nothing at `path`; both folders are then beside it,
    complete, with the prefixes .old- and .tmp-.

    check: called when the new folder is complete. It raises an error if the old folder must not be replaced, which
    another process may have made in the meantime.

    Raises OSError. If this or the block raises an error, `path` is the old folder.
    """
    temporary, old = _beside(path, ".tmp"), _beside(path, ".old")
    temporary.mkdir()
    try:
        with naming_file(path):
            yield temporary
            for file in temporary.iterdir():
                sync(file)
            sync(temporary)
        if check is not None:
            check()
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


def _beside(path: Path, kind: str) -> Path:
    """Return an unused name beside `path`. Processes in different containers may have the same id, so it is random."""
    return path.with_name(f"{kind}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename a file to a path that does not exist. Raises TinyNNValueError if it does, OSError."""
    try:
        path.hardlink_to(temporary)  # unlike a rename, it never replaces a file
    except FileExistsError:
        raise TinyNNValueError(f"{path} was made by another process in the meantime, and is not replaced") from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise TinyNNValueError(f"{path} was made by another process in the meantime, and is not replaced") from None
        temporary.rename(path)
    else:
        temporary.unlink()

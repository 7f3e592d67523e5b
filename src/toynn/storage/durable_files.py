"""Write files and folders that are either complete or missing after any failure.

A file or folder is written under a temporary name in the same parent folder, synced to the disk, and renamed. If the
process is killed, the next process that writes the same path removes what is left under temporary names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from toynn.errors import TinyNNValueError
from toynn.storage.regular_files import naming_file, open_regular
from toynn.storage.remains import NEW, OLD, beside, writing_beside

_CHUNK = 1 << 20


def make_folder(path: Path) -> list[Path]:
    """Create a folder and its missing parents, and wait until their names are on the disk.

    Return the folders that were created, the innermost first. Raises TinyNNValueError if a part of the path is a broken
    symbolic link, or OSError if a folder cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in missing:
        if folder.is_symlink():
            raise TinyNNValueError(
                f"{folder} is a link to {folder.readlink()}, which does not exist; create this target, or remove "
                "the link"
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the folder cannot be created ({error.strerror}); use another path"
        raise type(error)(error.errno, reason, error.filename) from None
    for folder in reversed(missing):
        sync(folder.parent)
    return missing


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk. Raises OSError if the file cannot be written. The file may then be
    incomplete.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk.

    Raises OSError if the system reports a failure.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Replace the content of a file in one step, so that a reader sees either the old or the new content.

    Raises OSError if the file cannot be written. The file then has its old content.
    """
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a regular file, read in chunks. Raises FileFormatError if the path is not a
    regular file, or OSError if the file cannot be read.
    """
    with open_regular(path) as file:
        return sha256_of_file(file)


def sha256_of_file(file: BinaryIO) -> str:
    """Return the hexadecimal SHA-256 of an open file, read in chunks, and go back to the start of the file."""
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_CHUNK):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()


def sha256_of_parts(digests: Mapping[str, str]) -> str:
    """Return one SHA-256 for several files, from the name and the SHA-256 of each.

    For a single file, return its SHA-256.
    """
    if len(digests) == 1:
        return next(iter(digests.values()))
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


@contextlib.contextmanager
def replacing_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path, to which the block writes a file. After the block, this file replaces `path`.

    replace: if false, a file that another process has created at `path` in the meantime is not replaced.

    Raises TinyNNValueError if such a file exists, or OSError if the file cannot be written. After any error, `path` has
    its old content.
    """
    temporary = beside(path, NEW)
    with writing_beside(path):
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
    """Yield an empty temporary folder for the block to fill. After the block, this folder replaces the folder `path`.

    The files of the new folder are synced. Then the old folder gets a temporary name, and the new folder is renamed to
    `path`. If the process is killed between these two renames, `path` does not exist. Both folders are then complete in
    the parent folder, with the prefixes .old- and .tmp-; the next call for `path` removes them when it has succeeded.

    check: called when the new folder is complete. It must raise an error if `path` must not be replaced, for example
    because another process has created it in the meantime.

    Raises OSError if a file cannot be written. After any error, `path` is the old folder.
    """
    temporary, old = beside(path, NEW), beside(path, OLD)
    with writing_beside(path):
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


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename a file to a new path. Raises TinyNNValueError if the new path exists, or OSError if the file cannot be
    renamed.
    """
    try:
        path.hardlink_to(temporary)  # unlike a rename, this call never replaces a file
    except FileExistsError:
        raise TinyNNValueError(f"another process has created {path} in the meantime; use another path") from None
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            raise TinyNNValueError(f"another process has created {path} in the meantime; use another path") from None
        temporary.rename(path)
    else:
        temporary.unlink()

"""Temporary names beside a path, and the removal of files and folders that killed processes have left under them.

A process that writes beside a path holds a shared lock on the parent folder. The lock ends with the process. So if a
process gets an exclusive lock, all temporary names of the path belong to processes that were killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

NEW, OLD = ".tmp", ".old"  # prefixes of a file or folder that is being written, and of a folder that is being replaced
_TRIES, _PAUSE = 200, 0.01  # while another process holds the lock: number of attempts, seconds between attempts


def beside(path: Path, prefix: str) -> Path:
    """Return an unused path in the parent folder of `path`.

    The name has a random part, because processes in different containers can have the same process id.
    """
    return path.with_name(f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


@contextlib.contextmanager
def writing_beside(path: Path) -> Iterator[None]:
    """Guard a block that uses names from `beside`. Remove what killed processes have left beside the same path.

    A process that replaces a folder moves the old folder away, and then moves the new folder to `path`. If the process
    was killed between these two moves, `path` does not exist, and both folders are complete. In this case, they are
    removed only after the block has created `path`.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # if the parent folder does not exist, the with block raises the error
        yield
        return
    try:
        _remove_remains(path, parent)
        for _ in range(_TRIES):
            if _lock(parent, fcntl.LOCK_SH):
                break
            time.sleep(_PAUSE)
        yield
        _remove_remains(path, parent)
    finally:
        os.close(parent)


def _remove_remains(path: Path, parent: int) -> None:
    """Remove the remains beside a path, if no other process is writing in its parent folder."""
    name = re.compile(rf"({re.escape(NEW)}|{re.escape(OLD)})-\d+-[0-9a-f]{{8}}-{re.escape(path.name)}")
    try:
        found = [Path(entry.path) for entry in os.scandir(path.parent) if name.fullmatch(entry.name)]
        is_complete = path.exists() or not any(place.name.startswith(OLD) for place in found)
    except OSError:
        return
    if not found or not is_complete or not _lock(parent, fcntl.LOCK_EX):
        return
    for place in found:
        with contextlib.suppress(OSError):  # files of another user cannot be removed, and stay
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()


def _lock(folder: int, kind: int) -> bool:
    """Lock an open folder and return True, or return False if a lock of another process prevents it."""
    try:
        fcntl.flock(folder, kind | fcntl.LOCK_NB)
    except OSError:  # another process has the lock, or the file system has no locks
        return False
    return True

"""Create a folder of files that only one process fills. The last file marks the folder as complete.

The files are first written into a subfolder of the new folder. The subfolder also contains a lock file. When all files
are complete, they are moved into the new folder, one after another. If the process is killed, the subfolder stays and
shows that the folder is not finished: the next process that locks it removes the remaining files and starts again.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from toynn.errors import TinyNNValueError
from toynn.storage.durable_files import make_folder, sync
from toynn.storage.regular_files import naming_file, open_regular_to_append

UNFINISHED = ".unfinished"
_LOCK = ".lock"
_TRIES = 20  # number of attempts to lock a folder that other processes may be removing or completing


@contextlib.contextmanager
def new_folder(name: str, path: Path, files: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder into which the block writes `files`. After the block, the files are moved to `path`.

    Only one process at a time writes `path`. The last of `files` is moved after the other files are on the disk. After
    an error here or in the block, all files and folders that this function has created are removed, and no others.

    name: the name of the argument that contains the path, for messages.

    Raises TinyNNValueError if `path` exists and is not an empty folder, or if another process is filling it. Raises
    OSError if a file cannot be written.
    """
    made, lock = _locked(name, path, files)
    work = path / UNFINISHED
    moved: list[Path] = []
    try:
        _remove_remains(path, files)
        yield work
        with naming_file(path):
            for file in files:
                sync(work / file)
            sync(work)
            for file in files:
                if file == files[-1]:
                    sync(path)
                if os.path.lexists(path / file):
                    raise TinyNNValueError(
                        f"{name}: another program has created {path / file} while toynn wrote this folder; use "
                        "another path"
                    )
                (work / file).rename(path / file)
                moved.append(path / file)
            sync(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in [str(work / file) for file in files]:
            # the error must name the user's path, not the temporary path
            error.filename = str(path / Path(error.filename).name)
        for place in (*moved, *(work / file for file in files)):
            with contextlib.suppress(OSError):
                place.unlink()
        _unlock(work, lock)
        for folder in made:
            with contextlib.suppress(OSError):  # another process has written into the folder
                folder.rmdir()
        raise
    _unlock(work, lock)


def _locked(name: str, path: Path, files: Sequence[str]) -> tuple[list[Path], BinaryIO]:
    """Create the folder and lock it. Return the folders that were created, the innermost first, and the lock file."""
    made: list[Path] = []
    for _ in range(_TRIES):
        _refuse_used(name, path, files)
        made = made or make_folder(path)
        work = path / UNFINISHED
        try:
            work.mkdir(exist_ok=True)
            lock = open_regular_to_append(work / _LOCK)
        except FileNotFoundError:  # another process created this folder and has just removed it
            made = []
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock.fileno()), (work / _LOCK).stat()):
                _refuse_used(name, path, files)
                return made, lock
        except BlockingIOError:
            lock.close()
            raise TinyNNValueError(
                f"{name}: another process is writing {path}; wait until it has finished, or use another path"
            ) from None
        except FileNotFoundError:
            pass
        except BaseException:
            lock.close()
            raise
        lock.close()
    raise TinyNNValueError(
        f"{name}: other processes are writing {path}; wait until they have finished, or use another path"
    )


def _unlock(work: Path, lock: BinaryIO) -> None:
    """Remove the lock file and its folder, and release the lock."""
    with contextlib.suppress(OSError):
        (work / _LOCK).unlink()
        work.rmdir()
    lock.close()


def _refuse_used(name: str, path: Path, files: Sequence[str]) -> None:
    """Raise TinyNNValueError if the path exists, unless it is an empty folder or the remains of a killed process."""
    if not path.exists():
        return
    if path.is_dir():
        found = {entry.name for entry in path.iterdir()}
        unfinished = UNFINISHED in found and found <= {UNFINISHED, *files[:-1]}
        if not found or (unfinished and _is_ours(path / UNFINISHED, files)):
            return
    names = (Path(f"{path}-{n}") for n in itertools.count(2))
    free = next(one for one in names if not os.path.lexists(one))
    raise TinyNNValueError(f"{name}: {path} exists and is not an empty folder; use another path, like {free}")


def _is_ours(work: Path, files: Sequence[str]) -> bool:
    """Return whether the subfolder contains only files that this module writes.

    Also return True if another process has just removed the subfolder, because the caller then checks the folder again.
    """
    if work.is_symlink():
        return False
    try:
        with os.scandir(work) as entries:
            return all(entry.name in (_LOCK, *files) and entry.is_file(follow_symlinks=False) for entry in entries)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _remove_remains(path: Path, files: Sequence[str]) -> None:
    """Remove the files that a killed process left in a folder that this process has locked."""
    for file in files:
        (path / UNFINISHED / file).unlink(missing_ok=True)
    for file in files[:-1]:
        (path / file).unlink(missing_ok=True)

"""A run's folder: its checkpoints, of which `latest` names the last that is whole and `best` the best.

    RUN/latest, RUN/best          files that hold the name of a checkpoint
    RUN/checkpoints/step-00000100/
    RUN/run.toml, log.jsonl       of a training

A checkpoint is written under a temporary name, fsynced and renamed; only then does `latest` switch, by a rename too. A
process may die at any moment: what `latest` names is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from pathlib import Path
from types import TracebackType

from toynn._checks import whole
from toynn.checkpoint.folder import Checkpoint, TrainingState, read_folder, write_folder
from toynn.checkpoint.foreign import what_it_is
from toynn.checkpoint.meta import META
from toynn.durable_files import make_folder, replace_file, sync
from toynn.errors import SessionError, TinyNNValueError
from toynn.trained_model import TrainedModel

CHECKPOINTS, LATEST, BEST, LOCK = "checkpoints", "latest", "best", ".lock"
CONFIG, LOG = "run.toml", "log.jsonl"
_NAME = re.compile(r"^step-(\d{8,19})(?:-(\d{1,9}))?$")
_TEMPORARY = ".tmp-"


def _order(name: str) -> tuple[int, int]:
    """Sorts names of checkpoints: by step, then by which writing of that step it is."""
    match = _NAME.match(name)
    return (int(match[1]), int(match[2] or 0)) if match else (-1, -1)


def _free_name(checkpoints: Path, step: int) -> str:
    """The name of a step's checkpoint. One that is there already stays until it is no longer the latest."""
    name, again = f"step-{step:08d}", 0
    while (checkpoints / name).exists():
        again += 1
        name = f"step-{step:08d}-{again}"
    return name


class RunFolder:
    """A run that this process alone may write, until `close`.

    Makes the folder where there is none, and takes it away again when it is closed before anything was written.

    Raises TinyNNValueError where it holds something else than a run, SessionError where another process writes it,
    OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        _refuse_foreign(self.path)
        self._made = make_folder(self.path / CHECKPOINTS)
        self._lock = (self.path / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._lock.fileno()).st_ino != (self.path / LOCK).stat().st_ino:
                raise OSError("another process has just given the folder up")
        except OSError:
            self._lock.close()
            raise SessionError(f"{self.path} is being written by another process") from None
        for entry in (self.path / CHECKPOINTS).iterdir():
            if entry.name.startswith(_TEMPORARY):  # of a process that died
                shutil.rmtree(entry)

    def latest(self) -> Checkpoint | None:
        """The checkpoint that `latest` names, None where there is none yet. Raises TinyNNValueError: it is damaged."""
        return load_checkpoint(self.path) if (self.path / LATEST).exists() else None

    def named(self, name: str) -> Checkpoint:
        """One of its checkpoints. Raises TinyNNValueError: there is none of that name, or it is damaged."""
        names = checkpoint_names(self.path)
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "there is none at all"
            raise TinyNNValueError(f"{self.path} has no checkpoint {name!r:.60}; {there}")
        return read_folder(self.path / CHECKPOINTS / name)

    def go_back(self, name: str, best_step: int | None) -> None:
        """Makes an older checkpoint the latest one, and its best the best where that is there still. Raises OSError.

        Those after it stay, and are left alone by `keep` until the latest has come by them.
        """
        if (self.path / BEST).exists() and _order(_pointer(self.path, BEST)) > _order(name):
            best = [one for one in checkpoint_names(self.path) if _order(one)[0] == best_step]
            if best:
                replace_file(self.path / BEST, f"{best[-1]}\n".encode())
            else:
                (self.path / BEST).unlink()
        replace_file(self.path / LATEST, f"{name}\n".encode())

    @property
    def latest_path(self) -> Path:
        """The folder of the latest checkpoint. Raises TinyNNValueError where there is none."""
        return self.path / CHECKPOINTS / _pointer(self.path, LATEST)

    def save(self, step: int, model: TrainedModel, training: TrainingState | None, *, best: bool = False) -> Path:
        """Writes the checkpoint of a step and makes it the latest, and the best if it is. Raises OSError."""
        checkpoints = self.path / CHECKPOINTS
        place = checkpoints / _free_name(checkpoints, whole("step", step, 0, 2**62))
        temporary = checkpoints / f"{_TEMPORARY}{place.name}"
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(temporary)
        temporary.mkdir()
        try:
            write_folder(temporary, step, model, training)
            temporary.rename(place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(checkpoints)
        replace_file(self.path / LATEST, f"{place.name}\n".encode())
        if best:
            replace_file(self.path / BEST, f"{place.name}\n".encode())
        return place

    def keep(self, last: int, best: bool) -> None:
        """Removes all checkpoints up to the latest but the `last` ones of the highest steps, and the best if kept.

        Of a step that was written more than once the newest counts.
        """
        latest = _pointer(self.path, LATEST)
        names = [name for name in checkpoint_names(self.path) if _order(name) <= _order(latest)]
        newest = list({_order(name)[0]: name for name in names}.values())
        kept = {latest, *newest[-whole("last", last, 1) :]}
        if best and (self.path / BEST).exists():
            kept.add(_pointer(self.path, BEST))
        for name in names:
            if name not in kept:
                _remove(self.path / CHECKPOINTS / name)

    def close(self) -> None:
        """Lets others write. Twice is harmless."""
        if not self._lock.closed and self._made:
            self._give_up()
        self._lock.close()

    def _give_up(self) -> None:
        """Takes the folders away that were made for this run, if nothing was written into them."""
        if {entry.name for entry in self.path.iterdir()} != {CHECKPOINTS, LOCK} or any(
            (self.path / CHECKPOINTS).iterdir()
        ):
            return
        (self.path / LOCK).unlink()
        for folder in self._made:
            with contextlib.suppress(OSError):  # another has begun to write there
                folder.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_checkpoint(path: Path, which: str = LATEST) -> Checkpoint:
    """Reads and checks a checkpoint: of a run the "latest" or "best" one, or the one whose folder this is.

    Raises TinyNNValueError with the reason where there is none, or it is damaged or foreign.
    """
    path = Path(path)
    if which not in (LATEST, BEST):
        raise TinyNNValueError(f"which must be {LATEST!r} or {BEST!r}, got {which!r}")
    if (other := what_it_is(path)) is not None:
        raise TinyNNValueError(other)
    if not path.is_dir():
        raise TinyNNValueError(f"{path} is not a folder: a run or a checkpoint is needed")
    if (path / META).exists():
        return read_folder(path)
    if not (path / which).exists():
        raise TinyNNValueError(f"{path} is neither a run with a {which} checkpoint nor a checkpoint")
    name = _pointer(path, which)
    try:
        return read_folder(path / CHECKPOINTS / name)
    except TinyNNValueError as error:
        others = [str(path / CHECKPOINTS / other) for other in checkpoint_names(path) if other != name]
        hint = f"; there is also {', '.join(others[-3:])}" if others else ""
        raise TinyNNValueError(f"{error}{hint}") from None


def write_checkpoint(run: Path, model: TrainedModel, *, step: int = 0, training: TrainingState | None = None) -> Path:
    """Makes a run (or goes on with one) of a single checkpoint, and returns the checkpoint's folder.

    Raises TinyNNValueError where the folder holds something else than a run, SessionError where another process writes
    it, OSError.
    """
    with RunFolder(run) as folder:
        return folder.save(step, model, training)


def checkpoint_names(run: Path) -> list[str]:
    """Names of the whole checkpoints of a run, in the order of their steps."""
    folder = run / CHECKPOINTS
    names = [entry.name for entry in folder.iterdir() if _NAME.match(entry.name)] if folder.is_dir() else []
    return sorted(names, key=_order)


def other_checkpoints(run: Path) -> list[str]:
    """Names of the checkpoints beside the latest, in the order of their steps."""
    try:
        latest = _pointer(run, LATEST)
    except TinyNNValueError:
        latest = ""
    return [name for name in checkpoint_names(run) if name != latest]


def _pointer(run: Path, which: str) -> str:
    try:
        name = (run / which).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TinyNNValueError(f"{run / which} cannot be read: {error}") from None
    if not _NAME.match(name):
        raise TinyNNValueError(f"{run / which} is damaged: it holds {name!r:.60}, not the name of a checkpoint")
    return name


def _refuse_foreign(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise TinyNNValueError(f"{path} is there already and is not a folder")
    ours = (path / CHECKPOINTS).is_dir() or (path / LATEST).exists()
    if not ours and any(path.iterdir()):
        raise TinyNNValueError(f"{path} is there already and holds no run: name a new or an empty folder")


def _remove(checkpoint: Path) -> None:
    """Takes a checkpoint away, by a rename first: no half of it is ever seen under its name."""
    doomed = checkpoint.with_name(f"{_TEMPORARY}{os.getpid()}-{checkpoint.name}")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)

"""A run's folder: its checkpoints, of which `latest` names the last that is whole and `best` the best.

    RUN/latest, RUN/best          files that hold the name of a checkpoint
    RUN/checkpoints/step-00000100/
    RUN/run.toml, log.jsonl       of a training

A checkpoint is written under a temporary name, fsynced and renamed; only then do `best`, where it is the best, and
`latest` switch, by renames too. A process may die at any moment: what they name is whole. One that dies between the two
leaves a `best` that `latest` knows nothing of yet: `settle` puts it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from pathlib import Path
from types import TracebackType

from toynn.arguments import integer, one_of
from toynn.errors import SessionError, TinyNNTypeError, TinyNNValueError
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint.folder import Checkpoint, TrainingState, read_folder, write_folder
from toynn.storage.checkpoint.foreign import what_it_is
from toynn.storage.checkpoint.meta import META, read_checkpoint_meta
from toynn.storage.durable_files import make_folder, replace_file, sync
from toynn.storage.regular_files import naming_file, open_regular_to_append, path_of, read_regular

CHECKPOINTS, LATEST, BEST, LOCK = "checkpoints", "latest", "best", ".lock"
CONFIG, LOG = "run.toml", "log.jsonl"
_NAME = re.compile(r"^step-(\d{8,19})(?:-(\d{1,9}))?$")
_TEMPORARY = ".tmp-"
_LONGEST_POINTER = 4096  # bytes


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

    Raises TinyNNValueError where it holds something else than a run, TinyNNTypeError for what is no path, SessionError
    where another process writes it, OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path_of("path", path)
        _refuse_foreign(self.path)
        self._made = make_folder(self.path / CHECKPOINTS)
        self._lock = open_regular_to_append(self.path / LOCK)
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
        """One of its checkpoints. Raises as `named_checkpoint` does."""
        return named_checkpoint(self.path, name)

    def go_back(self, name: str, best_step: int | None) -> None:
        """Makes an older checkpoint the latest one, and its best the best where that is there still. Raises OSError.

        Those after it stay, and are left alone by `keep` until the latest has come by them.
        """
        if (self.path / BEST).exists() and not self._is_best_until(name):
            best = [one for one in checkpoint_names(self.path) if _order(one)[0] == best_step]
            if best:
                replace_file(self.path / BEST, f"{best[-1]}\n".encode())
            else:
                (self.path / BEST).unlink()
        replace_file(self.path / LATEST, f"{name}\n".encode())

    def _is_best_until(self, name: str) -> bool:
        """Does `best` name a checkpoint that is not after this one? False where it cannot be read."""
        try:
            return _order(_pointer(self.path, BEST)) <= _order(name)
        except TinyNNValueError:
            return False

    def before_latest(self) -> str | None:
        """The newest checkpoint before the latest, or of all where `latest` cannot be read; None: there is none."""
        names = checkpoint_names(self.path)
        try:
            latest = _order(_pointer(self.path, LATEST))
            names = [name for name in names if _order(name) < latest]
        except TinyNNValueError:
            pass
        return names[-1] if names else None

    @property
    def latest_path(self) -> Path:
        """The folder of the latest checkpoint. Raises TinyNNValueError where there is none."""
        return self.path / CHECKPOINTS / _pointer(self.path, LATEST)

    def save(self, step: int, model: TrainedModel, training: TrainingState | None, *, best: bool = False) -> Path:
        """Writes the checkpoint of a step and makes it the latest, and the best if it is.

        Raises TinyNNTypeError or TinyNNValueError for an argument, SessionError after `close` or where somebody took
        the folder away, OSError.
        """
        self._require_open()
        step = integer("step", step, 0, 2**62)
        if not isinstance(model, TrainedModel):
            raise TinyNNTypeError(f"model must be a TrainedModel, got {type(model).__name__}")
        if not isinstance(training, TrainingState | None):
            raise TinyNNTypeError(f"training must be a TrainingState or None, got {type(training).__name__}")
        checkpoints = self.path / CHECKPOINTS
        if not checkpoints.is_dir():
            raise SessionError(f"{checkpoints} is gone: somebody removed it while the run was written")
        place = checkpoints / _free_name(checkpoints, step)
        try:
            with naming_file(place):
                self._write(place, step, model, training)
        except FileNotFoundError:
            raise SessionError(f"{checkpoints} is gone: somebody removed it while the run was written") from None
        name = f"{place.name}\n".encode()
        for pointer in (BEST, LATEST) if best else (LATEST,):
            with naming_file(self.path / pointer):
                replace_file(self.path / pointer, name)
        return place

    def _write(self, place: Path, step: int, model: TrainedModel, training: TrainingState | None) -> None:
        checkpoints = place.parent
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

    def settle(self, best_step: int | None) -> None:
        """Makes `best` name the checkpoint of best_step, which is what the latest one knows to be the best.

        A process that died between the renames of `best` and `latest` left another. Where no checkpoint of that step is
        there, `best` stays what it is. Raises SessionError after `close`, OSError.
        """
        self._require_open()
        pointer = self.path / BEST
        if best_step is None:
            pointer.unlink(missing_ok=True)
            return
        with contextlib.suppress(TinyNNValueError):  # damaged, or not there: written anew
            if _order(_pointer(self.path, BEST))[0] == best_step:
                return
        names = [name for name in checkpoint_names(self.path) if _order(name)[0] == best_step]
        if names:
            replace_file(pointer, f"{names[-1]}\n".encode())

    def keep(self, last: int, best: bool) -> None:
        """Removes all checkpoints up to the latest but the `last` ones of the highest steps, and the best if kept.

        Of a step that was written more than once the newest counts. Raises SessionError after `close`, TinyNNValueError
        where `latest` or `best` is damaged, OSError.
        """
        self._require_open()
        latest = _pointer(self.path, LATEST)
        names = [name for name in checkpoint_names(self.path) if _order(name) <= _order(latest)]
        newest = list({_order(name)[0]: name for name in names}.values())
        kept = {latest, *newest[-integer("last", last, 1) :]}
        if (self.path / BEST).exists():
            name = _pointer(self.path, BEST)
            if best:
                kept.add(name)
            elif name not in kept:
                (self.path / BEST).unlink()  # it would name nothing
        for name in names:
            if name not in kept:
                _remove(self.path / CHECKPOINTS / name)

    def close(self) -> None:
        """Lets others write. Twice is harmless."""
        if not self._lock.closed and self._made:
            self._give_up()
        self._lock.close()

    def _require_open(self) -> None:
        if self._lock.closed:
            raise SessionError(f"the run {self.path} is closed: another process may be writing it")

    def _give_up(self) -> None:
        """Takes the folders away that were made for this run, if nothing was written into them."""
        try:
            found = {entry.name for entry in self.path.iterdir()}
            empty = found == {CHECKPOINTS, LOCK} and not any((self.path / CHECKPOINTS).iterdir())
        except FileNotFoundError:  # somebody else took them away
            return
        if not empty:
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

    Raises TinyNNValueError with the reason where there is none, or it is damaged or foreign; TinyNNTypeError for what
    is no path.
    """
    path = path_of("path", path)
    one_of("which", which, (LATEST, BEST))
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


def named_checkpoint(run: Path, name: str) -> Checkpoint:
    """One of a run's checkpoints. Raises TinyNNValueError: there is none of that name, or it is damaged."""
    names = checkpoint_names(run)
    if name not in names:
        there = f"there are {', '.join(names)}" if names else "there is none at all"
        raise TinyNNValueError(f"{run} has no checkpoint {name!r:.60}; {there}")
    return read_folder(run / CHECKPOINTS / name)


def write_checkpoint(run: Path, model: TrainedModel, *, step: int = 0, training: TrainingState | None = None) -> Path:
    """Makes a run (or goes on with one) of a single checkpoint, and returns the checkpoint's folder.

    Raises TinyNNValueError where the folder holds something else than a run, or where it holds a training and the model
    comes without one: the run's best model would be another one's, and its training could not go on. SessionError where
    another process writes it, OSError.
    """
    with RunFolder(run) as folder:
        if training is None and (found := _training_in(folder.path)) is not None:
            raise TinyNNValueError(
                f"{folder.path} holds a training ({found}), and another model in it would take its place; "
                "name a new folder"
            )
        return folder.save(step, model, training)


def checkpoint_names(run: Path) -> list[str]:
    """Names of the whole checkpoints of a run, in the order of their steps."""
    folder = run / CHECKPOINTS
    names = [entry.name for entry in folder.iterdir() if _NAME.match(entry.name)] if folder.is_dir() else []
    return sorted(names, key=_order)


def _pointer(run: Path, which: str) -> str:
    try:
        name = read_regular(run / which, _LONGEST_POINTER).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TinyNNValueError(f"{run / which} cannot be read: {error}") from None
    if not _NAME.match(name):
        raise TinyNNValueError(f"{run / which} is damaged: it holds {name!r:.60}, not the name of a checkpoint")
    return name


def _training_in(run: Path) -> str | None:
    """What tells that a run was trained, or is; None where nothing does."""
    for name in (LOG, BEST):
        if (run / name).exists():
            return name
    names = checkpoint_names(run)
    return next((name for name in names if _trained(run / CHECKPOINTS / name)), None)


def _trained(checkpoint: Path) -> bool:
    try:
        return read_checkpoint_meta(checkpoint).training is not None
    except TinyNNValueError:  # damaged: nobody can say
        return True


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

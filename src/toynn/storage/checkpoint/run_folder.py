"""The folder of a run, with its checkpoints.

    RUN/latest, RUN/best          files with the name of the last and of the best checkpoint
    RUN/checkpoints/step-00000100/
    RUN/run.toml, log.jsonl       configuration and log of the training

A checkpoint is written under a temporary name, synced and renamed. Then `best`, if the checkpoint is the best, and
`latest` are replaced, also by renames. The process may die at any moment, and the computer may lose its power: `latest`
and `best` name complete checkpoints. If this happens between the two renames, `best` is newer than `latest`; `settle`
corrects that.

After a power loss, changes of a folder that was not synced may be missing in any combination. So a folder is synced
before anything is done that relies on its names: `latest` never names a checkpoint whose name is not on the disk, and
no file of an old checkpoint is removed before its new name and the pointers that named it are.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from pathlib import Path
from types import TracebackType

from toynn.arguments import boolean, integer, one_of, text
from toynn.errors import FileFormatError, RunFolderError, TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint.folder import Checkpoint, CheckpointRemovedError, TrainingState, read_folder, write_folder
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
    """Return the sort key of a checkpoint: the step, then the number of times that this step was written before."""
    match = _NAME.match(name)
    return (int(match[1]), int(match[2] or 0)) if match else (-1, -1)


def _free_name(checkpoints: Path, step: int) -> str:
    """Return an unused name for the checkpoint of a step. An existing one stays until it is no longer the latest."""
    name, repeats = f"step-{step:08d}", 0
    while (checkpoints / name).exists():
        repeats += 1
        name = f"step-{step:08d}-{repeats}"
    return name


class RunFolder(Initialised):
    """A run folder that only this process may write, until `close`.

    The folder is made if needed, and removed by `close` if nothing was written.

    Raises TinyNNTypeError or TinyNNValueError for an invalid path, and for a folder that is not a run; RunFolderError
    if another process is writing the run; OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path_of("path", path)
        _refuse_foreign(self.path)
        self._made = make_folder(self.path / CHECKPOINTS)
        self._lock = open_regular_to_append(self.path / LOCK)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._lock.fileno()).st_ino != (self.path / LOCK).stat().st_ino:
                raise OSError("another process has just removed the folder")
        except OSError:
            self._lock.close()
            raise RunFolderError(
                f"{self.path} is being written by another process: wait for its end, or use another folder"
            ) from None
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        """Remove what a killed process left. Other processes may be writing other temporary files, like a report."""
        for entry in (self.path / CHECKPOINTS).iterdir():
            if entry.name.startswith(_TEMPORARY):
                shutil.rmtree(entry)
        for entry in self.path.iterdir():
            if entry.name.startswith(_TEMPORARY) and entry.name.endswith((f"-{LATEST}", f"-{BEST}", f"-{CONFIG}")):
                entry.unlink()

    def latest(self) -> Checkpoint | None:
        """Return the latest checkpoint, or None before the first one. Raises FileFormatError if it is damaged."""
        return load_checkpoint(self.path) if (self.path / LATEST).exists() else None

    def named(self, name: str) -> Checkpoint:
        """Return the checkpoint with that name. Raises as `named_checkpoint`."""
        return named_checkpoint(self.path, name)

    def go_back(self, name: str, best_step: int | None) -> None:
        """Make an older checkpoint the latest one.

        `best` then names the checkpoint that was the best at that time, if it still exists. Newer checkpoints stay;
        `keep` removes them when the latest checkpoint has passed their step.

        Raises TinyNNTypeError or TinyNNValueError for a name without a checkpoint, RunFolderError after `close`,
        OSError.
        """
        self._require_open()
        _require_checkpoint(self.path, name)
        if (self.path / BEST).exists() and not self._is_best_until(name):
            best = [other for other in checkpoint_names(self.path) if _order(other)[0] == best_step]
            if best:
                replace_file(self.path / BEST, f"{best[-1]}\n".encode())
            else:
                self._remove_best()
        replace_file(self.path / LATEST, f"{name}\n".encode())

    def _is_best_until(self, name: str) -> bool:
        """Return whether `best` names this checkpoint or an older one; False if it cannot be read."""
        try:
            return _order(_pointer(self.path, BEST)) <= _order(name)
        except FileFormatError:
            return False

    def before_latest(self) -> str | None:
        """Return the name of the newest checkpoint that is older than the latest one, or None.

        If `latest` cannot be read, return the name of the newest checkpoint.
        """
        names = checkpoint_names(self.path)
        try:
            latest = _order(_pointer(self.path, LATEST))
            names = [name for name in names if _order(name) < latest]
        except FileFormatError:
            pass
        return names[-1] if names else None

    @property
    def latest_path(self) -> Path:
        """The folder of the latest checkpoint. Raises FileFormatError if there is none."""
        return self.path / CHECKPOINTS / _pointer(self.path, LATEST)

    def save(self, step: int, model: TrainedModel, training: TrainingState | None, *, best: bool = False) -> Path:
        """Write the checkpoint of a step, make it the latest (and the best if `best`), and return its folder.

        Raises TinyNNTypeError or TinyNNValueError for an argument, RunFolderError after `close` or if the folder was
        removed, OSError.
        """
        self._require_open()
        step = integer("step", step, 0, 2**62)
        if not isinstance(model, TrainedModel):
            raise TinyNNTypeError(f"model must be a TrainedModel, got {type(model).__name__}")
        if not isinstance(training, TrainingState | None):
            raise TinyNNTypeError(f"training must be a TrainingState or None, got {type(training).__name__}")
        checkpoints = self.path / CHECKPOINTS
        if not checkpoints.is_dir():
            raise RunFolderError(f"{checkpoints} was removed while the run was being written")
        place = checkpoints / _free_name(checkpoints, step)
        try:
            with naming_file(place):
                self._write(place, step, model, training)
        except FileNotFoundError:
            raise RunFolderError(f"{checkpoints} was removed while the run was being written") from None
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
        """Make `best` name the checkpoint of best_step, the best one according to the latest checkpoint.

        It may name a newer one if a process died between the renames of `best` and `latest`. It does not change if
        there is no checkpoint of that step. Raises RunFolderError after `close`, OSError.
        """
        self._require_open()
        pointer = self.path / BEST
        if best_step is None:
            self._remove_best()
            return
        with contextlib.suppress(FileFormatError):  # if it is damaged or missing, it is replaced
            if _order(_pointer(self.path, BEST))[0] == best_step:
                return
        names = [name for name in checkpoint_names(self.path) if _order(name)[0] == best_step]
        if names:
            replace_file(pointer, f"{names[-1]}\n".encode())

    def keep(self, last: int, best: bool) -> None:
        """Remove old checkpoints: keep those of the `last` highest steps, and the best one if `best`.

        Checkpoints newer than the latest stay. If a step was written more than once, only the newest of these is kept.
        Raises RunFolderError after `close`, FileFormatError if `latest` or `best` is damaged, OSError.
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
                self._remove_best()  # before its checkpoint is removed
        _remove(self.path / CHECKPOINTS, [name for name in names if name not in kept])

    def _remove_best(self) -> None:
        (self.path / BEST).unlink(missing_ok=True)
        sync(self.path)

    def close(self) -> None:
        """Allow other processes to write the run. A second call does nothing."""
        if not self._lock.closed and self._made:
            self._remove_unused()
        self._lock.close()

    def _require_open(self) -> None:
        if self._lock.closed:
            raise RunFolderError(f"the run {self.path} is closed: another process may be writing it")

    def _remove_unused(self) -> None:
        """Remove the folders that were made for this run, if nothing was written into them."""
        try:
            found = {entry.name for entry in self.path.iterdir()}
            empty = found == {CHECKPOINTS, LOCK} and not any((self.path / CHECKPOINTS).iterdir())
        except FileNotFoundError:  # they were removed by another process
            return
        if not empty:
            return
        (self.path / LOCK).unlink()
        for folder in self._made:
            with contextlib.suppress(OSError):  # another process writes there
                folder.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_checkpoint(path: Path, which: str = LATEST) -> Checkpoint:
    """Read and check a checkpoint. path: its folder, or a run, of which `which` selects the "latest" or "best" one.

    A run may be read while it trains: if its checkpoint was removed meanwhile, the one that replaced it is read.

    Raises FileFormatError with the reason if there is no checkpoint, or it is damaged or of a newer version;
    TinyNNTypeError or TinyNNValueError for an invalid path.
    """
    path = path_of("path", path)
    one_of("which", which, (LATEST, BEST))
    if (other := what_it_is(path)) is not None:
        raise FileFormatError(other)
    if not path.is_dir():
        raise FileFormatError(f"{path} must be the folder of a run or of a checkpoint, but it is not a folder")
    if (path / META).exists():
        return read_folder(path)
    read = None
    while True:
        if not (path / which).exists():
            raise FileFormatError(f"{path} is neither a run with a {which} checkpoint nor a checkpoint")
        name = _pointer(path, which)
        place = path / CHECKPOINTS / name
        if name == read and not place.exists():
            raise FileFormatError(f"{path / which} is damaged: it names {name}, which does not exist{_others(path)}")
        read = name
        try:
            return read_folder(place)
        except CheckpointRemovedError:
            continue  # a run removes a checkpoint only after `latest` and `best` name others
        except FileFormatError as error:
            if place.exists():
                raise FileFormatError(f"{error}{_others(path, name)}") from None


def _others(run: Path, name: str = "") -> str:
    """Return the end of a message, which lists the newest checkpoints besides the one with that name."""
    others = [str(run / CHECKPOINTS / other) for other in checkpoint_names(run) if other != name]
    return f"; other checkpoints: {', '.join(others[-3:])}" if others else ""


def named_checkpoint(run: Path, name: str) -> Checkpoint:
    """Read one checkpoint of a run. Raises TinyNNValueError for an unknown name, FileFormatError if it is damaged."""
    _require_checkpoint(run, name)
    return read_folder(run / CHECKPOINTS / name)


def _require_checkpoint(run: Path, name: str) -> None:
    names = checkpoint_names(run)
    if text("name", name) not in names:
        there = f"its checkpoints are {', '.join(names)}" if names else "it has no checkpoints"
        raise TinyNNValueError(f"{run} has no checkpoint {name!r:.60}; {there}")


def write_checkpoint(
    run: Path, model: TrainedModel, *, step: int = 0, training: TrainingState | None = None, replace: bool = False
) -> Path:
    """Write a checkpoint into a run, which is made if needed, and return the checkpoint's folder.

    replace: remove the checkpoints that the run already has of this step, when the new one is complete and the latest.
        The name of its folder then differs from theirs: step-00000000-1 after step-00000000.

    Raises TinyNNValueError if the folder is not a run; if it has a checkpoint of this step already and `replace` is
    false; if it is a run that was trained and `training` is None: then `best` would name another model, and the
    training could not be resumed. RunFolderError if another process is writing the run. OSError.
    """
    step, replace = integer("step", step, 0, 2**62), boolean("replace", replace)
    with RunFolder(run) as folder:
        if training is None and (found := _training_in(folder.path)) is not None:
            raise TinyNNValueError(
                f"{folder.path} is a run that was trained (it has {found}); write another model to a new folder"
            )
        same = [name for name in checkpoint_names(folder.path) if _order(name)[0] == step]
        if same and not replace:
            raise TinyNNValueError(
                f"{folder.path} already has a checkpoint of step {step}, {same[-1]}; write to another folder or as "
                "another step, or pass replace=True"
            )
        place = folder.save(step, model, training)
        _remove(folder.path / CHECKPOINTS, same)
        return place


def checkpoint_names(run: Path) -> list[str]:
    """Return the names of the complete checkpoints of a run, ordered by step."""
    folder = run / CHECKPOINTS
    names = [entry.name for entry in folder.iterdir() if _NAME.match(entry.name)] if folder.is_dir() else []
    return sorted(names, key=_order)


def _pointer(run: Path, which: str) -> str:
    try:
        name = read_regular(run / which, _LONGEST_POINTER).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{run / which} cannot be read: {error}") from None
    if not _NAME.match(name):
        raise FileFormatError(f"{run / which} is damaged: it must have the name of a checkpoint, got {name!r:.60}")
    return name


def _training_in(run: Path) -> str | None:
    """Return the name of a file or checkpoint that shows that the run was trained; None if there is none."""
    for name in (LOG, BEST):
        if (run / name).exists():
            return name
    names = checkpoint_names(run)
    return next((name for name in names if _trained(run / CHECKPOINTS / name)), None)


def _trained(checkpoint: Path) -> bool:
    try:
        return read_checkpoint_meta(checkpoint).training is not None
    except FileFormatError:  # a damaged checkpoint may come from training
        return True


def _refuse_foreign(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise TinyNNValueError(f"{path} is a link to {path.readlink()}, which does not exist; use another name")
    if not path.exists():
        return
    if not path.is_dir():
        raise TinyNNValueError(f"{path} exists and is not a folder; use another name")
    ours = (path / CHECKPOINTS).is_dir() or (path / LATEST).exists()
    if not ours and any(path.iterdir()):
        raise TinyNNValueError(f"{path} exists and is not a run; use a new or an empty folder")


def _remove(checkpoints: Path, names: list[str]) -> None:
    """Remove checkpoints. They are renamed first, so that no incomplete checkpoint is ever seen under its name."""
    removed = [(checkpoints / name, checkpoints / f"{_TEMPORARY}{os.getpid()}-{name}") for name in names]
    for checkpoint, temporary in removed:
        checkpoint.rename(temporary)
    if removed:
        sync(checkpoints)
    for _, temporary in removed:
        shutil.rmtree(temporary)

"""The folder of a run, with its checkpoints.

    RUN/latest, RUN/best            files that contain the name of the latest and of the best checkpoint
    RUN/checkpoints/step-00000100/  a checkpoint
    RUN/run.toml, log.jsonl         configuration and log of the training

A checkpoint is written under a temporary name, synced and renamed. Then the file `latest` is replaced, also by a
rename. If the checkpoint is the best one, `best` is replaced before `latest`. So even if the process is killed or the
computer loses power at any time, `latest` and `best` name complete checkpoints. If this happens between the two
renames, `best` is newer than `latest`, and `settle` corrects this later.

After a power loss, any of the last changes to a folder may be missing, unless the folder was synced. Therefore the
folder of checkpoints is synced before `latest` names a new checkpoint. It is also synced after an old checkpoint was
renamed and before its files are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType

from toynn.arguments import boolean, integer
from toynn.errors import FileFormatError, RunFolderError, TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.model_on_base import AnyModel, ModelOnBase
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint.folder import Checkpoint, TrainingState, write_folder
from toynn.storage.checkpoint.meta import read_checkpoint_meta
from toynn.storage.checkpoint.names import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    LATEST,
    LOCK,
    LOG,
    NUMBERS,
    REFERENCE,
    checkpoint_names,
    free_name,
    order,
    pointed,
)
from toynn.storage.checkpoint.reading import load_checkpoint, named_checkpoint, require_checkpoint
from toynn.storage.durable_files import make_folder, replace_file, sync
from toynn.storage.regular_files import naming_file, open_regular_to_append, path_of
from toynn.storage.tensor_files import Tensors

_TEMPORARY = ".tmp-"
# The suffixes of temporary files that only a process with the lock writes.
_WITH_LOCK = tuple(f"-{name}" for name in (LATEST, BEST, CONFIG, REFERENCE, NUMBERS))


class RunReader(Initialised):
    """The folder of a run, which another process may be writing."""

    def __init__(self, path: Path) -> None:
        self.path = path_of("path", path)
        _refuse_foreign(self.path)

    def latest(self) -> Checkpoint | None:
        """Return the latest checkpoint, or None if the run has none. Raises FileFormatError if it is damaged."""
        return load_checkpoint(self.path) if (self.path / LATEST).exists() else None

    def named(self, name: str) -> Checkpoint:
        """Return the checkpoint with this name. Raises the errors of `named_checkpoint`."""
        return named_checkpoint(self.path, name)

    def before_latest(self) -> str | None:
        """Return the name of the newest checkpoint that is older than the latest one, or None.

        If `latest` is damaged, return the newest of all checkpoints.
        """
        names = checkpoint_names(self.path)
        try:
            latest = order(pointed(self.path, LATEST))
            names = [name for name in names if order(name) < latest]
        except FileFormatError:
            pass
        return names[-1] if names else None

    @property
    def latest_path(self) -> Path:
        """The folder of the latest checkpoint. Raises FileFormatError if there is none."""
        return self.path / CHECKPOINTS / pointed(self.path, LATEST)


class RunFolder(RunReader):
    """The folder of a run, locked so that no other process writes it until `close`.

    The folder is created if it does not exist. If nothing was written into it, `close` removes it again.

    Raises TinyNNTypeError or TinyNNValueError for an invalid path or a folder that is not a run; RunFolderError if
    another process is writing the run; or OSError if the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._made = make_folder(self.path / CHECKPOINTS)
        self._lock = open_regular_to_append(self.path / LOCK)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._lock.fileno()).st_ino != (self.path / LOCK).stat().st_ino:
                raise OSError("another process has just removed the folder; try again")
        except OSError:
            self._lock.close()
            raise RunFolderError(
                f"{self.path} is being written by another process; wait until it has finished, or use another folder"
            ) from None
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        """Remove the temporary files of a killed process. Keep the files that are written without the lock, for example
        those of a report.
        """
        for entry in (self.path / CHECKPOINTS).iterdir():
            if entry.name.startswith(_TEMPORARY):
                shutil.rmtree(entry)
        for entry in self.path.iterdir():
            if entry.name.startswith(_TEMPORARY) and entry.name.endswith(_WITH_LOCK):
                entry.unlink()

    def go_back(self, name: str, best_step: int | None) -> None:
        """Make an older checkpoint the latest one.

        best_step: the step that was the best one at the time of this checkpoint. If the run still has a checkpoint of
        best_step, that checkpoint becomes the best one. Newer checkpoints are not removed now, but by `keep` after the
        run has passed their step.

        Raises TinyNNTypeError or TinyNNValueError if there is no checkpoint with this name; RunFolderError after
        `close`; or OSError if a file cannot be written.
        """
        self._require_open()
        require_checkpoint(self.path, name)
        if (self.path / BEST).exists() and not self._is_best_until(name):
            best = [other for other in checkpoint_names(self.path) if order(other)[0] == best_step]
            if best:
                replace_file(self.path / BEST, f"{best[-1]}\n".encode())
            else:
                self._remove_best()
        replace_file(self.path / LATEST, f"{name}\n".encode())

    def _is_best_until(self, name: str) -> bool:
        """Return whether `best` names this checkpoint or an older one. Return False if `best` cannot be read."""
        try:
            return order(pointed(self.path, BEST)) <= order(name)
        except FileFormatError:
            return False

    def save(
        self,
        step: int,
        model: AnyModel,
        training: TrainingState | None,
        *,
        best: bool = False,
        weights: Tensors | None = None,
    ) -> Path:
        """Write the checkpoint of a step, make it the latest one, and return its folder.

        best: also make it the best checkpoint. weights: all weights of the model, if `model` is a ModelOnBase but the
            checkpoint must contain the weights.

        Raises TinyNNTypeError or TinyNNValueError for a wrong argument; RunFolderError after `close`, or if another
        process has removed the folder; or OSError if a file cannot be written.
        """
        self._require_open()
        step = integer("step", step, 0, 2**62)
        if not isinstance(model, TrainedModel | ModelOnBase):
            raise TinyNNTypeError(f"model must be a TrainedModel or a ModelOnBase, got {type(model).__name__}")
        if not isinstance(training, TrainingState | None):
            raise TinyNNTypeError(f"training must be a TrainingState or None, got {type(training).__name__}")
        checkpoints = self.path / CHECKPOINTS
        try:
            place = checkpoints / free_name(checkpoints, step)
            with naming_file(place):
                self._write(place, step, model, training, weights)
        except (FileNotFoundError, NotADirectoryError):
            raise RunFolderError(f"another process has removed {checkpoints}; use another folder") from None
        name = f"{place.name}\n".encode()
        for pointer in (BEST, LATEST) if best else (LATEST,):
            with naming_file(self.path / pointer):
                replace_file(self.path / pointer, name)
        return place

    def _write(
        self, place: Path, step: int, model: AnyModel, training: TrainingState | None, weights: Tensors | None
    ) -> None:
        checkpoints = place.parent
        temporary = checkpoints / f"{_TEMPORARY}{place.name}"
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(temporary)
        temporary.mkdir()
        try:
            write_folder(temporary, step, model, training, weights)
            temporary.rename(place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(checkpoints)

    def settle(self, best_step: int | None) -> None:
        """Make `best` name the checkpoint of best_step, which is the best step according to the latest checkpoint.

        `best` may name a newer checkpoint if a process was killed between the renames of `best` and `latest`. If
        best_step has no checkpoint, `best` stays as it is. Raises RunFolderError after `close`, or OSError if a file
        cannot be written.
        """
        self._require_open()
        pointer = self.path / BEST
        if best_step is None:
            self._remove_best()
            return
        with contextlib.suppress(FileFormatError):  # a damaged or missing `best` is replaced
            if order(pointed(self.path, BEST))[0] == best_step:
                return
        names = [name for name in checkpoint_names(self.path) if order(name)[0] == best_step]
        if names:
            replace_file(pointer, f"{names[-1]}\n".encode())

    def keep(self, last: int, best: bool) -> None:
        """Remove old checkpoints. Keep the checkpoints of the `last` highest steps, and also the best checkpoint if
        `best` is true.

        Checkpoints that are newer than the latest one are not removed. If a step has several checkpoints, only the
        newest of them is kept. Raises RunFolderError after `close`; FileFormatError if `latest` or `best` is damaged;
        or OSError if a file cannot be removed.
        """
        self._require_open()
        latest = pointed(self.path, LATEST)
        names = [name for name in checkpoint_names(self.path) if order(name) <= order(latest)]
        newest = list({order(name)[0]: name for name in names}.values())
        kept = {latest, *newest[-integer("last", last, 1) :]}
        if (self.path / BEST).exists():
            name = pointed(self.path, BEST)
            if best:
                kept.add(name)
            elif name not in kept:
                self._remove_best()  # `best` must not name a checkpoint that no longer exists
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
            raise RunFolderError(f"the run {self.path} was closed and cannot be written; open it again")

    def _remove_unused(self) -> None:
        """Remove the folders that this object has created, if nothing was written into them."""
        try:
            found = {entry.name for entry in self.path.iterdir()}
            empty = found == {CHECKPOINTS, LOCK} and not any((self.path / CHECKPOINTS).iterdir())
        except FileNotFoundError:  # another process has removed the folders
            return
        if not empty:
            return
        (self.path / LOCK).unlink()
        for folder in self._made:
            with contextlib.suppress(OSError):  # another process has written into the folder
                folder.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_checkpoint(
    run: Path,
    model: AnyModel,
    *,
    step: int = 0,
    training: TrainingState | None = None,
    replace: bool = False,
    weights: Tensors | None = None,
) -> Path:
    """Write a checkpoint into the folder of a run, and return the folder of the checkpoint.

    The run is created if it does not exist. replace: if the run already has checkpoints of this step, remove them after
    the new one is complete. The folder of the new checkpoint then has another name, for example step-00000000-1.
    weights: as for `RunFolder.save`.

    Raises TinyNNValueError if the folder is not a run, or if it has a checkpoint of this step and `replace` is false.
    It is also raised if the run was trained and `training` is None, because the run could not be resumed afterwards.
    Raises RunFolderError if another process is writing the run, or OSError if a file cannot be written.
    """
    step, replace = integer("step", step, 0, 2**62), boolean("replace", replace)
    with RunFolder(run) as folder:
        if training is None and (found := _training_in(folder.path)) is not None:
            raise TinyNNValueError(
                f"{folder.path} is a run that was trained (it contains {found}); write the model to a new folder"
            )
        same = [name for name in checkpoint_names(folder.path) if order(name)[0] == step]
        if same and not replace:
            raise TinyNNValueError(
                f"{folder.path} already has a checkpoint of step {step} ({same[-1]}); use another folder or another "
                "step, or pass replace=True"
            )
        place = folder.save(step, model, training, weights=weights)
        _remove(folder.path / CHECKPOINTS, same)
        return place


def _training_in(run: Path) -> str | None:
    """Return the name of a file or checkpoint that only a trained run has, or None if the run was not trained."""
    for name in (LOG, BEST):
        if (run / name).exists():
            return name
    names = checkpoint_names(run)
    return next((name for name in names if _trained(run / CHECKPOINTS / name)), None)


def _trained(checkpoint: Path) -> bool:
    try:
        return read_checkpoint_meta(checkpoint).training is not None
    except FileFormatError:  # training may have written this damaged checkpoint
        return True


def _refuse_foreign(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise TinyNNValueError(f"{path} is a link to {path.readlink()}, which does not exist; use another path")
    if not path.exists():
        return
    if not path.is_dir():
        raise TinyNNValueError(f"{path} exists and is not a folder; use another path")
    try:
        found = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:  # another process created this folder and has just removed it
        return
    # A process that creates a run creates `checkpoints` first. So if another process is creating a run here, a list
    # that is not empty contains `checkpoints`. The list must be read before the state of `checkpoints` is checked.
    ours = LATEST in found or (CHECKPOINTS in found and not (path / CHECKPOINTS).is_file())
    if found and not ours:
        raise TinyNNValueError(f"{path} exists and is not a run; use a new or empty folder")


def _remove(checkpoints: Path, names: list[str]) -> None:
    """Remove checkpoints. Rename them first, so that a folder with the name of a checkpoint is always complete."""
    removed = [(checkpoints / name, checkpoints / f"{_TEMPORARY}{os.getpid()}-{name}") for name in names]
    for checkpoint, temporary in removed:
        checkpoint.rename(temporary)
    if removed:
        sync(checkpoints)
    for _, temporary in removed:
        shutil.rmtree(temporary)

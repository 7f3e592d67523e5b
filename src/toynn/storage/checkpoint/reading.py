"""Read the checkpoints of a run, which another process may be writing."""

from __future__ import annotations

from pathlib import Path

from toynn.arguments import one_of, text
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.storage.checkpoint.folder import Checkpoint, CheckpointRemovedError, read_folder
from toynn.storage.checkpoint.foreign import what_it_is
from toynn.storage.checkpoint.meta import META
from toynn.storage.checkpoint.names import BEST, CHECKPOINTS, LATEST, checkpoint_names, pointed
from toynn.storage.regular_files import path_of


def load_checkpoint(path: Path, which: str = LATEST) -> Checkpoint:
    """Read and check a checkpoint.

    path: the folder of a checkpoint or of a run.
    which: the checkpoint of a run to read, "latest" or "best".

    The run may be in training. If the run removes the checkpoint while this function reads it, the function reads the
    new latest or best checkpoint instead.

    Raises FileFormatError if there is no checkpoint, or if the checkpoint is damaged or has a newer version. Raises
    TinyNNTypeError or TinyNNValueError for an invalid argument.
    """
    path = path_of("path", path)
    one_of("which", which, (LATEST, BEST))
    if (other := what_it_is(path)) is not None:
        raise FileFormatError(other)
    if not path.is_dir():
        raise FileFormatError(f"{path} must be the folder of a run or of a checkpoint, but is not a folder")
    if (path / META).exists():
        return read_folder(path)
    read = None
    while True:
        if not (path / which).exists():
            raise FileFormatError(
                f"{path} is neither a checkpoint nor a run with a {which} checkpoint; give the folder of a "
                "run or of a checkpoint"
            )
        name = pointed(path, which)
        place = path / CHECKPOINTS / name
        if name == read and not place.exists():
            raise FileFormatError(f"{path / which} is damaged: it names {name}, which does not exist{_others(path)}")
        read = name
        try:
            return read_folder(place)
        except CheckpointRemovedError:
            continue  # the run has already changed `latest` and `best`: read the checkpoint that they name now
        except FileFormatError as error:
            if place.exists():
                raise FileFormatError(f"{error}{_others(path, name)}") from None


def _others(run: Path, name: str = "") -> str:
    """Return the end of an error message, which lists the newest checkpoints except the one with this name."""
    others = [str(run / CHECKPOINTS / other) for other in checkpoint_names(run) if other != name]
    return f"; other checkpoints: {', '.join(others[-3:])}" if others else ""


def named_checkpoint(run: Path, name: str) -> Checkpoint:
    """Read the checkpoint with this name from a run. Raises TinyNNValueError for an unknown name, or FileFormatError
    for a damaged checkpoint.
    """
    require_checkpoint(run, name)
    return read_folder(run / CHECKPOINTS / name)


def require_checkpoint(run: Path, name: str) -> None:
    """Raise TinyNNValueError if the run has no checkpoint with this name."""
    names = checkpoint_names(run)
    if text("name", name) not in names:
        there = f"its checkpoints are {', '.join(names)}" if names else "it has no checkpoints at all"
        raise TinyNNValueError(f"{run} has no checkpoint {name!r:.60}; {there}")

"""The names in the folder of a run: its files, its checkpoints, and the files that name one of the checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from toynn.errors import FileFormatError
from toynn.storage.regular_files import read_regular

CHECKPOINTS, LATEST, BEST, LOCK = "checkpoints", "latest", "best", ".lock"
CONFIG, LOG = "run.toml", "log.jsonl"
# The log-probabilities of preference pairs in the reference model: their description, and the numbers.
REFERENCE, NUMBERS = "reference.json", "reference.bin"
_NAME = re.compile(r"^step-(\d{8,19})(?:-(\d{1,9}))?$")
_LONGEST_POINTER = 4096  # bytes


def order(name: str) -> tuple[int, int]:
    """Return the sort key of a checkpoint: its step, and the number at the end of its name (0 without a number)."""
    match = _NAME.match(name)
    return (int(match[1]), int(match[2] or 0)) if match else (-1, -1)


def free_name(checkpoints: Path, step: int) -> str:
    """Return an unused name for the checkpoint of a step, with a number at the end if the step has a checkpoint."""
    name, repeats = f"step-{step:08d}", 0
    while (checkpoints / name).exists():
        repeats += 1
        name = f"step-{step:08d}-{repeats}"
    return name


def checkpoint_names(run: Path) -> list[str]:
    """Return the names of the complete checkpoints of a run, ordered by step."""
    folder = run / CHECKPOINTS
    names = [entry.name for entry in folder.iterdir() if _NAME.match(entry.name)] if folder.is_dir() else []
    return sorted(names, key=order)


def pointed(run: Path, which: str) -> str:
    """Return the name of the latest or best checkpoint of a run, from the file that contains this name.

    which: the name of the file, "latest" or "best".

    Raises FileFormatError if the file cannot be read or does not contain the name of a checkpoint.
    """
    try:
        name = read_regular(run / which, _LONGEST_POINTER).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{run / which} cannot be read: {error}") from None
    if not _NAME.match(name):
        raise FileFormatError(f"{run / which} is damaged: it must contain the name of a checkpoint, got {name!r:.60}")
    return name

"""What a path is that is no checkpoint, and what to do with it."""

from __future__ import annotations

from pathlib import Path

from toynn.storage.checkpoint.meta import META

_GGUF = b"GGUF"
_DATA = "train.bin"  # of a data folder, beside its meta.json


def what_it_is(path: Path) -> str | None:
    """A sentence for a path that holds something else that toynn knows; None for all else."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_GGUF)) == _GGUF:
                return _imported(path, "a GGUF file")
        return None
    if (path / META).is_file() and (path / _DATA).exists():
        return f"{path} is a data folder; name a run (`toynn train {path} --out RUN` makes one)"
    if (path / "config.json").is_file() and next(path.glob("*.safetensors"), None) is not None:
        return _imported(path, "a Hugging Face folder")
    return None


def _imported(path: Path, what: str) -> str:
    return f"{path} is {what}: make a run of it first, toynn import {path} --out RUN"

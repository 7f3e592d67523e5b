"""Recognise paths that are not runs or checkpoints, to say what to do with them."""

from __future__ import annotations

from pathlib import Path

from toynn.storage.checkpoint.meta import META

_GGUF = b"GGUF"
_DATA = "train.bin"  # in a data folder, beside its meta.json


def kind_of_path(path: Path) -> str | None:
    """Return "gguf", "hf" (a Hugging Face folder) or "data" (a data folder); None for anything else.

    Raises OSError if a file cannot be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            return "gguf" if file.read(len(_GGUF)) == _GGUF else None
    if (path / META).is_file() and (path / _DATA).exists():
        return "data"
    weights = ("*.safetensors", "*.bin")  # *.bin are pickles: `import_hf` refuses them with a hint
    if (path / "config.json").is_file() and any(next(path.glob(pattern), None) for pattern in weights):
        return "hf"
    return None


def what_it_is(path: Path) -> str | None:
    """Return a message for a path that is something else that toynn knows; None for anything else."""
    kind = kind_of_path(path)
    if kind == "data":
        return f"{path} is a data folder, not a run (`toynn train {path} --out RUN` makes a run)"
    names = {"gguf": "a GGUF file", "hf": "a Hugging Face folder"}
    if kind is None:
        return None
    return f"{path} is {names[kind]}, not a run: convert it first with `toynn import {path} --out RUN`"

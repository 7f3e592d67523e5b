"""Recognize paths that hold something else than a run or a checkpoint, and say what to do with them."""

from __future__ import annotations

from pathlib import Path

from toynn.storage.checkpoint.meta import META

_GGUF = b"GGUF"
_DATA = "train.bin"  # of a data folder, beside its meta.json


def kind_of_path(path: Path) -> str | None:
    """Return "gguf", "hf" (a Hugging Face folder) or "data" (a data folder) for a path that holds it, otherwise None.

    Raises OSError if a file cannot be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            return "gguf" if file.read(len(_GGUF)) == _GGUF else None
    if (path / META).is_file() and (path / _DATA).exists():
        return "data"
    weights = ("*.safetensors", "*.bin")  # the second are pickles, which `import_hf` refuses with a hint
    if (path / "config.json").is_file() and any(next(path.glob(pattern), None) for pattern in weights):
        return "hf"
    return None


def what_it_is(path: Path) -> str | None:
    """Return a sentence about a path that holds something else that toynn knows, otherwise None."""
    kind = kind_of_path(path)
    if kind == "data":
        return f"{path} is a data folder; name a run (`toynn train {path} --out RUN` makes one)"
    names = {"gguf": "a GGUF file", "hf": "a Hugging Face folder"}
    return None if kind is None else f"{path} is {names[kind]}: make a run of it first, toynn import {path} --out RUN"

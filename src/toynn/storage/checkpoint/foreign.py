"""Recognise models, adapters and data of other formats that a user gives instead of a run or a checkpoint."""

from __future__ import annotations

from pathlib import Path

from toynn.storage.checkpoint.meta import META

_GGUF = b"GGUF"
_DATA = "train.bin"  # a data folder contains this file and meta.json


def kind_of_path(path: Path) -> str | None:
    """Return "gguf", "hf" (a Hugging Face folder), "peft" (a PEFT folder with an adapter), "data" (a data folder), or
    None for any other path.

    Raises OSError if a file cannot be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            return "gguf" if file.read(len(_GGUF)) == _GGUF else None
    if (path / META).is_file() and (path / _DATA).exists():
        return "data"
    if (path / "adapter_config.json").is_file():
        return "peft"
    weights = ("*.safetensors", "*.bin")  # *.bin are pickle files, which `import_hf` refuses with a hint
    if (path / "config.json").is_file() and any(next(path.glob(pattern), None) for pattern in weights):
        return "hf"
    return None


def what_it_is(path: Path) -> str | None:
    """Return an error message for a path whose kind `kind_of_path` recognizes, or None for any other path."""
    kind = kind_of_path(path)
    if kind == "data":
        return f"{path} is a data folder, not a run; train a model on it with `toynn train {path} --out RUN`"
    if kind == "peft":
        return f"{path} is an adapter, not a run; make a run from it with `toynn import {path} --base BASE --out RUN`"
    names = {"gguf": "a GGUF file", "hf": "a Hugging Face folder"}
    if kind is None:
        return None
    return f"{path} is {names[kind]}, not a run; convert it first with `toynn import {path} --out RUN`"

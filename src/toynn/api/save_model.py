"""Write a model as a run, a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from toynn.arguments import boolean, one_of, text
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import write_checkpoint
from toynn.storage.checkpoint.run_folder import CHECKPOINTS
from toynn.storage.regular_files import path_of

FORMATS = ("run", "gguf", "hf", "toy")
# A path with one of these suffixes is meant as a file of a format that toynn does not write.
_OTHER_FORMATS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".ggml", ".npz", ".json")


@dataclass(frozen=True)
class SavedModel(Initialised):
    """What was written. bytes: size of the files. notes: sentences about what differs from the request."""

    path: Path
    format: str
    dtype: str
    bytes: int
    notes: tuple[str, ...]


def format_of(path: Path, given: str | None, folder_format: str) -> str:
    """Return the format to write: the given one, or "gguf" for a path that ends in .gguf, otherwise `folder_format`.

    Raises TinyNNValueError for an unknown format, or for a suffix of a file format that is not written.
    """
    if given is not None:
        return one_of("format", given, FORMATS)
    suffix = path.suffix.lower()
    if suffix in _OTHER_FORMATS and not path.is_dir():
        raise TinyNNValueError(
            f"{path} ends in {suffix}, a format that toynn does not write; name a file that ends in .gguf, or a folder"
        )
    return "gguf" if suffix == ".gguf" else folder_format


def write_model(
    model: TrainedModel,
    path: Path,
    *,
    step: int,
    kind: str,
    dtype: str | None,
    overwrite: bool,
    name: str | None = None,
) -> SavedModel:
    """Write the model in the format `kind`, one of FORMATS. dtype, name: as for `export_gguf`; None is "f32".

    Raises TinyNNValueError for a path that is there already, unless overwrite is true, or a dtype other than f32 for a
    folder; what `write_checkpoint`, `export_gguf` and `export_hf` raise.
    """
    dtype = None if dtype is None else text("dtype", dtype)
    if kind != "gguf" and dtype not in (None, "f32"):
        raise TinyNNValueError(f"dtype = {dtype!r:.60} is for GGUF files only; {_f32_only(kind)}")
    if not overwrite and exists(path):
        raise TinyNNValueError(f"path: {path} exists already; name another path, or pass overwrite=True")
    if kind == "run":
        folder = write_checkpoint(path, model, step=step, replace=overwrite)
        return SavedModel(path, kind, "f32", _size_of(folder), ())
    from toynn.interop import export_gguf, export_hf, export_toy  # they need the extra toynn[interop]

    if kind == "gguf":
        written = export_gguf(model, path, dtype or "f32", name=name, overwrite=overwrite)
        return SavedModel(path, kind, dtype or "f32", written.bytes, written.notes)
    if kind == "toy":
        written = export_toy(model, path, run_id=name or "", step=step, overwrite=overwrite)
        return SavedModel(path, kind, "f32", written.bytes, written.notes)
    folder = export_hf(model, path, overwrite=overwrite)
    return SavedModel(path, kind, "f32", _size_of(folder), ())


def _f32_only(kind: str) -> str:
    return f"{'a file for toy' if kind == 'toy' else 'a folder'} is written in f32"


def model_name(model: TrainedModel, source: Path) -> str:
    """Return the name of a model: that of the imported model, or of the run or file it is read from."""
    place = source.resolve()
    if place.parent.name == CHECKPOINTS:
        place = place.parent.parent
    return model.foreign.name or (place.stem if place.suffix == ".gguf" else place.name)


def exists(path: Path) -> bool:
    """Return whether something is at the path; an empty folder does not count."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def save_model(
    model: TrainedModel,
    path: str | os.PathLike[str],
    *,
    step: int,
    kind: str | None,
    dtype: str | None,
    overwrite: bool,
    name: str,
) -> SavedModel:
    """Write the model as `TextModel.save` documents it, with a warning for each note."""
    path = path_of("path", path)
    chosen = format_of(path, kind, "run")
    saved = write_model(
        model, path, step=step, kind=chosen, dtype=dtype, overwrite=boolean("overwrite", overwrite), name=name
    )
    for note in saved.notes:
        warnings.warn(note, stacklevel=3)
    return saved


def _size_of(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir())

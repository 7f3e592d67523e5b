"""Write a model as a run, a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from toynn.arguments import boolean, one_of, text
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.model_on_base import AnyModel
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import write_checkpoint
from toynn.storage.checkpoint.names import CHECKPOINTS
from toynn.storage.regular_files import path_of

FORMATS = ("run", "gguf", "hf", "toy")
# A user who gives a path with one of these suffixes expects a format that toynn does not write.
_OTHER_FORMATS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".ggml", ".npz", ".json")


@dataclass(frozen=True)
class SavedModel(Initialised):
    """A model that was written to disk.

    bytes: size of all its files. notes: sentences about differences from what was requested, for example another type
        of a tensor.
    """

    path: Path
    format: str
    dtype: str
    bytes: int
    notes: tuple[str, ...]


def format_of(path: Path, given: str | None, folder_format: str) -> str:
    """Return the format to write: `given`, or without `given` the format "gguf" for .gguf, otherwise `folder_format`.

    Raises TinyNNValueError for an unknown format, and for a path with the suffix of a format that toynn does not write.
    """
    if given is not None:
        return one_of("format", given, FORMATS)
    suffix = path.suffix.lower()
    if suffix in _OTHER_FORMATS and not path.is_dir():
        raise TinyNNValueError(
            f"toynn does not write {suffix} files, got {path}; name a file that ends in .gguf, or a folder"
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
    """Write the model in the format `kind`, one of FORMATS.

    dtype: type of the weights; None for "f32".
    name: name of the model in a GGUF file.

    Raises TinyNNValueError if the path exists and overwrite is false, or if the format `kind` does not have the dtype.
    Also raises the errors of `write_checkpoint`, `export_gguf` and `export_hf`.
    """
    dtype = "f32" if dtype is None else text("dtype", dtype)
    if kind != "gguf" and dtype not in dtypes_of(kind):
        raise TinyNNValueError(
            f"dtype must be {described_dtypes(kind)}, got {dtype!r:.60}; GGUF files can have other types"
        )
    if not overwrite and exists(path):
        raise TinyNNValueError(f"path: {path} already exists; name another path, or pass overwrite=True")
    if kind == "run":
        folder = write_checkpoint(path, model, step=step, replace=overwrite)
        return SavedModel(path, kind, "f32", size_of(folder), ())
    from toynn.interop import export_gguf, export_hf, export_toy  # these modules need the extra toynn[interop]

    if kind == "gguf":
        written = export_gguf(model, path, dtype, name=name, overwrite=overwrite)
        return SavedModel(path, kind, dtype, written.bytes, written.notes)
    if kind == "toy":
        written = export_toy(model, path, run_id=name or "", step=step, overwrite=overwrite)
        return SavedModel(path, kind, "f32", written.bytes, written.notes)
    folder = export_hf(model, path, dtype, overwrite=overwrite)
    return SavedModel(path, kind, dtype, size_of(folder), ())


def dtypes_of(kind: str) -> tuple[str, ...]:
    """Return the types that the weights can have in a format other than "gguf"."""
    return ("f32", "f16", "bf16") if kind == "hf" else ("f32",)


def described_dtypes(kind: str) -> str:
    """Return a phrase for messages: the types that the weights can have in a format other than "gguf"."""
    written = {"toy": "a file for toy", "hf": "a Hugging Face folder", "run": "a run"}[kind]
    return f"{' or '.join(dtypes_of(kind))} in {written}"


def model_name(model: AnyModel, source: Path) -> str:
    """Return the name of a model: its name in the imported file, or the name of the run or file that contains it.

    The name of the base is not used for a model with an adapter.
    """
    place = source.resolve()
    if place.parent.name == CHECKPOINTS:
        place = place.parent.parent
    own = model.foreign.name if isinstance(model, TrainedModel) else ""
    return own or (place.stem if place.suffix == ".gguf" else place.name)


def exists(path: Path) -> bool:
    """Return whether the path exists and is not an empty folder."""
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
    """Write the model as `TextModel.save` describes. Each note of the result becomes a UserWarning."""
    path = path_of("path", path)
    chosen = format_of(path, kind, "run")
    saved = write_model(
        model, path, step=step, kind=chosen, dtype=dtype, overwrite=boolean("overwrite", overwrite), name=name
    )
    for note in saved.notes:
        warnings.warn(note, stacklevel=3)
    return saved


def size_of(folder: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(entry.stat().st_size for entry in folder.iterdir())

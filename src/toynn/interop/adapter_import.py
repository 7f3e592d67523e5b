"""Recognize and import an adapter: a GGUF file or a PEFT folder."""

from __future__ import annotations

from pathlib import Path

from toynn.errors import FileFormatError
from toynn.interop.file_errors import naming
from toynn.interop.gguf_adapter import import_gguf_adapter
from toynn.interop.gguf_header import is_adapter
from toynn.interop.gguf_model import GgufModel
from toynn.interop.peft_folder import import_peft, is_peft_folder
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.shape import ModelShape
from toynn.storage.regular_files import path_of


def is_adapter_file(path: Path) -> bool:
    """Return whether the path is a GGUF file or a PEFT folder with an adapter.

    Raises TinyNNTypeError for a value that is not a path; FileFormatError for a damaged GGUF file; or OSError if a file
    cannot be read.
    """
    path = path_of("path", path)
    if path.is_dir():
        return is_peft_folder(path)
    with GgufModel(path) as file, naming(file.path):
        return is_adapter(file.values)


def import_adapter(path: Path, shape: ModelShape) -> TrainedAdapter:
    """Return the LoRA adapter in a GGUF file or a PEFT folder, for a base of this shape.

    Raises the errors of `import_gguf_adapter` and `import_peft`.
    """
    path = path_of("path", path)
    if path.is_dir():
        if not is_peft_folder(path):
            raise FileFormatError(f"{path} is neither a GGUF file nor a PEFT folder; give one that contains an adapter")
        return import_peft(path, shape)
    return import_gguf_adapter(path, shape)

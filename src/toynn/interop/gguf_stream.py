"""Open a GGUF file to copy its weights into another file, so that only a few of them are in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from toynn.arguments import FloatArray
from toynn.interop.file_errors import naming
from toynn.interop.gguf_import import read_description
from toynn.interop.gguf_model import MappedGguf
from toynn.interop.gguf_rows import pieces_of
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.model.weights import weights_of
from toynn.storage.tensor_files import MadeTensors


@contextmanager
def streamed_gguf(path: Path) -> Iterator[tuple[ModelOnBase, MadeTensors]]:
    """Yield the model in a GGUF file without its weights, and the weights, which are converted when they are read.

    The values are those of `import_gguf`. The weights can be read until the block ends.

    Raises the errors of `import_gguf`. Reading a weight raises FileFormatError if a number is NaN or infinite, and
    MappedFileError if the file was changed since it was opened.
    """
    with MappedGguf(path) as file:
        with naming(file.path):
            described, halves = read_description(file)
        listed = {weight.name: weight for weight in weights_of(described.shape)}

        def pieces(name: str) -> Iterator[FloatArray]:
            with naming(file.path):
                yield from pieces_of(file, listed[name], halves)
            file.check()

        sizes = {name: weight.size for name, weight in listed.items()}
        yield described, MadeTensors(sizes, lambda name: np.concatenate(list(pieces(name))), pieces=pieces)

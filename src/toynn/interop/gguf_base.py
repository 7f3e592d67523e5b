"""GgufBase: an open GGUF file that is the base of fine-tuning. Its tensors can be used without a copy."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from toynn.arguments import FloatArray
from toynn.errors import FileFormatError
from toynn.interop.file_errors import naming
from toynn.interop.finite_blocks import surely_finite
from toynn.interop.gguf_import import read_description, read_rows, read_shape
from toynn.interop.gguf_model import MappedGguf
from toynn.interop.rope_order import to_halves
from toynn.interop.toy_format import stored_names
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.llm.base import Base, StoredWeights
from toynn.model.weights import Weight
from toynn.storage.regular_files import path_of
from toynn.tinynn import TNN_F32, Session, Tensor, tnn_tensor_set_interleaved

_CHUNK = 1 << 22  # number of elements that are dequantized at once


class GgufBase(Base):
    """An open GGUF file of a supported architecture, made for llama.cpp or by the reference.

    Only `description` reads the tokenizer. The file can be the base of several models at once. A model that maps the
    file keeps the mapping until the model is closed, also after this object is closed.

    shape: the sizes and variants of the model in the file.

    Raises:
        FileFormatError: the file is damaged, or toynn does not support it. The message names the file and the reason.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._gguf = MappedGguf(path_of("path", path))
        try:
            with naming(self._gguf.path):
                self.shape, self._halves = read_shape(self._gguf)
        except BaseException:
            self._gguf.close()
            raise

    def values(self, weight: Weight) -> FloatArray:
        values = self.values_as_stored(weight)
        if self._halves or not weight.row.rotated:
            return values
        return to_halves(values, weight.rotated_heads if weight.head is None else 1)

    def values_as_stored(self, weight: Weight) -> FloatArray:
        """Return a weight, or one head of it, as float32 in its shape. The rows of q and k are in the order of the
        file.

        Raises MappedFileError if the file was changed since it was opened.
        """
        with naming(self._gguf.path):
            if weight.name in self._gguf.tensors or weight.head is None:
                values = read_rows(self._gguf, stored_names(weight, self._gguf.tensors))
            else:
                values = self._gguf.read(weight.whole, weight.head * weight.size[0], weight.size[0])
        self._gguf.check()
        return values

    def description(self) -> ModelOnBase:
        """Return the shape, tokenizer and special tokens of the model. Raises FileFormatError."""
        with naming(self._gguf.path):
            return read_description(self._gguf)[0]

    def sha256(self) -> str:
        """Return the SHA-256 of the file or, for a split model, of a list with the SHA-256 of each of its files.

        Raises MappedFileError if a file was changed since it was opened.
        """
        return self._gguf.sha256()

    def check_finite(self) -> None:
        """Read all tensors. Raises FileFormatError, which names the tensor, for a value that is NaN or infinite."""
        with naming(self._gguf.path):
            for name, tensor in self._gguf.tensors.items():
                rows = tensor.shape[0]
                most = max(_CHUNK * rows // math.prod(tensor.shape), 1) if len(tensor.shape) > 1 else rows
                for first in range(0, rows, most):
                    n = min(most, rows - first)
                    if surely_finite(tensor.type, self._gguf.stored_rows(name, first, n)):
                        continue
                    values = self._gguf.read(name, first, n)
                    if not np.isfinite(values).all():
                        at = np.argwhere(~np.isfinite(values))[0]
                        place = [int(at[0]) + first, *map(int, at[1:])]
                        raise FileFormatError(
                            f"{name} must hold only finite numbers, got {values[tuple(at)]} at {place}"
                        )
        self._gguf.check()

    def stored(self, copy: bool, in_order: bool = False) -> StoredWeights:
        interleaved = not self._halves
        return _StoredWeights(self, self._gguf, interleaved and not in_order, copy, reorders=interleaved and in_order)

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._gguf.close()

    def __enter__(self) -> GgufBase:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _StoredWeights(StoredWeights):
    base: GgufBase
    gguf: MappedGguf
    interleaved: bool
    copy: bool
    reorders: bool  # the rows of q and k are interleaved in the file, but are used in toynn's order

    def declare(self, session: Session, weight: Weight) -> Tensor | None:
        whole = weight.name in self.gguf.tensors
        reordered = self.reorders and weight.rotated_heads > 0
        if (reordered and len(weight.size) == 1) or not (whole or weight.whole in self.gguf.tensors):
            # cannot be mapped: a bias in another order, or a weight that the file stores as one tensor for each head
            return None
        name = weight.name if whole else weight.whole
        if len(weight.size) == 1 and self.gguf.tensor(name).type != TNN_F32:
            return None  # ggml adds and multiplies with vectors of F32 only
        first = 0 if whole or weight.head is None else weight.head * weight.size[0]
        tensor = self.gguf.rows(session, name, first, weight.size[0], self.copy)
        if reordered:
            tnn_tensor_set_interleaved(tensor, weight.shape.head_dim)
        return tensor

    def values(self, weight: Weight) -> FloatArray:
        return self.base.values(weight) if self.reorders else self.base.values_as_stored(weight)

"""GgufBase: an open GGUF file that is the base of fine-tuning. Its tensors can be used without a copy."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

from toynn.arguments import FloatArray
from toynn.interop.file_errors import naming
from toynn.interop.finite_blocks import refuse_not_finite, surely_finite
from toynn.interop.gguf_header import GgufTensor
from toynn.interop.gguf_import import read_description, read_rows, read_shape
from toynn.interop.gguf_model import MappedGguf
from toynn.interop.rope_order import to_halves
from toynn.interop.toy_format import stored_names
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.llm.base import Base, StoredWeights
from toynn.model.weights import Weight
from toynn.storage.regular_files import path_of
from toynn.tinynn import TNN_F32, Session, Tensor, tnn_tensor_set_interleaved, tnn_type_block_nbytes

_CHUNK = 1 << 22  # number of elements that are dequantized at once
_BYTES = 1 << 23  # number of bytes that are checked at once


class GgufBase(Base):
    """An open GGUF file of a supported architecture, made for llama.cpp or by the Ruby project toy.

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
        """Return the shape, tokenizer and special tokens of the model.

        Raises FileFormatError if the file is damaged, or toynn does not support the model.
        """
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
            for names in _runs(self._gguf.tensors):
                if not self._surely_finite(names):
                    for name in names:
                        self._refuse_not_finite(name)
        self._gguf.check()

    def _surely_finite(self, names: list[str]) -> bool:
        """Return whether the stored bytes of consecutive tensors hold only finite numbers (see `surely_finite`).

        Another thread may read the tokenizer at the same time. Each call of numpy can wait for this thread, so few
        calls for many bytes are faster.
        """
        first, last = self._gguf.tensors[names[0]], self._gguf.tensors[names[-1]]
        end, block = last.offset + last.nbytes, tnn_type_block_nbytes(first.type)
        step = max(_BYTES // block, 1) * block
        return all(
            surely_finite(first.type, self._gguf.stored_bytes(first.part, at, min(step, end - at)))
            for at in range(first.offset, end, step)
        )

    def _refuse_not_finite(self, name: str) -> None:
        """Raise FileFormatError if a value of a tensor is NaN or infinite."""
        shape = self._gguf.tensors[name].shape
        rows = shape[0]
        most = max(_CHUNK * rows // math.prod(shape), 1) if len(shape) > 1 else rows
        for first in range(0, rows, most):
            refuse_not_finite(name, self._gguf.read(name, first, min(most, rows - first)), first)

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


def _runs(tensors: Mapping[str, GgufTensor]) -> Iterator[list[str]]:
    """Yield the names of the tensors in runs: the tensors of a run have the same type, and no gaps between them."""
    run: list[str] = []
    after: tuple[int, int, int] | None = None  # part, type and offset of the tensor that continues the run
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].part, item[1].offset)):
        if run and (one.part, one.type, one.offset) != after:
            yield run
            run = []
        run.append(name)
        after = (one.part, one.type, one.offset + one.nbytes)
    if run:
        yield run


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

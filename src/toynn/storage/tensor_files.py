"""Write tensors to a safetensors file, one tensor after another, so that a file needs no copy of all tensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.errors import TinyNNValueError
from toynn.storage.hashed_files import write_hashed
from toynn.tinynn import TNN_BF16, TNN_F16, tnn_quantize

Tensors = Mapping[str, npt.NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]
# for each type, its name in a file and ggml's number
HALF_TYPES = {"f16": ("F16", TNN_F16), "bf16": ("BF16", TNN_BF16)}


class MadeTensors(Tensors):
    """Tensors that are computed when they are read, one at a time. So they are not all in memory at once.

    shapes: the shape of each tensor by name. make: a function that returns a tensor by its name. bf16: the names of the
    tensors whose numbers are all bfloat16 numbers, and which `write_tensors` stores in this type. pieces: a function
    that returns a tensor by its name in pieces, which `write_tensors` writes one after another; None: a tensor is one
    piece.
    """

    def __init__(
        self,
        shapes: Shapes,
        make: Callable[[str], npt.NDArray[np.float32]],
        bf16: Collection[str] = (),
        pieces: Callable[[str], Iterator[npt.NDArray[np.float32]]] | None = None,
    ) -> None:
        self.shapes, self._make, self.bf16, self._pieces = dict(shapes), make, frozenset(bf16), pieces

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        if name not in self.shapes:
            raise KeyError(name)
        return self._make(name)

    def pieces(self, name: str) -> Iterator[npt.NDArray[np.float32]]:
        """Yield a tensor in pieces of whole rows, in order."""
        if self._pieces is None:
            yield self[name]
        else:
            yield from self._pieces(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def chained(first: Tensors, second: Tensors) -> MadeTensors:
    """Return one mapping with the tensors of both mappings. When a tensor is accessed, it is read
    from its original mapping, in one piece.
    """
    shapes = {**shapes_of(first), **shapes_of(second)}
    bf16 = bf16_of(second) | (bf16_of(first) - set(second))
    return MadeTensors(shapes, lambda name: second[name] if name in second else first[name], bf16)


def shapes_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name."""
    if isinstance(tensors, MadeTensors):
        return tensors.shapes
    return {name: values.shape for name, values in tensors.items()}


def bf16_of(tensors: Tensors) -> frozenset[str]:
    """Return the names of the tensors that `write_tensors` stores in bfloat16."""
    return tensors.bf16 if isinstance(tensors, MadeTensors) else frozenset()


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> str:
    """Write tensors to a new file, wait until it is on the disk, and return its SHA-256.

    The file has the same bytes as a file that the safetensors library writes. The library would need memory for a
    second copy of all tensors. F32 tensors are written before BF16 tensors, as the library does.

    Raises OSError if the file cannot be written. The file may then be incomplete.
    """
    bf16, shapes = bf16_of(tensors), shapes_of(tensors)
    names = sorted(shapes, key=lambda name: (name in bf16, name))
    header, size = _header({name: "BF16" if name in bf16 else "F32" for name in names}, shapes, metadata)

    def parts() -> Iterator[memoryview]:
        yield memoryview(header)
        for name in names:
            for piece in tensors.pieces(name) if isinstance(tensors, MadeTensors) else (tensors[name],):
                values = np.ascontiguousarray(piece, dtype="<f4")
                yield _halved(name, values, "bf16", TNN_BF16).data if name in bf16 else values.data

    return write_hashed(path, parts(), size)


def write_half_tensors(path: Path, tensors: Tensors, metadata: dict[str, str], dtype: str) -> None:
    """Write tensors in "f16" or "bf16" to a new file and wait until it is on the disk.

    Raises TinyNNValueError, which names the tensor, if a number is too large, or OSError if the file cannot be written.
    After an error the file may be incomplete.
    """
    name_of_type, number = HALF_TYPES[dtype]
    shapes = shapes_of(tensors)
    header, size = _header(dict.fromkeys(shapes, name_of_type), shapes, metadata)

    def parts() -> Iterator[memoryview]:
        yield memoryview(header)
        for name, values in tensors.items():
            yield _halved(name, values, dtype, number).data

    write_hashed(path, parts(), size)


def _header(types: Mapping[str, str], shapes: Shapes, metadata: dict[str, str] | None) -> tuple[bytes, int]:
    """Return the start of a safetensors file, and the size of the file.

    types: the type of each tensor, in the order of the tensors.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, dtype in types.items():
        shape = shapes[name]
        start, end = end, end + (4 if dtype == "F32" else 2) * prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + end


def _halved(name: str, values: npt.NDArray[np.float32], dtype: str, number: int) -> npt.NDArray[np.uint8]:
    try:
        return tnn_quantize(number, np.ascontiguousarray(values))
    except TinyNNValueError as error:
        raise TinyNNValueError(f"{name} cannot be stored in {dtype}: {error}") from None

"""Read the tensors of an open safetensors file: all tensors at once, or each tensor when it is accessed."""

from __future__ import annotations

import json
import os
import struct
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from toynn.arguments import FloatArray
from toynn.errors import FileFormatError
from toynn.storage.tensor_files import MadeTensors
from toynn.tinynn.mapped import read_into
from toynn.tinynn.memory import new_arrays


def tensors_in_memory(path: Path, file: BinaryIO) -> dict[str, FloatArray]:
    """Return the tensors of an open safetensors file, as views of one array. path: the name of the file in messages.

    Raises FileFormatError if the file is damaged or if a tensor is not float32.
    """
    reader = _Reader(path, file, ("F32",))
    tensors = new_arrays("weights", reader.shapes)
    for name, values in tensors.items():
        reader.read_into(name, values.reshape(-1))
    return tensors


def tensors_on_disk(path: Path, file: BinaryIO) -> MadeTensors:
    """Return the tensors of an open safetensors file. A tensor is read when it is accessed, and is not kept.

    The file can be closed, or removed, before the tensors are read. A tensor of bfloat16 is read as float32.

    Raises FileFormatError, also when a tensor is read, if the file is damaged or if a tensor has another type.
    """
    reader = _Reader(path, file, ("F32", "BF16"))
    return MadeTensors(reader.shapes, reader.read, reader.bf16)


class _Reader:
    """Reads tensors through a file descriptor of its own.

    supported: the types that a tensor may have. shapes: the shape of each tensor by name. bf16: the names of the
    tensors of bfloat16.
    """

    def __init__(self, path: Path, file: BinaryIO, supported: tuple[str, ...]) -> None:
        self._path = path
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        # The library checks the header, and accepts only a path. /dev/fd/N is a path of the open file, even if the file
        # was removed.
        opened = Path(f"/dev/fd/{self._file}")
        try:
            with safe_open(opened if opened.exists() else path, framework="numpy") as stored:
                slices = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
                types = {name: one.get_dtype() for name, one in slices.items()}
                self.shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            (size,) = struct.unpack("<Q", os.pread(self._file, 8, 0))
            header = json.loads(os.pread(self._file, size, 8))
            self._begins = {name: 8 + size + int(header[name]["data_offsets"][0]) for name in self.shapes}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise FileFormatError(f"{path} cannot be read: {error}") from None
        for name, dtype in types.items():
            if dtype not in supported:
                raise FileFormatError(f"{path}: {name} must have the type {' or '.join(supported)}, but has {dtype}")
        self.bf16 = frozenset(name for name, dtype in types.items() if dtype == "BF16")

    def read(self, name: str) -> FloatArray:
        """Return a tensor. Raises FileFormatError if the file has become shorter or cannot be read."""
        values = np.empty(self.shapes[name], np.uint16 if name in self.bf16 else np.float32)
        self.read_into(name, values.reshape(-1))
        # the bits of a bfloat16 number are the upper half of the bits of a float32 number
        return (values.astype(np.uint32) << 16).view(np.float32) if name in self.bf16 else values

    def read_into(self, name: str, values: npt.NDArray[Any]) -> None:
        """Read a tensor into a contiguous array (n,) of its type and size. Raises the errors of `read`."""
        target = values.data.cast("B")
        try:
            n = read_into(self._file, self._begins[name], target)
        except (OSError, ValueError, OverflowError) as error:
            raise FileFormatError(f"{self._path} cannot be read: {error}") from None
        if n < len(target):
            raise FileFormatError(
                f"{self._path} became shorter while it was read: {name} is not complete; restore the file"
            )

"""Where the tensors of a safetensors file lie.

The safetensors library checks a file's header against the file (lengths, offsets, no gaps, no overlaps) and does so in
Rust; it is asked first. But it gives BF16 to torch only, not to numpy, so the bytes are read here, from the places that
the checked header names. The format: a u64, the length of the header; the header, JSON; then the data.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from toynn.errors import TinyNNValueError
from toynn.storage.regular_files import open_regular

_ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file that was checked; offset: of its first byte in the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def read(self) -> npt.NDArray[np.float32]:
        """Its values, f32. Raises TinyNNValueError for another dtype, and where the file has changed since."""
        if self.dtype not in _ITEM_SIZES:
            raise TinyNNValueError(f"it is {self.dtype}; toynn reads {', '.join(_ITEM_SIZES)}")
        stored = np.empty(self.nbytes, dtype=np.uint8)
        with open_regular(self.path) as file:
            file.seek(self.offset)
            if file.readinto(stored.data) != self.nbytes:  # type: ignore[attr-defined]
                raise TinyNNValueError("the file ended while it was read")
        if self.dtype == "F32":
            values = stored.view("<f4")
        elif self.dtype == "F16":
            values = stored.view("<f2").astype(np.float32)
        else:  # the upper half of an f32
            values = (stored.view("<u2").astype(np.uint32) << 16).view(np.float32)
        return values.reshape(self.shape)


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name.

    Raises TinyNNValueError, without the file's name, for a damaged or foreign file; OSError.
    """
    with open_regular(path) as raw:
        try:
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
        except (SafetensorError, ValueError) as error:
            raise TinyNNValueError(f"it is no safetensors file, or is damaged: {error}") from None
        size = os.fstat(raw.fileno()).st_size
        length = struct.unpack("<Q", raw.read(8))[0]
        if length > size - 8:
            raise TinyNNValueError("it changed while it was read")
        header = json.loads(raw.read(length))  # which the library has just read
    header.pop("__metadata__", None)
    if sorted(header) != sorted(names):
        raise TinyNNValueError("its header names other tensors than the safetensors library sees")
    return {name: _stored(path, name, entry, 8 + length, size) for name, entry in header.items()}


def _stored(path: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    dtype, shape, (first, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    nbytes = end - first
    known = _ITEM_SIZES.get(dtype)
    if not 0 <= first <= end <= size - start or (known is not None and math.prod(shape) * known != nbytes):
        raise TinyNNValueError(f"its tensor {name!r:.80} does not lie where it can")
    return StoredTensor(path, dtype, shape, start + first, nbytes)

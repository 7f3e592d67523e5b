"""Read the tensors of a safetensors file that may be damaged or hostile.

The safetensors library opens the file first, because it checks the header against the file (lengths, offsets, gaps,
overlaps). The values are then read here, from the offsets in the checked header, for two reasons. First, the library
can return BF16 tensors as numpy arrays only if ml_dtypes is installed, and converting BF16 is one line. Second, the
library maps the file. If another program makes the file shorter during the import, reading the map ends the process
with SIGBUS (measured with safetensors 0.8.0), while a read call reports an error. The format is: the length of the
header as a u64, the header as JSON, then the data.
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

from toynn.errors import FileFormatError
from toynn.storage.regular_files import open_regular, refuse_lfs_pointer

_ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a checked file. offset: position of the tensor's first byte in the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def read(self) -> npt.NDArray[np.float32]:
        """Return the values as f32.

        Raises FileFormatError for a dtype that toynn cannot read, and if the file became shorter.
        """
        if self.dtype not in _ITEM_SIZES:
            raise FileFormatError(f"the dtype is {self.dtype}, but toynn reads only {', '.join(_ITEM_SIZES)}")
        stored = np.empty(self.nbytes, dtype=np.uint8)
        with open_regular(self.path) as file:
            file.seek(self.offset)
            if file.readinto(stored.data) != self.nbytes:  # type: ignore[attr-defined]
                raise FileFormatError("the file became shorter while it was read; try again")
        if self.dtype == "F32":
            values = stored.view("<f4")
        elif self.dtype == "F16":
            values = stored.view("<f2").astype(np.float32)
        else:  # BF16 is the upper half of an f32
            values = (stored.view("<u2").astype(np.uint32) << 16).view(np.float32)
        return values.reshape(self.shape)


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file, by name.

    Raises FileFormatError (without the name of the file) if the file is damaged or has another format, or OSError if
    the file cannot be read.
    """
    with open_regular(path) as raw:
        refuse_lfs_pointer(raw.read(256))
        raw.seek(0)
        try:
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
        except (SafetensorError, ValueError) as error:
            raise FileFormatError(f"the file is damaged, or is not a safetensors file: {error}") from None
        size = os.fstat(raw.fileno()).st_size
        length = struct.unpack("<Q", raw.read(8))[0]
        if length > size - 8:
            raise FileFormatError(
                f"the file changed while it was read: the header now states a length of {length} bytes, but the "
                f"file has {size} bytes; try again"
            )
        header = json.loads(raw.read(length))  # the header is valid JSON, because the library has just parsed it
    header.pop("__metadata__", None)
    if sorted(header) != sorted(names):
        odd = min(set(header).symmetric_difference(names), default="")
        change = "appeared" if odd in header else "disappeared"
        raise FileFormatError(f"the file changed while it was read: the tensor {odd!r:.80} {change}; try again")
    return {name: _stored(path, name, entry, 8 + length, size) for name, entry in header.items()}


def _stored(path: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    dtype, shape, (first, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    nbytes = end - first
    known = _ITEM_SIZES.get(dtype)
    if not 0 <= first <= end <= size - start or (known is not None and math.prod(shape) * known != nbytes):
        raise FileFormatError(
            f"the tensor {name!r:.80} has data_offsets {first} and {end}, but both must lie within the {size - start} "
            f"bytes of data, and their difference must be the number of bytes of type {dtype} and shape {shape}"
        )
    return StoredTensor(path, dtype, shape, start + first, nbytes)

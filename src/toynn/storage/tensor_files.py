"""Write tensors to a safetensors file. Needs the library safetensors (extra toynn[cli] or toynn[interop])."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.errors import TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.durable_files import sync
from toynn.tinynn import TNN_BF16, TNN_F16, tnn_quantize

with naming_the_extra():
    from safetensors import SafetensorError
    from safetensors.numpy import save_file


Tensors = Mapping[str, npt.NDArray[np.float32]]
HALF_TYPES = {"f16": ("F16", TNN_F16), "bf16": ("BF16", TNN_BF16)}  # the name in the file, and ggml's number


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a new file and wait until it is on the disk. Raises OSError; the file may then be incomplete."""
    path.open("xb").close()
    mode = path.stat().st_mode & 0o7777  # the mode of a new file, which depends on the umask
    try:
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:  # the library raises this if the disk is full
        raise OSError(f"{path} could not be written: {error}") from None
    path.chmod(mode)  # the library makes the file readable only for its owner
    sync(path)


def write_half_tensors(path: Path, tensors: Tensors, metadata: dict[str, str], dtype: str) -> None:
    """Write tensors in "f16" or "bf16" to a new file and wait until it is on the disk.

    The safetensors library writes BF16 only if other libraries are installed, so this function writes the file itself.

    Raises TinyNNValueError, which names the tensor, if a number is too large; OSError. The file may then be incomplete.
    """
    name_of_type, number = HALF_TYPES[dtype]
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + 2 * values.size
        header[name] = {"dtype": name_of_type, "shape": values.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, values in tensors.items():
            file.write(_halved(name, values, dtype, number).data)
    sync(path)


def _halved(name: str, values: npt.NDArray[np.float32], dtype: str, number: int) -> npt.NDArray[np.uint8]:
    try:
        return tnn_quantize(number, np.ascontiguousarray(values))
    except TinyNNValueError as error:
        raise TinyNNValueError(f"{name} cannot be stored in {dtype}: {error}") from None

"""Tensors as a safetensors file, written. Needs that library, of the extra toynn[cli] (or [interop])."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toynn.extras import naming_the_extra
from toynn.storage.durable_files import sync

with naming_the_extra():
    from safetensors import SafetensorError
    from safetensors.numpy import save_file


def write_tensors(
    path: Path, tensors: Mapping[str, npt.NDArray[np.float32]], metadata: dict[str, str] | None = None
) -> None:
    """Writes a new file and waits until the disk has it. Raises OSError; the file may then be there in part."""
    path.open("xb").close()
    mode = path.stat().st_mode & 0o7777  # what the umask gives any file
    try:
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(f"{path} could not be written: {error}") from None
    path.chmod(mode)  # the library puts a file in its place that its owner alone may read
    sync(path)

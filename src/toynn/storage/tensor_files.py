"""Write tensors to a safetensors file. Needs the library safetensors (extra toynn[cli] or toynn[interop])."""

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
    """Write tensors to a new file and wait until it is on the disk. Raises OSError; the file may then be incomplete."""
    path.open("xb").close()
    mode = path.stat().st_mode & 0o7777  # the mode of a new file, which depends on the umask
    try:
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:  # the library raises this if the disk is full
        raise OSError(f"{path} could not be written: {error}") from None
    path.chmod(mode)  # the library makes the file readable only for its owner
    sync(path)

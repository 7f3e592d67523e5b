"""Read small JSON files, and replace numbers that JSON cannot express."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from toynn.errors import FileFormatError
from toynn.storage.regular_files import read_regular, refuse_lfs_pointer

_LARGEST = 1 << 24  # bytes


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of at most 16 MiB.

    Raises FileNotFoundError if there is no such file, or FileFormatError, with the reason, for any other failure.
    """
    try:
        content = read_regular(path, _LARGEST)
        refuse_lfs_pointer(content, str(path))
        return json.loads(content.decode("utf-8-sig"))
    except (FileNotFoundError, FileFormatError):
        raise
    except RecursionError:
        raise FileFormatError(f"{path} cannot be read: its lists and objects are nested too deeply") from None
    except (OSError, ValueError) as error:  # ValueError: not JSON, not UTF-8, or a number with too many digits
        raise FileFormatError(f"{path} cannot be read: {error}") from None


def number_or_null(value: float) -> float | None:
    """Return the value, or None for NaN and infinities, which JSON cannot express."""
    return value if math.isfinite(value) else None

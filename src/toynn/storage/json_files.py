"""Small JSON files: read with a clear error, and written so that every value is valid JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from toynn.errors import FileFormatError
from toynn.storage.regular_files import read_regular, refuse_lfs_pointer

_LARGEST = 1 << 24  # bytes


def read_json(path: Path) -> Any:
    """Return the content of a small JSON file.

    Raises FileNotFoundError, and FileFormatError with the reason for any other failure.
    """
    try:
        content = read_regular(path, _LARGEST)
        refuse_lfs_pointer(content, str(path))
        return json.loads(content.decode("utf-8-sig"))
    except (FileNotFoundError, FileFormatError):
        raise
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also not UTF-8, or a huge number
        raise FileFormatError(f"{path} cannot be read: {error}") from None


def number_or_null(value: float) -> float | None:
    """Return the value, or None for NaN and the infinities, which JSON cannot express."""
    return value if math.isfinite(value) else None

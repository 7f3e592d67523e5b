"""JSON of a file that was given: an object, no key twice, and its errors those of toynn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toynn.errors import TinyNNValueError

_LARGEST = 1 << 26  # bytes; config.json has a few hundred, an index of a large model a few hundred thousand


def parsed_object(content: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8, no key twice. Raises TinyNNValueError, without the file's name, for anything else."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise TinyNNValueError(f"it has the key {twice!r:.80} twice")
        return result

    try:
        result = json.loads(content.decode("utf-8"), object_pairs_hook=once)
    except TinyNNValueError:
        raise
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError, an integer of too many digits
        raise TinyNNValueError(f"it is not JSON: {' '.join(str(error).split()):.200}") from None
    if not isinstance(result, dict):
        raise TinyNNValueError(f"it must be a JSON object, got {type(result).__name__}")
    return result


def read_object(path: Path) -> dict[str, Any]:
    """The same of a file. Raises OSError too."""
    if (size := path.stat().st_size) > _LARGEST:
        raise TinyNNValueError(f"it is {size} bytes long, {_LARGEST} are allowed")
    return parsed_object(path.read_bytes())

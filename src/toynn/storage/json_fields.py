"""Reading JSON that may be damaged or foreign: values by key and type, unknown keys refused, errors that say where.

And writing it for people: a number that JSON has no word for is null.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from toynn.errors import TinyNNValueError
from toynn.storage.regular_files import read_regular

_LARGEST = 1 << 24  # bytes


class JsonFields:
    """Takes values out of a JSON object, and knows where it stands for messages. `end` refuses what was not taken."""

    def __init__(self, where: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise TinyNNValueError(f"{where} must be an object, got {type(content).__name__}")
        self._where = where
        self._content = dict(content)

    def take(self, key: str, *kinds: type) -> Any:
        """The value of key, one of those types. A bool is no int; where float is asked for, a whole number will do."""
        if key not in self._content:
            raise TinyNNValueError(f"{self._where} has no {key!r}")
        value = self._content.pop(key)
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            return value
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise TinyNNValueError(f"{self._where}: {key!r} must be {wanted}, got {value!r:.60}")
        return value

    def count(self, key: str, least: int = 0, most: int = 2**63 - 1) -> int:
        """A whole number from `least` to `most`."""
        value: int = self.take(key, int)
        if not least <= value <= most:
            wanted = f"at least {least}" if value < least else f"at most {most}"
            raise TinyNNValueError(f"{self._where}: {key!r} must be {wanted}, got {_digits(value)}")
        return value

    def finite_or_none(self, key: str) -> float | None:
        """A number that is finite as a float, or None."""
        value: float | None = self.take(key, float, type(None))
        try:
            number = None if value is None else float(value)
        except OverflowError:
            number = math.inf
        if number is not None and not math.isfinite(number):
            raise TinyNNValueError(f"{self._where}: {key!r} must be a finite number or null, got {_digits(number)}")
        return number

    def require_format(self, name: str, version: int) -> None:
        """Raises TinyNNValueError unless the object says that it is of this format and version."""
        if (kind := self.take("format", str)) != name:
            raise TinyNNValueError(f"its format is {kind!r:.60}, not {name!r}")
        if (found := self.count("version")) != version:
            raise TinyNNValueError(f"its version is {found}, this toynn reads {version}")

    def fields(self, key: str) -> JsonFields:
        """The object under key."""
        return JsonFields(f"{self._where}.{key}" if self._where != "it" else key, self.take(key, dict))

    def keys(self) -> list[str]:
        """What was not taken yet."""
        return list(self._content)

    def end(self) -> None:
        """Raises TinyNNValueError where something was not taken."""
        if self._content:
            raise TinyNNValueError(f"{self._where} has an unknown key {next(iter(self._content))!r}")


def _digits(value: float) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def number_or_null(value: float) -> float | None:
    """None for NaN and the infinities, which JSON has not."""
    return value if math.isfinite(value) else None


def read_json(path: Path) -> Any:
    """The content of a small JSON file. Raises TinyNNValueError with the reason; FileNotFoundError goes through."""
    try:
        return json.loads(read_regular(path, _LARGEST).decode("utf-8"))
    except (FileNotFoundError, TinyNNValueError):
        raise
    except (OSError, ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of thousands of digits
        raise TinyNNValueError(f"{path} cannot be read: {error}") from None

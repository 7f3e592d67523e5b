"""JSON files with a format version: older versions are migrated when they are read, newer ones are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from toynn.errors import FileFormatError, TinyNNError
from toynn.storage.json_files import read_json
from toynn.storage.plain_data import from_plain

T = TypeVar("T")
Migration: TypeAlias = Callable[[dict[str, Any]], None]  # changes the content of a file to the next version, in place


@dataclass(frozen=True)
class _Header:
    format: str
    version: int


@dataclass(frozen=True)
class Format:
    """The format of a JSON file that starts with its "format" and "version"; the other keys are those of a dataclass.

    migrations: the first one changes the content of a file from version 1 to version 2, and so on.
    """

    name: str
    migrations: tuple[Migration, ...] = ()

    @property
    def version(self) -> int:
        """The version that is written, and the newest one that can be read."""
        return 1 + len(self.migrations)

    def text(self, content: dict[str, Any]) -> str:
        """Return the text of a file that has the header of this format and then these keys."""
        header = dataclasses.asdict(_Header(self.name, self.version))
        return json.dumps({**header, **content}, indent=1, allow_nan=False) + "\n"

    def load(self, path: Path, kind: type[T]) -> T:
        """Return the content of a file as a `kind`, a dataclass.

        Raises FileNotFoundError, and FileFormatError for a damaged file, another format or a newer version.
        """
        content = read_json(path)
        found = content.get("format") if isinstance(content, dict) else None
        if found != self.name:
            raise FileFormatError(f"{path} must have the format {self.name!r}, got {found!r:.60}")
        try:
            header = from_plain(_Header, {key: content.pop(key) for key in ("format", "version") if key in content})
            self._check_version(path, header.version)
            for migrate in self.migrations[header.version - 1 :]:
                migrate(content)
            return from_plain(kind, content)
        except FileFormatError:
            raise
        except TinyNNError as error:
            raise FileFormatError(f"{path} is damaged: {error}") from None

    def _check_version(self, path: Path, found: int) -> None:
        if found < 1:
            raise FileFormatError(f"{path} is damaged: version must be 1 or above, got {found}")
        if found > self.version:
            raise FileFormatError(
                f"{path} has version {found} of its format, but toynn {version('toynn')} reads only up to version "
                f"{self.version}: upgrade toynn (pip install --upgrade toynn)"
            )

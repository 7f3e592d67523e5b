"""JSON files with a format version. Reading converts an older version to the current one and refuses a newer one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from toynn.errors import FileFormatError, TinyNNError
from toynn.storage.json_files import read_json
from toynn.storage.plain_data import from_plain

T = TypeVar("T")
# A function that converts the content of a file to the next version, in place.
Migration: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class _Header:
    format: str
    version: int


@dataclass(frozen=True)
class Format:
    """A format of JSON files. A file has the keys "format" and "version", and a key for each field of a dataclass.

    name: the value of "format".
    migrations: the functions that convert version 1 to 2, version 2 to 3, and so on.
    """

    name: str
    migrations: tuple[Migration, ...] = ()

    @property
    def version(self) -> int:
        """The current version. Files are written in this version, and files of newer versions are refused."""
        return 1 + len(self.migrations)

    def text(self, content: dict[str, Any]) -> str:
        """Return the text of a file: the keys "format" and "version", followed by the keys of `content`."""
        header = dataclasses.asdict(_Header(self.name, self.version))
        return json.dumps({**header, **content}, indent=1, allow_nan=False) + "\n"

    def load(self, path: Path, kind: type[T]) -> T:
        """Return the content of a file as an object of the dataclass `kind`.

        Raises FileNotFoundError if there is no such file, or FileFormatError if the file is damaged, or has another
        format or a newer version.
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
            from importlib.metadata import version  # only this message needs the module

            raise FileFormatError(
                f"{path} has version {found} of its format, but toynn {version('toynn')} reads only versions up to "
                f"{self.version}; use a newer version of toynn"
            )

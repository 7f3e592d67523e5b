"""Operations: the changes that a program makes to the files and folders in one folder.

Paths are relative to the folder. Each file or folder has a number, because a path may name different files over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

ROOT = 0  # the number of the folder that contains all these files and folders


@dataclass(frozen=True)
class Make:
    """Make a file or folder with a new number."""

    path: str
    node: int
    is_folder: bool


@dataclass(frozen=True)
class Write:
    """Write bytes into a file."""

    node: int
    offset: int
    content: bytes


@dataclass(frozen=True)
class Resize:
    """Cut a file, or extend it with zeros."""

    node: int
    size: int


@dataclass(frozen=True)
class Rename:
    """Give a file or folder another path. A file or folder that had this path loses it in the same step."""

    path: str
    target: str


@dataclass(frozen=True)
class Link:
    """Give a file one more path, which did not exist."""

    path: str
    target: str


@dataclass(frozen=True)
class Remove:
    """Remove a path: of a file, or of an empty folder."""

    path: str


@dataclass(frozen=True)
class Sync:
    """Wait until the content of a file, or the entries of a folder, are on the disk. path: the path at that time."""

    node: int
    path: str


@dataclass(frozen=True)
class Report:
    """Report something to the user. The report must still be true after a power loss."""

    text: str


Operation: TypeAlias = Make | Write | Resize | Rename | Link | Remove | Sync | Report

"""The interface of a workload, which is recorded and checked, and the error of its checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol


class FaultError(Exception):
    """A folder is wrong after a power loss. The message says what is wrong."""


class Workload(Protocol):
    """A program that changes files, and the checks of these files after a power loss."""

    name: str

    def make_inputs(self, given: Path) -> None:
        """Write the input files of the program into an empty folder. They are on the disk before the program starts."""

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        """Change files in the folder `files`, and pass each message for the user to `report`."""

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        """Raise FaultError if `files` contradicts these reports or is damaged. Do not change `files`."""

    def go_on(self, given: Path, files: Path) -> None:
        """Continue the work in `files` as a user would. Raise FaultError if the result is wrong."""

"""What is recorded and checked: the interface of a workload, and the error of its checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol


class FaultError(Exception):
    """What is wrong in a folder after a power loss."""


class Workload(Protocol):
    """A program that changes files, and the checks of what a power loss leaves of them."""

    name: str

    def make_inputs(self, given: Path) -> None:
        """Write what the program reads into an empty folder. It is on the disk before the program starts."""

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        """Change files in the folder `files`, and report what the user is told."""

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        """Raise FaultError if `files` shows what the user must not see after these reports. Do not change it."""

    def go_on(self, given: Path, files: Path) -> None:
        """Do what the user does next with `files`. Raise FaultError if this does not have the right result."""

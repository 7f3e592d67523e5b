"""The file of a series of long runs: one line of JSON for each run that has ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

R = TypeVar("R")


def read_results(kind: Callable[..., R], path: Path) -> list[R]:
    """Return the results in the order of the file; [] if the file does not exist. kind: the dataclass of a result."""
    if not path.exists():
        return []
    return [kind(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def add_result(path: Path, result: Any) -> None:
    """Append a result, an object of a dataclass, to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")

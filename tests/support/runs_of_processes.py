"""Compare runs of several processes with those of a single process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOT_COMPARED = {
    "time",
    "seconds",
    "tokens_per_second",
    "run",
    "data",
    "resumes",
    "checkpoint",
    "path",
    "notes",
    "config",
}


def files_of(run: Path) -> dict[str, bytes]:
    """Return the files of all checkpoints, the names of the latest and best checkpoint, and the configuration."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in (run / "checkpoints").rglob("*.*")}
    return {**found, **{name: (run / name).read_bytes() for name in ("latest", "best", "run.toml")}}


def events_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in NOT_COMPARED} for line in lines]


def assert_same_run(run: Path, alone: Path) -> None:
    assert files_of(run) == files_of(alone)
    assert events_of(run) == events_of(alone)


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def latest_of(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / (run / "latest").read_text().strip()
    return {path.name: path.read_bytes() for path in folder.iterdir()}

"""Runs that older versions recorded can be loaded, and resuming them gives the recorded bytes.

tests/fixtures/runs/format-N contains runs that `tools/determinism/record_run.py` recorded with the version that
introduced checkpoint format N. These folders are never recorded again, because they represent the runs that users
have. A folder contains only the files that differ from the previous format, which keeps the sdist small.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from paths import FIXTURES
from record_run import ALL_STEPS, RUNS, STEPS, outcome, record, toynn
from toynn.storage.checkpoint import load_checkpoint

FORMATS = sorted((FIXTURES / "runs").iterdir(), key=lambda folder: int(folder.name.removeprefix("format-")))
each_format = pytest.mark.parametrize("recorded", FORMATS, ids=[folder.name for folder in FORMATS])


@pytest.fixture
def whole(recorded: Path, tmp_path: Path) -> Path:
    """Return a complete copy of a recorded folder, with the files that it shares with older formats."""
    folder = tmp_path / "recorded"
    for part in FORMATS[: FORMATS.index(recorded) + 1]:
        shutil.copytree(part, folder, dirs_exist_ok=True)
    return folder


def expected(recorded: Path) -> dict[str, Any]:
    """Return the result of each resumed run: losses, and digests of the tensors."""
    content: dict[str, Any] = json.loads((recorded / "expected.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.quick
@pytest.mark.parametrize("name", RUNS)
@each_format
def test_resuming_a_recorded_run_gives_the_recorded_bytes(
    whole: Path, name: str, tmp_path: Path, toynn_command: str
) -> None:
    want = expected(whole)[name]
    assert len(want["losses"]) == ALL_STEPS
    run = tmp_path / name
    shutil.copytree(whole / name, run)
    assert load_checkpoint(run).step == STEPS
    steps = f"train.steps={ALL_STEPS}"
    toynn(toynn_command, "train", str(whole / "data"), "--out", str(run), "--quiet", "--resume", "--set", steps)
    assert outcome(run) == want


@pytest.mark.parametrize("recorded", FORMATS[-1:], ids=["newest"])
def test_recording_the_newest_format_again_gives_the_recorded_bytes(
    whole: Path, tmp_path: Path, toynn_command: str
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(whole / "stories.txt", again)
    record(again, toynn_command)
    assert expected(again) == expected(whole)

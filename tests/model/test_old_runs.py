"""Runs that older versions recorded are loaded, and resuming them reaches the recorded bytes.

tests/fixtures/runs/format-N holds what `tools/determinism/record_run.py` recorded with the version that introduced
checkpoint format N. Nothing of these folders is recorded again: they stand for the runs that users have.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from record_run import ALL_STEPS, RUNS, STEPS, outcome, record, toynn
from toynn.storage.checkpoint import load_checkpoint

FIXTURES = Path(__file__).parents[1] / "fixtures" / "runs"
FORMATS = sorted(path.name for path in FIXTURES.iterdir())


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("version", FORMATS)
def test_a_recorded_run_resumes_to_the_recorded_bytes(
    version: str, name: str, tmp_path: Path, toynn_command: str
) -> None:
    folder = FIXTURES / version
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))[name]
    assert len(expected["losses"]) == ALL_STEPS
    run = tmp_path / name
    shutil.copytree(folder / name, run)
    assert load_checkpoint(run).step == STEPS
    steps = f"train.steps={ALL_STEPS}"
    toynn(toynn_command, "train", str(folder / "data"), "--out", str(run), "--quiet", "--resume", "--set", steps)
    assert outcome(run) == expected


def test_recording_again_gives_the_recorded_bytes(tmp_path: Path, toynn_command: str) -> None:
    record(tmp_path / "again", toynn_command)
    recorded = json.loads((FIXTURES / FORMATS[-1] / "expected.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "again" / "expected.json").read_text(encoding="utf-8")) == recorded

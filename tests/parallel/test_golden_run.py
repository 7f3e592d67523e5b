"""A recorded run with 24 windows per step: any number of processes must give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import toynn
from mpi import MPICH, OPEN_MPI, toynn_in_processes
from record_processes import FIXTURE, RUNS, arguments, result_of
from runs_of_processes import slow


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    fixture: dict[str, Any] = json.loads(FIXTURE.read_text(encoding="utf-8"))["runs"]
    return fixture


def test_the_fixture_has_the_runs_of_the_script(recorded: dict[str, Any]) -> None:
    assert list(recorded) == list(RUNS)
    for run in recorded.values():
        assert [len(run[key]) for key in ("losses", "norms", "validation")] == [4, 4, 2]
        first, *_, last = (float.fromhex(loss) for loss in run["losses"])
        assert last < first
        assert float.fromhex(run["norms"][0]) > 0.5  # clipped
    assert len({run[key] for run in recorded.values() for key in ("weights_sha256", "moments_sha256")}) == 4


@pytest.mark.parametrize(
    ("library", "n", "name"),
    [
        (MPICH, 1, "adamw"),
        (MPICH, 2, "muon"),
        slow(MPICH, 1, "muon"),
        slow(OPEN_MPI, 2, "adamw"),
        *(slow(MPICH, n, name) for n in (3, 4, 6, 8) for name in RUNS),
        slow(OPEN_MPI, 8, "muon"),
    ],
)
def test_n_processes_reach_the_recorded_bytes(
    library: str, n: int, name: str, recorded: dict[str, Any], tmp_path: Path
) -> None:
    given = arguments(name, tmp_path / "run")
    done = toynn(*given) if n == 1 else toynn_in_processes(library, n, *given)
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path / "run") == recorded[name]

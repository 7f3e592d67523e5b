"""A power loss at any moment does not damage a run, a data folder, an import or an export.

tools/power_loss/check_power_loss.py records the changes to files and builds the states that a power loss may leave.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from check_power_loss import WORKLOADS, checked, recorded
from crash_states import Limits
from file_operations import Operation, Sync

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs the program strace")

FEW = Limits(exhaustive=64, random=4)
# testing all states of these workloads takes a minute, so only the slow test includes these workloads
SLOW = {"training", "training without best", "going back", "training on pairs"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[Operation]]]:
    """Return a function that runs a workload and returns its folder and its recorded operations."""

    @cache
    def recorded_once(name: str) -> tuple[Path, list[Operation]]:
        folder = tmp_path_factory.mktemp("workload")
        return folder, recorded(WORKLOADS[name], folder)

    return recorded_once


@pytest.mark.parametrize("name", sorted(WORKLOADS.keys() - {"going back", "training on pairs"}))
def test_a_power_loss_leaves_nothing_damaged(name: str, record: Callable[[str], tuple[Path, list[Operation]]]) -> None:
    folder, operations = record(name)
    result = checked(
        WORKLOADS[name], operations, folder, dataclasses.replace(FEW, every=8 if name in SLOW else 1), most_resumed=6
    )
    assert not result.faults
    assert result.counts.distinct > 40
    assert result.went_on > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_no_power_loss_leaves_anything_damaged(
    name: str, record: Callable[[str], tuple[Path, list[Operation]]]
) -> None:
    folder, operations = record(name)
    assert not checked(WORKLOADS[name], operations, folder, Limits()).faults


@pytest.mark.parametrize(
    ("name", "unsynced"),
    [
        pytest.param("training", "runs/run/log.jsonl", marks=pytest.mark.slow),
        pytest.param("training", "runs/run/checkpoints", marks=pytest.mark.slow),
        pytest.param("training", "runs/run", marks=pytest.mark.slow),
        pytest.param("training", "runs", marks=pytest.mark.slow),
        pytest.param("training", "weights.safetensors", marks=pytest.mark.slow),
        pytest.param("training", "meta.json", marks=pytest.mark.slow),
        pytest.param("training on pairs", "reference.bin", marks=pytest.mark.slow),
        pytest.param("training on pairs", "reference.json", marks=pytest.mark.slow),
        ("import", "models/run"),
        ("import", "latest"),
        ("prepare", "train.bin"),
        ("prepare", "meta.json"),
        ("export to GGUF", "model"),
        ("export to Hugging Face", "config.json"),
    ],
)
def test_a_missing_sync_is_noticed(
    name: str, unsynced: str, record: Callable[[str], tuple[Path, list[Operation]]]
) -> None:
    folder, operations = record(name)
    fewer = [one for one in operations if not (isinstance(one, Sync) and one.path.endswith(unsynced))]
    assert len(fewer) < len(operations)
    assert checked(WORKLOADS[name], fewer, folder, FEW, most_resumed=0).faults

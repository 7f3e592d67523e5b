"""Every public callable raises only documented exceptions, whatever its arguments are, and ends soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import run_with_toynn
from public_callables import public_names

LIMITED = """
import warnings
from public_callables import faults, faults_of_settings, faults_of_uninitialised_objects
warnings.simplefilter("ignore")
os.chdir({folder!r})
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in {calls}:
    print(line)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) // 1024
if grown > 1024:
    print("the calls used", grown, "MiB")
"""


def lines(folder: Path, calls: str, timeout: float = 300) -> list[str]:
    return run_with_toynn(LIMITED.format(folder=str(folder), calls=calls), timeout).splitlines()


def test_the_tested_callables_include_the_public_names() -> None:
    names = public_names()
    assert len(names) > 200
    assert {"toynn.train", "toynn.tinynn.tnn_train_step", "toynn.training.schedule.learning_rate"} <= names.keys()


def test_a_hostile_argument_raises_a_documented_exception_at_once(tmp_path: Path) -> None:
    assert lines(tmp_path, "faults()") == []


def test_a_hostile_setting_raises_a_documented_exception_at_once(tmp_path: Path) -> None:
    assert lines(tmp_path, "faults_of_settings()") == []


@pytest.mark.quick
def test_an_object_whose_init_did_not_run_raises_a_documented_exception(tmp_path: Path) -> None:
    assert lines(tmp_path, "faults_of_uninitialised_objects()") == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_random_hostile_arguments_raise_a_documented_exception_at_once(tmp_path: Path, seed: int) -> None:
    assert lines(tmp_path, f"faults(300, {seed})", timeout=1200) == []

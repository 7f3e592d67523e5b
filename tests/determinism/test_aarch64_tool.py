"""`make aarch64` reports missing programs and differences.

The comparison itself needs an emulator and is not run here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import check_aarch64
import emulated_build
from emulated_build import PROGRAMS, EmulatedBuild
from paths import ROOT

pytestmark = pytest.mark.quick

CHECK = ROOT / "tools" / "aarch64" / "check_aarch64.py"


@pytest.mark.parametrize("installed", [set(), {"mmdebstrap"}], ids=["none", "one"])
def test_missing_programs_are_named_with_their_packages_in_one_line(installed: set[str], tmp_path: Path) -> None:
    for program in installed:
        (tmp_path / program).touch(mode=0o755)
    done = subprocess.run(
        [sys.executable, CHECK], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    packages = sorted(package for program, package in PROGRAMS.items() if program not in installed)
    wanted = f"make aarch64 needs programs that are not installed; run: apt-get install {' '.join(packages)}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", wanted)


def test_record_cannot_be_combined_with_a_choice_of_checks() -> None:
    done = subprocess.run(
        [sys.executable, CHECK, "--record", "--only", "curves"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("error: --record runs no checks; leave out --only\n")


def test_a_difference_in_any_check_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Python script takes the place of the other processor.

    It prints the values of this processor with one digest changed.
    """
    values = tmp_path / "values.json"
    values.write_text(json.dumps({"weights": "1", "exp": "2"}), encoding="utf-8")
    monkeypatch.setattr(check_aarch64, "VALUES", tmp_path / "print.py")
    check_aarch64.VALUES.write_text(f"print(open({str(values)!r}).read())", encoding="utf-8")
    other = tmp_path / "other"
    build = EmulatedBuild(other, other)
    for digest, want in (("2", None), ("3", "  exp")):
        other.write_text(f'#!/bin/sh\necho \'{{"weights": "1", "exp": "{digest}"}}\'\n', encoding="utf-8")
        other.chmod(0o755)
        assert check_aarch64.different_values(build) == want


def test_a_failing_command_is_reported_by_its_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(emulated_build.AArch64Error, match=r"^Building: \S+ failed: no compiler$"):
        emulated_build.run("Building", sys.executable, "-c", "import sys; print('log'); sys.exit('no compiler')")
    assert "log" in capsys.readouterr().err

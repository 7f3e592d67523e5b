"""The losses do not depend on the conditions of the process, and the determinism matrix reports results correctly.

`make determinism-matrix` checks the same conditions with more builds.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import determinism_builds
import determinism_matrix
from conditions import CONDITIONS, Condition
from determinism_builds import BuildFailedError, Builds, Installed, NotRunError
from determinism_journal import Journal, Outcome
from determinism_matrix import BEGIN, END, PAGE, Cell, compare, outcome, put, report
from record_fixtures import compute, fixture_path

# Short curves that together use both layouts, batches, biases, scaled RoPE and the projection of a donor's embedding.
SHORT = ["smoke_lcg31", "batch_2", "fused_gqa_head_dim", "fused_all_at_once"]


# The condition that loads the machine takes long, so only `make determinism-matrix` runs that condition.
@pytest.mark.parametrize("condition", [one for one in CONDITIONS if not one.busy], ids=lambda condition: condition.name)
def test_a_condition_of_the_process_changes_no_bit(condition: Condition) -> None:
    if why := condition.unavailable():
        pytest.skip(why)
    if not fixture_path().exists():
        pytest.skip("this profile has no fixture; tests/determinism/test_fixtures.py checks whether it must have one")
    recorded: dict[str, Any] = json.loads(fixture_path().read_text(encoding="utf-8"))["curves"]
    with condition.load():
        got = compute(2, "--only", *SHORT, "--times", str(condition.times), prefix=condition.prefix, env=condition.env)
    assert got == {name: recorded[name] for name in SHORT}


@pytest.mark.skipif(sys.platform != "linux", reason="gcc combines sin and cos only with glibc or musl")
@pytest.mark.parametrize(("suffix", "real"), [("f", ctypes.c_float), ("", ctypes.c_double)])
def test_sincos_of_the_c_library_equals_its_sin_and_cos(suffix: str, real: Any) -> None:
    """gcc calls sincos, and clang calls sin and cos. Their builds give the same bits only if these functions agree."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    sin, cos, both = (getattr(libm, name + suffix) for name in ("sin", "cos", "sincos"))
    sin.restype = cos.restype = real
    sin.argtypes = cos.argtypes = [real]
    both.restype, both.argtypes = None, [real, ctypes.POINTER(real), ctypes.POINTER(real)]
    draw = np.random.default_rng(0)
    s, c = real(), real()
    for x in np.concatenate([draw.uniform(0, 7, 20_000), draw.uniform(0, 2**20, 20_000), np.arange(2048)]):
        both(x, s, c)
        assert (s.value, c.value) == (sin(x), cos(x)), x


# ---- the matrix ----


def missing_compiler() -> Installed:
    raise NotRunError("clang is not installed")


def cell(row: str, column: str = "equal") -> Cell:
    return Cell(row, column, missing_compiler)


def test_a_curve_differs_if_one_bit_of_a_loss_or_of_the_weights_differs() -> None:
    recorded = {name: {"hex": ["0x1.8p+2", "0x1.4p+2"], "weights_sha256": "ab"} for name in ("a", "b")}
    assert compare(recorded, recorded) == Outcome(2)
    other_loss = {"hex": ["0x1.8p+2", "0x1.400002p+2"], "weights_sha256": "ab"}
    other_weights = {**recorded["b"], "weights_sha256": "ac"}
    for other in (other_loss, other_weights):
        differs = compare({**recorded, "b": other}, recorded)
        assert (differs.equal, differs.differ) == (1, ("b",))
    with pytest.raises(AssertionError, match="make fixtures"):
        compare({"a": recorded["a"]}, recorded)


def test_a_cell_whose_compiler_is_missing_is_not_run_and_not_counted() -> None:
    out = outcome(cell("clang Release"), {"a": {}})
    assert str(out) == "not run: clang is not installed"
    here, other = Outcome(17), Outcome(17, ("tiny_50",))
    part = report({"Builds": [(cell("gcc"), here), (cell("gcc", "8 threads"), other), (cell("clang"), out)]})
    assert part.startswith("**1 of 2 cells are equal bit for bit**, and 1 cells were not run.")
    assert "| gcc | 17/17 | 16/17 |" in part
    assert "gcc, 8 threads: tiny_50 differ." in part
    assert "| clang | not run: clang is not installed |  |" in part


def test_a_build_that_fails_counts_as_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program `false` takes the place of an installed compiler that rejects the source."""
    monkeypatch.setitem(determinism_builds.COMPILERS, "clang", [("false", "false")])
    broken = Cell("clang Release", "equal", lambda: Builds(tmp_path).of("clang", "Release"))
    out = outcome(broken, {"a": {}})
    assert out.bad
    assert str(out).startswith("not run: clang-Release does not build: ")
    assert not outcome(cell("clang Release"), {"a": {}}).bad
    assert Outcome(17, ("tiny_50",)).bad


def test_writing_the_matrix_replaces_only_its_part_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert put(page, "x\n").split(BEGIN)[1].split(END)[0] == "\nx\n"
    assert put(put(page, "x\n"), page.split(BEGIN + "\n")[1].split(END)[0]) == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--table", "Compiler and threads"],
            "--table 'Compiler and threads' does not exist; the tables are: Compilers and threads;",
        ),
        (["--table", "Ways to install"], "--table requires --print"),
    ],
)
def test_a_part_of_the_matrix_does_not_replace_the_page(arguments: list[str], message: str, tmp_path: Path) -> None:
    before = PAGE.read_bytes()
    script = determinism_matrix.__file__
    done = subprocess.run(
        [sys.executable, script, "--folder", str(tmp_path), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert PAGE.read_bytes() == before


def test_a_journal_returns_the_last_outcome_for_the_same_source_only(tmp_path: Path) -> None:
    path = tmp_path / "build" / "outcomes.jsonl"
    journal, first, last = Journal(path, "abc"), Outcome(17, ("tiny_50", "batch_2"), compiler="GNU 12"), Outcome(17)
    assert journal.read("Builds", "gcc", "equal") is None
    journal.add("Builds", "gcc", "equal", last)
    journal.add("Builds", "gcc", "equal", first)
    journal.add("Builds", "clang", "equal", Outcome(not_run="clang is not installed"))
    assert journal.read("Builds", "gcc", "equal") == first
    assert journal.read("Builds", "clang", "equal") is None
    assert journal.read("Pythons", "gcc", "equal") is None
    assert Journal(path, "abd").read("Builds", "gcc", "equal") is None


def test_a_build_of_the_sdist_starts_with_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files of an sdist have the same date, so in an old build folder ninja would not compile a changed file."""
    before = tmp_path / "gcc-Release-sdist" / "build" / "arithmetic.c.o"
    before.parent.mkdir(parents=True)
    before.touch()
    commands: list[str] = []

    def output_of(*command: str | Path, env: dict[str, str] | None = None) -> str:
        commands.append(str(next((part for part in command if part in ("--sdist", "--wheel")), "")))
        if commands[-1] == "--sdist":
            folder = Path(command[-2])
            (folder / "toynn-0").mkdir(parents=True)
            with tarfile.open(folder / "toynn-0.tar.gz", "w:gz") as archive:
                archive.add(folder / "toynn-0", "toynn-0")
        if commands[-1] == "--wheel":
            assert not before.exists()
            raise NotRunError("the wheel is not needed here")
        return "3.11.7"

    monkeypatch.setattr(determinism_builds, "output_of", output_of)
    with pytest.raises(BuildFailedError, match="the wheel is not needed here"):
        Builds(tmp_path).of("gcc", "Release", from_sdist=True)
    assert commands[-2:] == ["--sdist", "--wheel"]

"""Compare toynn on aarch64, in an emulator, with the bytes recorded on x86-64; `make aarch64` runs this script.

The script builds the wheel for aarch64 and compares the recorded curves, the initial weights, sampling, and training
that is resumed on the other processor, in both directions. It also runs tests of the session API and of the kernels.
The exit status is 1 if any result differs or any test fails. All files are written below build/aarch64.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "determinism"))

import toynn
from curves import CURVES
from emulated_build import AArch64Error, EmulatedBuild, emulated_build
from paths import FIXTURES, ROOT
from record_fixtures import compute
from record_run import ALL_STEPS, RUNS, outcome, record

FOLDER = ROOT / "build" / "aarch64"
VALUES = Path(__file__).with_name("values.py")
TESTS = [
    "tests/unit/session",
    "tests/unit/test_bf16_products.py",
    "tests/unit/test_c_calls.py",
    "tests/unit/test_exponential.py",
    "tests/unit/test_gemm_kernels.py",
    "tests/unit/test_generation.py",
    "tests/model/fused",
    "tests/model/test_batch_invariance.py",
]
# Tests that take too long in the emulator. They are run only on a real aarch64 machine.
NOT_EMULATED = [
    "tests/unit/test_bf16_products.py::test_products_of_any_shape_have_the_same_bits_under_every_kernel",
    "tests/unit/test_gemm_kernels.py::test_products_of_any_shape_have_the_same_bits_under_every_kernel",
    "tests/unit/test_generation.py::test_samples_follow_the_probabilities_and_depend_on_the_seed",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--record", nargs="*", metavar="CURVE",
        help="Record these golden curves of aarch64 instead of comparing (default: all curves).",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), help="Checks to run (default: all).")
    options = parser.parse_args()
    if options.record is not None and options.only:
        parser.error("--record runs no checks; leave out --only")
    try:
        build = emulated_build(FOLDER)
    except AArch64Error as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    if options.record is not None:
        recorder = ROOT / "tools" / "determinism" / "record_fixtures.py"
        only = ["--only", *options.record] if options.record else []
        subprocess.run([build.python, recorder, *only], cwd=ROOT, check=True)
        return
    print(f"comparing {toynn.build_info()['profile']} with aarch64", flush=True)
    failed = False
    for name in options.only or CHECKS:
        start = time.monotonic()
        problem = CHECKS[name](build)
        failed = failed or problem is not None
        print(f"{name}: {'equal' if problem is None else 'DIFFERENT'}, {time.monotonic() - start:.0f} s", flush=True)
        if problem is not None:
            print(problem, flush=True)
    sys.exit(failed)


# A check returns a description of the difference, or None if all results are equal.


def different_values(build: EmulatedBuild) -> str | None:
    """Compare initial weights, the exponential function and sampling."""
    here, there = (
        json.loads(subprocess.run([python, VALUES], check=True, capture_output=True).stdout)
        for python in (sys.executable, build.python)
    )
    print(f"  {len(here)} digests")
    return _names({name for name in here | there if here.get(name) != there.get(name)})


def different_curves(build: EmulatedBuild) -> str | None:
    """Compare all curves with the fixture of aarch64, and the fused curves also with the fixture of x86-64-v3."""
    own, other = (_curves(profile) for profile in ("aarch64", "x86-64-v3"))
    wanted = {**own, **{curve.name: other[curve.name] for curve in CURVES if curve.opts.layout == "fused"}}
    different: set[str] = set()
    for n_threads in (1, 3):
        curves = compute(n_threads, python=build.python)
        print(f"  {len(curves)} curves with {n_threads} threads")
        different |= {f"{name}, {n_threads} threads" for name in wanted if curves.get(name) != wanted[name]}
    return _names(different)


def different_runs(build: EmulatedBuild) -> str | None:
    """Compare runs of 12 steps that stay on one processor with runs that change the processor after 6 steps."""
    work = FOLDER / "runs"
    shutil.rmtree(work, ignore_errors=True)
    recorded, made = work / "x86-64", work / "aarch64"
    formats = sorted((FIXTURES / "runs").iterdir(), key=lambda folder: int(folder.name.removeprefix("format-")))
    for folder in formats:  # the folder of a format contains only the files that differ from the previous format
        shutil.copytree(folder, recorded, dirs_exist_ok=True)
    made.mkdir()
    shutil.copy(recorded / "stories.txt", made)
    record(made, str(build.toynn))
    expected, whole = (
        json.loads((folder / "expected.json").read_text(encoding="utf-8")) for folder in (recorded, made)
    )
    here = str(Path(sys.executable).with_name("toynn"))
    results = {
        "from aarch64 to aarch64": whole,
        "from x86-64 to aarch64": {name: _resumed(recorded, name, str(build.toynn)) for name in RUNS},
        "from aarch64 to x86-64": {name: _resumed(made, name, here) for name in RUNS},
    }
    print(f"  {len(results) * len(RUNS)} runs of {ALL_STEPS} steps")
    return _names({f"{name} {way}" for way, runs in results.items() for name in RUNS if runs[name] != expected[name]})


def failing_tests(build: EmulatedBuild) -> str | None:
    """Run the tests of the session API, of the fused layout, of the kernels and of generation."""
    deselected = [argument for test in NOT_EMULATED for argument in ("--deselect", test)]
    for test in NOT_EMULATED:
        print(f"  not run, because it takes too long: {test}")
    command = [str(build.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *deselected, *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"  {(done.stdout.strip().splitlines() or ['no output'])[-1]}")
    return None if done.returncode == 0 else done.stdout + done.stderr


def _curves(profile: str) -> dict[str, Any]:
    fixture: dict[str, Any] = json.loads((FIXTURES / f"curves.{profile}.json").read_text(encoding="utf-8"))
    curves: dict[str, Any] = fixture["curves"]
    return curves


def _resumed(folder: Path, name: str, command: str) -> dict[str, object]:
    """Return the result of a run that is resumed to its last step. The recorded run is not changed."""
    run = folder / f"{name} resumed"
    shutil.copytree(folder / name, run)
    steps = f"train.steps={ALL_STEPS}"
    resume = [command, "train", str(folder / "data"), "--out", str(run), "--quiet", "--resume", "--set", steps]
    subprocess.run(resume, check=True, stdout=subprocess.DEVNULL)
    return outcome(run)


def _names(different: set[str]) -> str | None:
    return "\n".join(f"  {name}" for name in sorted(different)) or None


# The checks, each with the name that selects it in --only.
CHECKS: dict[str, Callable[[EmulatedBuild], str | None]] = {
    "values": different_values,
    "curves": different_curves,
    "runs": different_runs,
    "tests": failing_tests,
}


if __name__ == "__main__":
    main()

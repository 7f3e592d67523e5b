"""Record the golden curves of this build's instruction-set profile; `make fixtures` runs this script."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import toynn
from curves import curve_names
from paths import EXAMPLES, FIXTURES

CURVES = Path(__file__).parent / "curves.py"
RECORDED_EXAMPLES = ("smoke_recipe_lora", "smoke_recipe_warm_start", "smoke_full_finetune")


def fixture_path() -> Path:
    """Return the path of the fixture with the curves of this build's profile."""
    return FIXTURES / f"curves.{toynn.build_info()['profile']}.json"


def compute(
    n_threads: int,
    *arguments: str,
    python: str | Path = sys.executable,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Compute the curves in a separate process with n_threads threads, which may be more than there are cores.

    Args:
        arguments: command-line arguments for curves.py.
        prefix: the beginning of the command, for example `setarch x86_64 -R`; Python and its arguments follow.
        env: environment variables to add to those of this process.
    """
    environment = {**os.environ, "TOYNN_N_THREADS": str(n_threads), "TOYNN_OVERSUBSCRIBE": "1", **(env or {})}
    command = [*prefix, str(python), str(CURVES), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{CURVES.name} with {n_threads} threads failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def output_of_example(name: str, n_threads: int) -> list[str]:
    """Return the lines that an example prints, in a separate process with n_threads threads."""
    environment = {**os.environ, "TOYNN_N_THREADS": str(n_threads), "TOYNN_OVERSUBSCRIBE": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="CURVE",
        help="Record these curves, and keep the others as they are (default: all).",
    )
    only = parser.parse_args().only
    # One thread is enough: a test checks that other thread counts give the same bytes.
    if only:
        fixture = json.loads(fixture_path().read_text(encoding="utf-8"))
        curves = fixture["curves"] | compute(1, "--only", *only)
        fixture["curves"] = {name: curves[name] for name in curve_names()}
        _write(fixture, len(only))
        return
    info = toynn.build_info()
    fixture = {
        "made_by": "make fixtures",
        "profile": info["profile"],
        "ggml_version": info["ggml_version"],
        "curves": compute(1),
        "examples": {name: output_of_example(name, 1) for name in RECORDED_EXAMPLES},
    }
    _write(fixture, len(fixture["curves"]))


def _write(fixture: dict[str, Any], recorded: int) -> None:
    fixture_path().write_text(json.dumps(fixture, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {recorded} curves in {fixture_path().relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()

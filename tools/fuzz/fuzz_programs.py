"""Builds programs of the fuzz target in a build folder, with the CMake and ninja of the virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from paths import ROOT


class BuildError(Exception):
    """What CMake or the compiler said."""


def _tool(name: str) -> str:
    """The program beside this Python, else the one on the path. Raises BuildError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise BuildError(f"{name} is neither beside {sys.executable} nor on the path; `make dev` installs it")
    return found


def _run(words: Sequence[str]) -> None:
    # `make sanitize` preloads a sanitizer into whatever its tests start: not into the compiler.
    outside = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        words, check=False, cwd=ROOT, env=outside, capture_output=True, text=True, errors="backslashreplace"
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def build(folder: Path, programs: Sequence[str], options: Sequence[str] = ()) -> list[Path]:
    """The paths of the programs, up to date. options: for CMake's configuration (-D...). Raises BuildError."""
    cmake, ninja = _tool("cmake"), _tool("ninja")
    _run([
        cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DPython_EXECUTABLE={sys.executable}", "-DTOYNN_FUZZ=ON", *options,
    ])  # fmt: skip
    _run([cmake, "--build", str(folder), "--target", *programs])
    return [folder / "tools" / "fuzz" / program for program in programs]

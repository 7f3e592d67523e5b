"""Build programs of the fuzz target with the CMake and ninja of the virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from paths import ROOT


class BuildError(Exception):
    """The build failed. The message is the output of CMake or of the compiler."""


def _tool(name: str) -> str:
    """Return a program from the folder of this Python, or else from PATH.

    Raise BuildError if it is in neither place.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise BuildError(f"{name} is neither in {Path(sys.executable).parent} nor on PATH; `make dev` installs it")
    return found


def _run(command: Sequence[str]) -> None:
    # `make sanitize` sets LD_PRELOAD for the programs that its tests start. The compiler must run without it.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=env, capture_output=True, text=True, errors="backslashreplace"
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def build(folder: Path, programs: Sequence[str], options: Sequence[str] = ()) -> list[Path]:
    """Build the programs and return their paths. Raise BuildError if the build fails.

    options: arguments for CMake's configuration (-D...).
    """
    cmake, ninja = _tool("cmake"), _tool("ninja")
    _run([
        cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DPython_EXECUTABLE={sys.executable}", "-DTOYNN_FUZZ=ON", *options,
    ])  # fmt: skip
    _run([cmake, "--build", str(folder), "--target", *programs])
    return [folder / "tools" / "fuzz" / program for program in programs]

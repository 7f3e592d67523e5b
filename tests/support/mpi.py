"""Start programs in several processes, with the MPI libraries of the packages mpich and openmpi."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from commands import TOYNN

MPICH, OPEN_MPI = "mpich", "openmpi"
# The packages share names like bin/mpiexec, so each library is started by a program that only its package has.
_LAUNCHERS = {MPICH: "mpiexec.hydra", OPEN_MPI: "prterun"}
_LIBRARIES = {MPICH: "libmpi.so.12", OPEN_MPI: "libmpi.so.40"}
_AS_ROOT = {
    f"{library}_ALLOW_RUN_AS_ROOT{confirm}": "1" for library in ("OMPI", "PRTE") for confirm in ("", "_CONFIRM")
}


def _prefix(library: str) -> Path:
    """Return the folder whose subfolder bin contains the launcher."""
    for folder in (sys.prefix, *sys.path):
        if (Path(folder) / "bin" / _LAUNCHERS[library]).exists():
            return Path(folder)
    pytest.fail(f"the package {library} is not installed; it belongs to the extra test")


def launch(library: str, n: int) -> list[str]:
    """Return the beginning of a command that starts n processes."""
    launcher = str(_prefix(library) / "bin" / _LAUNCHERS[library])
    options = ["--personality", "ompi", "--map-by", ":oversubscribe", "--bind-to", "none"]
    return [launcher, *(options if library == OPEN_MPI else []), "-n", str(n)]


def environment(library: str, **more: str) -> dict[str, str]:
    """Return the environment of a command of `launch`. The processes may use more threads than there are cores."""
    prefix = _prefix(library)
    values = {"MPI4PY_LIBMPI": str(prefix / "lib" / _LIBRARIES[library]), "TOYNN_OVERSUBSCRIBE": "1"}
    if library == OPEN_MPI:
        values |= {**_AS_ROOT, "OMPI_MCA_mpi_yield_when_idle": "1"}
        values |= {f"{one}_PREFIX": str(prefix) for one in ("OPAL", "PMIX", "PRTE")}
    return {**os.environ, **values, **more}


def toynn_in_processes(
    library: str, n: int, *arguments: str | Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command `toynn` in n processes, and return the completed process."""
    return in_processes(library, n, [*TOYNN, *map(str, arguments)], variables)


def in_processes(
    library: str, n: int, program: Sequence[str], variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*launch(library, n), *program],
        env=environment(library, **(variables or {})),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=120,
    )


def different_commands(library: str, commands: Sequence[Sequence[str | Path]]) -> subprocess.CompletedProcess[str]:
    """Run a job with one process for each given list of arguments of the command `toynn`."""
    launcher, *options, _, _ = launch(library, 1)
    parts = [["-n", "1", *TOYNN, *map(str, arguments)] for arguments in commands]
    program = [word for part in parts for word in (*part, ":")][:-1]
    return subprocess.run(
        [launcher, *options, *program],
        env=environment(library),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=120,
    )


def refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    """Check that a job ended with one line of toynn, which contains `says`."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("toynn:")]
    assert done.returncode != 0
    assert len(lines) == 1, done.stderr
    assert says in lines[0]

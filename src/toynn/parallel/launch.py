"""Find out from the environment whether mpiexec started this process, without loading an MPI library."""

from __future__ import annotations

import os

# The variables in which the launchers of MPI libraries state the number of processes, and the number of this process.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK")


def launched_processes() -> int:
    """Return the number of processes that mpiexec or srun started together with this process; 1 without such a
    launcher.

    Return 0 if the launcher states only the number of this process.
    """
    for name in _SIZES:
        if (n := _number(name)) is not None:
            return n
    if _number("PMIX_RANK") is not None:
        return _number("SLURM_STEP_NUM_TASKS") or 0  # srun --mpi=pmix states the number of processes
    return 1


def launched_rank() -> int:
    """Return the number of this process, from 0, among the processes that mpiexec or srun started."""
    return next((rank for name in _RANKS if (rank := _number(name)) is not None), 0)


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() else None

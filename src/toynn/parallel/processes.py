"""Processes: the processes of a job, what they exchange, and how all of them end if one of them fails.

An error is either shared or not. A shared error occurs in all processes at the same place, because the processes
exchanged the error (`together`). Each process then ends as a single process would, but only process 0 prints the error.
For any other error, the process prints the error with its number and its host, and ends all processes (`abort`).
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from toynn.errors import ProcessError, TinyNNError
from toynn.extras import naming_the_extra
from toynn.parallel.launch import launched_processes
from toynn.tinynn import tnn_available_cores
from toynn.tinynn.thread_count import oversubscribe_from_environment

T = TypeVar("T")
Item = TypeVar("Item")
F32 = npt.NDArray[np.float32]

_job: Processes | None = None


class Processes:
    """The processes that mpiexec started. rank: the number of this process, from 0. n: the number of all processes.

    host: the name of this process's machine. writes: True in process 0, the only one that writes files and output.
    quiet: True if another process prints the error with which this process ends.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank: int = comm.Get_rank()
        self.n: int = comm.Get_size()
        self.host = socket.gethostname()
        self.writes = self.rank == 0
        self._shared = False  # the current error occurred in all processes
        self._started = False  # all processes have passed the first `together`

    @property
    def quiet(self) -> bool:
        return self._shared and not self.writes

    # ---- errors ----

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block in all processes. If the block fails in one process, raise an error in all of them.

        If all processes have the same error, it is raised unchanged, otherwise ProcessError names the process.
        """
        try:
            yield
        except Exception as error:
            self._exchange(error)
            raise
        self._exchange(None)

    def _exchange(self, error: Exception | None) -> None:
        """Exchange the errors of all processes. Return if nothing failed, or if `error` is the error of all."""
        text = None if error is None else _one_line(error)
        found = self.gathered((text, self.host))
        self._started = True
        failed = [(rank, one, host) for rank, (one, host) in enumerate(found) if one is not None]
        if not failed:
            return
        self._shared = True
        if len(failed) < self.n or len({one for _, one, _ in failed}) > 1:
            rank, message, host = failed[0]
            raise ProcessError(f"process {rank} of {self.n} on host {host}: {message}") from error

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """End all processes if the block fails in this process with an error that the others do not have."""
        try:
            yield
        except BaseException as error:
            if not self._shared:
                self.abort(error)
            raise

    def fail(self, error: Exception) -> None:
        """Report an error before the first `together`, so that the other processes do not wait for this one.

        Raises ProcessError if the other processes do not have this error.
        """
        if not self._started and not self._shared:
            self._exchange(error)

    def abort(self, error: BaseException) -> NoReturn:
        """Print the error with the process and the host, and end all processes."""
        interrupted = isinstance(error, KeyboardInterrupt)
        if not isinstance(error, TinyNNError | OSError | KeyboardInterrupt | MemoryError):
            traceback.print_exception(error)
        message = "interrupted" if interrupted else _one_line(error)
        print(f"toynn: process {self.rank} of {self.n} on host {self.host}: {message}", file=sys.stderr, flush=True)
        self._comm.Abort(130 if interrupted else 1)
        os._exit(1)  # the MPI library has not ended the process

    def shared(self, error: T) -> T:
        """Return an error that all processes raise at the same place."""
        self._shared = True
        return error

    # ---- exchange ----

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of the processes."""
        values: list[T] = self._comm.allgather(value)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process."""
        return any(self.gathered(flag))

    def from_writer(self, value: T) -> T:
        """Return the value of process 0."""
        result: T = self._comm.bcast(value, root=0)
        return result

    def sums(self, values: npt.NDArray[np.float64]) -> None:
        """Add the arrays of all processes, in place. The result is exact if at most one process has a value not 0."""
        from mpi4py import MPI

        self._comm.Allreduce(MPI.IN_PLACE, values)

    def exchange_slices(self, parts: list[F32], counts: list[int]) -> list[F32]:
        """Send parts[j] to process j. Return what the processes sent to this one, where process i sends counts[i]
        numbers.
        """
        received = np.empty(sum(counts), dtype=np.float32)
        sizes = [part.size for part in parts]
        self._comm.Alltoallv([np.concatenate(parts), sizes], [received, counts])
        return np.split(received, np.cumsum(counts)[:-1])

    def gather_slices(self, part: F32, counts: list[int]) -> F32:
        """Return the parts of all processes one after the other. Process i has counts[i] numbers."""
        whole = np.empty(sum(counts), dtype=np.float32)
        self._comm.Allgatherv(part, [whole, counts])
        return whole

    def collect_slices(self, part: F32, counts: list[int]) -> F32 | None:
        """Return the parts of all processes one after the other in process 0, and None in the others."""
        whole = np.empty(sum(counts), dtype=np.float32) if self.writes else None
        self._comm.Gatherv(part, None if whole is None else [whole, counts])
        return whole

    # ---- placement ----

    def threads(self, wanted: int | None) -> int:
        """Return the number of threads of this process. wanted: the number that the user asked for, or None.

        By default, the processes of a host share its cores equally. Raises ProcessError if the processes of a host
        would compute with more threads than cores.
        """
        cores = _cores()
        places = self.gathered((self.host, cores, tnn_available_cores(), wanted))
        here = [(one, available, asked) for host, one, available, asked in places if host == self.host]
        sharing = sum(1 for one, _, _ in here if not cores.isdisjoint(one))
        available = tnn_available_cores()
        n = max(available // sharing, 1) if wanted is None else wanted
        if n * sharing > available and not oversubscribe_from_environment():
            limit = "one of them" if available == 1 else f"at most {available} of them"
            remedy = (
                f"start {limit} on each host (-ppn {available} for MPICH, --map-by ppr:{available}:node for Open MPI)"
                if wanted is None
                else f"use at most {available // sharing} threads"
                if available >= sharing
                else f"start {limit} on a host"
            )
            raise ProcessError(
                f"{sharing} processes with {n} {'thread' if n == 1 else 'threads'} each would share {available} "
                f"{'core' if available == 1 else 'cores'} of host {self.host}; {remedy}, or set TOYNN_OVERSUBSCRIBE=1"
            )
        return n


def in_turn(processes: Processes | None, items: Sequence[Item], compute: Callable[[Item], T]) -> list[T]:
    """Return compute(item) for each item, in the order of the items. The processes compute the items in turn.

    processes: the processes, all of which call this function, or None for a process that computes alone.
    """
    rank, n = (0, 1) if processes is None else (processes.rank, processes.n)
    own = [compute(item) for item in items[rank::n]]
    every = [own] if processes is None else processes.gathered(own)
    return [every[i % n][i // n] for i in range(len(items))]


def _one_line(error: BaseException) -> str:
    """Return the message of an error in one line, or the name of its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def _cores() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))


def processes_of_job() -> Processes | None:
    """Return the processes of the job of this process, or None if it computes alone.

    Raises ModuleNotFoundError, naming the extra, without mpi4py; ProcessError if mpi4py uses another MPI library than
    mpiexec.
    """
    global _job  # noqa: PLW0603 (a process belongs to one job)
    n = launched_processes()
    if n == 1 or _job is not None:
        return _job
    with naming_the_extra():
        from mpi4py import MPI
    comm = MPI.COMM_WORLD
    if n == 0 and comm.Get_size() == 1:
        return None
    if comm.Get_size() != n > 0:
        library = " ".join(MPI.Get_library_version().split()[:4])
        raise ProcessError(
            f"mpiexec started {n} processes, but mpi4py has loaded another MPI library ({library}) and sees "
            f"{comm.Get_size()}; start with the mpiexec of this library, or set MPI4PY_LIBMPI to the library of mpiexec"
        )
    _job = Processes(comm.Dup())
    return _job

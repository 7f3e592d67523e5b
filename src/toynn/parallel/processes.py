"""Processes: the processes of a job, what they exchange, and how all of them end if one of them fails.

An error is either shared or not. A shared error occurs in all processes at the same place, because the processes
exchanged the error (`together`). Each process then ends as a single process would, but only process 0 prints the error.
For any other error, the process prints the error with its number and its host, and ends all processes (`abort`).

In a block of `together`, the processes must exchange values only with `exchanged`. If a process fails, it sends its
error in place of its next value.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from toynn.errors import ProcessError, TinyNNError
from toynn.extras import naming_the_extra
from toynn.parallel.launch import launched_processes
from toynn.tinynn import tnn_available_cores
from toynn.tinynn.thread_count import oversubscribe_from_environment
from toynn.wording import one_line

T = TypeVar("T")
Error = TypeVar("Error", bound=BaseException)
F32 = npt.NDArray[np.float32]

_POLL = 0.0005  # seconds between two calls of the MPI library while the process computes
_job: Processes | None = None


class Processes:
    """The processes that mpiexec started. rank: the number of this process, from 0. n: the number of all processes.

    host: the name of this process's machine. writes: True in process 0, the only one that writes files and output.
    quiet: True if another process prints the error with which this process ends.

    from_threads: whether several threads may call the MPI library at the same time.
    """

    def __init__(self, comm: Any, from_threads: bool = False) -> None:
        self._comm, self._from_threads = comm, from_threads
        self.rank: int = comm.Get_rank()
        self.n: int = comm.Get_size()
        self.host = socket.gethostname()
        self.writes = self.rank == 0
        self._shared: BaseException | None = None  # the error that occurred in all processes
        self._met = False  # True after the processes have compared their commands
        self._started = False  # True after all processes have passed the first `together`

    @property
    def quiet(self) -> bool:
        return self._shared is not None and not self.writes

    # ---- errors ----

    def meet(self, command: str, error: Exception | None = None) -> None:
        """Check that all processes run the same command. Later calls do nothing.

        Each process calls this method once before it exchanges anything else, or before it ends.

        command: the command as text; "" if there is an error. error: the error with which this process ends, or None.

        Raises ProcessError in all processes if the commands differ, or if only some processes have this error.
        """
        if self._met:
            return
        self._met = True
        every = self.gathered((command, self.host, None if error is None else one_line(error)))
        self._compare_errors([(text, host) for _, host, text in every], error)
        if error is not None:
            return
        first, first_host, _ = every[0]
        for rank, (other, host, _) in enumerate(every):
            if other != first:
                raise self.shared(
                    ProcessError(
                        f"process {rank} of {self.n} on host {host} runs {other}, but process 0 on host {first_host} "
                        f"runs {first}; start all processes with the same command"
                    )
                )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block in all processes. If the block fails in one process, raise an error in all of them.

        If all processes have the same error, it is raised unchanged, otherwise ProcessError names the process.
        """
        try:
            yield
        except Exception as error:
            if not self._is_shared(error):
                self._exchange(error, None)
            raise
        self._exchange(None, None)

    def exchanged(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of the processes, as `gathered` does.

        Raises ProcessError in all processes if one of them has failed in the block of `together`.
        """
        return self._exchange(None, value)

    def _exchange(self, error: Exception | None, value: T) -> list[T]:
        """Exchange the errors and the values of all processes. Return the values if no process has failed, and [] if
        `error` is the error of all processes.
        """
        found = self.gathered((None if error is None else one_line(error), self.host, value))
        self._started = True
        failed = self._compare_errors([(text, host) for text, host, _ in found], error)
        return [] if failed else [one for _, _, one in found]

    def _compare_errors(self, texts: list[tuple[str | None, str]], error: Exception | None) -> bool:
        """Return whether all processes have the same error, which is then shared.

        texts: the error and the host of each process. error: the error of this process.
        """
        failed = [(rank, text, host) for rank, (text, host) in enumerate(texts) if text is not None]
        if not failed:
            return False
        if error is None or len(failed) < self.n or len({text for _, text, _ in failed}) > 1:
            rank, text, host = failed[0]
            raise self.shared(ProcessError(f"process {rank} of {self.n} on host {host}: {text}")) from error
        self.shared(error)
        return True

    def compare(self, facts: Mapping[str, str]) -> None:
        """Raise ProcessError in all processes if a fact of a process differs from that of process 0. facts: the value
        of each fact by its name.
        """
        every = self.exchanged((self.host, dict(facts)))
        first_host, first = every[0]
        for rank, (host, other) in enumerate(every):
            for what, value in other.items():
                if value != first[what]:
                    shown = "" if "\n" in value else f" ({value})"
                    raise self.shared(
                        ProcessError(
                            f"the {what}{shown} of process {rank} on host {host} differs from that of process 0 on "
                            f"host {first_host}{'' if not shown else f' ({first[what]})'}; give all processes the "
                            f"same {what}"
                        )
                    )

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """End all processes if the block fails in this process with an error that the other processes do not have."""
        try:
            yield
        except GeneratorExit:
            # Ctrl-C arrived before contextlib could pass an error to this generator. Python now closes the generator,
            # and the command has already printed the message of Ctrl-C.
            self._comm.Abort(130)
            raise
        except BaseException as error:
            if not self._is_shared(error):
                self.abort(error)
            raise

    def fail(self, error: Exception) -> None:
        """Report an error that occurs before the first `together`. The other processes then do not wait for this
        process.

        Raises ProcessError if the other processes do not have this error.
        """
        if not self._met:
            self.meet("", error)
        elif not self._started and self._shared is None:
            self._exchange(error, None)

    def abort(self, error: BaseException) -> NoReturn:
        """Print the error with the process and the host, and end all processes."""
        interrupted = isinstance(error, KeyboardInterrupt)
        if threading.current_thread() is threading.main_thread():
            # Ctrl-C can arrive twice: from the terminal, and from mpiexec.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not isinstance(error, TinyNNError | OSError | KeyboardInterrupt | MemoryError):
            traceback.print_exception(error)
        if interrupted and not self.writes:
            # if process 0 received Ctrl-C too, process 0 prints the message and ends this process in the meantime
            time.sleep(1)
        message = "interrupted" if interrupted else one_line(error)
        if not (interrupted and self.writes):
            message = f"process {self.rank} of {self.n} on host {self.host}: {message}"
        print(f"toynn: {message}", file=sys.stderr, flush=True)
        self._comm.Abort(130 if interrupted else 1)
        os._exit(1)  # this line runs only if the MPI library has not ended the process

    def shared(self, error: Error) -> Error:
        """Return an error that all processes raise at the same place."""
        self._shared = error
        return error

    def _is_shared(self, error: BaseException) -> bool:
        """Return whether an error is the shared error, or was raised because of the shared error."""
        at: BaseException | None = error
        while at is not None and at is not self._shared:
            at = at.__cause__ or at.__context__
        return at is not None

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

    def send(self, value: object, rank: int) -> Any:
        """Send a value to process `rank`, and return the MPI request, which is complete when the value was received."""
        return self._comm.isend(value, rank)

    def receive(self, rank: int) -> Any:
        """Wait for the next value that process `rank` sends to this process, and return the value."""
        pause = 1e-5
        while not self.has_message(rank):  # `recv` would use a whole core while it waits
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        return self._comm.recv(source=rank)

    def has_message(self, rank: int) -> bool:
        """Return whether a value of process `rank` has arrived."""
        return bool(self._comm.iprobe(source=rank))

    def sums(self, values: npt.NDArray[np.float64]) -> None:
        """Add the arrays of all processes, in place. The result is exact if, at each position, at most one process has
        a value other than 0.
        """
        own = values.copy()
        self._comm.Allreduce(own, values)

    def start_exchange(self, sent: F32, sizes: list[int], received: F32, counts: list[int]) -> Any:
        """Start to send a slice of `sent` to each process, and to receive a slice from each process.

        Return the MPI request. Its method `Wait` waits until both arrays can be used.

        sizes: the number of elements of each slice in `sent`. counts: the number of elements that each process sends to
        this process. Both arrays contain the slices one after the other.
        """
        return self._comm.Ialltoallv([sent, sizes], [received, counts])

    def start_gather(self, part: F32, whole: F32, counts: list[int]) -> Any:
        """Start to write the parts of all processes one after the other to `whole`. Process i has counts[i] numbers.

        Return the MPI request, as `start_exchange` does.
        """
        return self._comm.Iallgatherv(part, [whole, counts])

    @contextmanager
    def transferring(self) -> Iterator[None]:
        """Let started exchanges continue while the block computes.

        An MPI library transfers data only while one of its functions runs. So a second thread calls such a function
        every half millisecond. If the library does not allow calls from several threads, the data is transferred during
        the next call of the main thread.
        """
        if not self._from_threads:
            yield
            return
        end = threading.Event()
        thread = threading.Thread(target=self._poll, args=(end,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _poll(self, end: threading.Event) -> None:
        with suppress(RuntimeError):  # an error of MPI, which the next exchange raises in the main thread
            while not end.wait(_POLL):
                self._comm.Iprobe()

    def collect_slices(self, part: F32, counts: list[int]) -> F32 | None:
        """Return the parts of all processes one after the other in process 0, and None in the other processes."""
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


def _cores() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))


def processes_of_job() -> Processes | None:
    """Return the processes of the job of this process, or None if it computes alone.

    Raises ModuleNotFoundError, naming the extra, without mpi4py, or ProcessError if mpi4py uses another MPI library
    than mpiexec.
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
            f"mpiexec started {n} processes, but mpi4py has loaded another MPI library ({library}), in which the "
            f"number of processes is {comm.Get_size()}; start with the mpiexec of this library, or set MPI4PY_LIBMPI "
            "to the library of mpiexec"
        )
    _job = Processes(comm.Dup(), MPI.Query_thread() >= MPI.THREAD_MULTIPLE)
    return _job

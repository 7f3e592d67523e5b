"""Run a function in several threads that stand for the processes of a job. No MPI is needed."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import numpy.typing as npt

from toynn.parallel.processes import Processes

T = TypeVar("T")
Array = npt.NDArray[Any]


class _Request:
    """A collective exchange that happens when all threads wait for it. Until then, `received` holds wrong values."""

    def __init__(self, exchange: Callable[[], None], received: Array) -> None:
        self._exchange = exchange
        received.fill(np.nan)

    def Wait(self) -> None:  # noqa: N802 (the name in mpi4py)
        self._exchange()


class _Comm:
    """The part of an MPI communicator that toynn uses. Every object is pickled, as mpi4py does."""

    def __init__(
        self,
        rank: int,
        places: list[bytes],
        barrier: threading.Barrier,
        boxes: dict[tuple[int, int], queue.Queue[bytes]],
    ) -> None:
        self._rank, self._n, self._places, self._barrier, self._boxes = rank, len(places), places, barrier, boxes

    def Get_rank(self) -> int:  # noqa: N802 (the name in mpi4py)
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        return self._n

    def allgather(self, value: Any) -> list[Any]:
        self._places[self._rank] = pickle.dumps(value)
        self._barrier.wait(60)
        found = [pickle.loads(one) for one in self._places]
        self._barrier.wait(60)
        return found

    def Ialltoallv(self, sent: tuple[Array, list[int]], received: tuple[Array, list[int]]) -> _Request:  # noqa: N802
        def exchange() -> None:
            every = self.allgather(np.split(sent[0], np.cumsum(sent[1])[:-1]))
            slices = [of[self._rank] for of in every]
            assert [one.size for one in slices] == received[1]
            received[0][:] = np.concatenate(slices)

        return _Request(exchange, received[0])

    def Iallgatherv(self, part: Array, whole: tuple[Array, list[int]]) -> _Request:  # noqa: N802
        def exchange() -> None:
            parts = self.allgather(part)
            assert [one.size for one in parts] == whole[1]
            whole[0][:] = np.concatenate(parts)

        return _Request(exchange, whole[0])

    def Gatherv(self, part: Array, whole: tuple[Array, list[int]] | None) -> None:  # noqa: N802
        parts = self.allgather(part)
        if whole is not None:
            whole[0][:] = np.concatenate(parts)

    def Allreduce(self, values: Array, total: Array) -> None:  # noqa: N802
        total[:] = np.sum(self.allgather(values), axis=0)

    def isend(self, value: Any, rank: int) -> mock.Mock:
        self._boxes[self._rank, rank].put(pickle.dumps(value))
        return mock.Mock()

    def recv(self, source: int) -> Any:
        return pickle.loads(self._boxes[source, self._rank].get(timeout=60))

    def iprobe(self, source: int) -> bool:
        return not self._boxes[source, self._rank].empty()


def in_threads(n: int, work: Callable[[Processes], T]) -> list[T | Exception]:
    """Return what `work` returns or raises in each of n processes. Fail if a process waits for another one for ever."""
    places, barrier = [b""] * n, threading.Barrier(n)
    boxes: dict[tuple[int, int], queue.Queue[bytes]] = {
        (one, other): queue.Queue() for one in range(n) for other in range(n)
    }

    def run(rank: int) -> T | Exception:
        try:
            return work(Processes(_Comm(rank, places, barrier, boxes)))
        except threading.BrokenBarrierError:
            raise
        except Exception as error:
            return error

    with ThreadPoolExecutor(n) as pool:
        return [one.result() for one in [pool.submit(run, rank) for rank in range(n)]]

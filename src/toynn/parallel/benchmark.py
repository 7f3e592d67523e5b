"""Measure the exchanges of a training step between the processes of a job."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from toynn.parallel.cost_model import Network
from toynn.parallel.processes import Processes

_REPEATS = 5


def measured_network(processes: Processes, megabytes: int) -> Network:
    """Return the latency and the bandwidth between the processes, and the bandwidth of their memory. All processes call
    this function.

    megabytes: the size of the vector that each process sends in parts to the other processes.
    """
    n = processes.n
    small, large = [1] * n, [max(megabytes * 250_000 // n, 1)] * n
    latency = _seconds(processes, small) / (2 * (n - 1))
    sent = 2 * 4 * large[0] * (n - 1)
    bandwidth = sent / max(_seconds(processes, large) - latency * 2 * (n - 1), 1e-9)
    return Network(latency, bandwidth, _memory(processes, megabytes))


def _memory(processes: Processes, megabytes: int) -> float:
    """Return the bytes per second that a process reads and writes in a copy, while all processes copy."""
    source, copy = (np.ones(megabytes * 250_000, dtype=np.float32) for _ in range(2))
    return 2 * source.nbytes / max(_median(processes, lambda: np.copyto(copy, source)), 1e-9)


def _seconds(processes: Processes, counts: list[int]) -> float:
    """Return the median duration of an all-to-all exchange and an all-gather, in the slowest process."""
    sent, received = (np.ones(sum(counts), dtype=np.float32) for _ in range(2))

    def exchange() -> None:
        processes.start_exchange(sent, counts, received, counts).Wait()
        processes.start_gather(sent[: counts[processes.rank]], received, counts).Wait()

    return _median(processes, exchange)


def _median(processes: Processes, work: Callable[[], None]) -> float:
    """Return the median duration of some work in the slowest process."""
    work()  # the first exchange opens the connections
    times = [max(processes.gathered(_timed(work))) for _ in range(_REPEATS)]
    return sorted(times)[_REPEATS // 2]


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

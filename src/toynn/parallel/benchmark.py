"""Measure the exchanges of a training step between the processes of a job."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from toynn.parallel.cost_model import Network
from toynn.parallel.processes import Processes

_REPEATS = 5


def measured_network(processes: Processes, megabytes: int) -> Network:
    """Return the latency and the bandwidth between the processes. All processes call this function.

    megabytes: the size of the vector that each process sends in parts to the others.
    """
    n = processes.n
    small, large = [1] * n, [max(megabytes * 250_000 // n, 1)] * n
    latency = _seconds(processes, small) / (2 * (n - 1))
    sent = 2 * 4 * large[0] * (n - 1)
    return Network(latency, sent / max(_seconds(processes, large) - latency * 2 * (n - 1), 1e-9))


def _seconds(processes: Processes, counts: list[int]) -> float:
    """Return the median duration of an all-to-all exchange and an all-gather, in the slowest process."""
    parts = [np.ones(count, dtype=np.float32) for count in counts]

    def exchange() -> None:
        processes.exchange_slices(parts, counts)
        processes.gather_slices(parts[processes.rank], counts)

    exchange()  # the first exchange opens the connections
    times = [max(processes.gathered(_timed(exchange))) for _ in range(_REPEATS)]
    return sorted(times)[_REPEATS // 2]


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

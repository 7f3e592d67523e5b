"""Divide independent computations among the processes of a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from toynn.errors import TinyNNValueError
from toynn.parallel.processes import Processes

A = TypeVar("A")
T = TypeVar("T")


def in_turn(processes: Processes | None, items: Sequence[A], compute: Callable[[A], T]) -> list[T]:
    """Return compute(item) for each item, in the order of the items. Each process computes a part of the items.

    processes: the processes of the job, all of which call this function. None: this process computes all items.

    Raises the TinyNNValueError of the first computation that fails, as a single process would. Any other exception is
    raised only in the process in which it occurs.
    """
    if processes is None:
        return [compute(item) for item in items]
    own: list[T | TinyNNValueError] = []
    for item in items[processes.rank :: processes.n]:
        own.append(result_or_error(compute, item))
        if isinstance(own[-1], TinyNNValueError):
            break
    every = processes.exchanged(own)
    found: list[T] = []
    for i in range(len(items)):
        one = every[i % processes.n][i // processes.n]
        if isinstance(one, TinyNNValueError):
            raise processes.shared(one)
        found.append(one)
    return found


def result_or_error(compute: Callable[[A], T], given: A) -> T | TinyNNValueError:
    """Return compute(given), or the TinyNNValueError that compute raises."""
    try:
        return compute(given)
    except TinyNNValueError as error:
        return error

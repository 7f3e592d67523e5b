"""Process 0 of a job reads the work, gives parts of the work to the other processes, and uses the results in order.

So only process 0 reads and writes files, and errors in the input are found in the same order as in a single process.
Messages to a worker are pairs of a kind and its content:

    TASK   the worker computes the following items by this task, as `follow` describes
    ITEM   an item. The worker answers with its result, or with an error
    END    the worker answers with ENDED and ends
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from toynn.errors import ProcessError, TinyNNValueError
from toynn.parallel.in_order import Each, one_after_another
from toynn.parallel.processes import Processes
from toynn.wording import one_line

A = TypeVar("A")
T = TypeVar("T")
TASK, ITEM, END, ENDED = "task", "item", "end", "ended"
_AHEAD = 2  # a worker has at most the item that it computes and the next item


class _Failure(NamedTuple):
    """An error in a worker that is not about the input, for example missing memory. text: the message of the error."""

    text: str


class Workers:
    """The other processes of a job, which compute for process 0. They end at the end of the `with` block.

    While the block runs, the other processes run `follow`.

    n_threads: the number of threads of each process, or None if it is not limited.
    """

    def __init__(self, processes: Processes, n_threads: int | None = None) -> None:
        self._processes, self.n_threads = processes, n_threads
        self._sent: list[Any] = []  # requests of messages that may not have arrived yet

    @property
    def n(self) -> int:
        """Number of processes of the job, including process 0."""
        return self._processes.n

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if isinstance(error, Exception | KeyboardInterrupt):
            # the other processes end normally, so this error must not abort them
            self._processes.shared(error)
        for rank in range(1, self._processes.n):
            self._send(rank, END, None)
        for rank in range(1, self._processes.n):  # after an error, some results may not have arrived yet
            while self._processes.receive(rank) != ENDED:
                pass

    def start(self, task: object) -> None:
        """Let the workers compute all later items with this task, an object that can be pickled."""
        for rank in range(1, self._processes.n):
            self._send(rank, TASK, task)

    def computed(self, compute: Callable[[A], T], items: Iterable[A]) -> Iterator[tuple[A, T]]:
        """Yield each item with its result, in the order of the items. compute: the computation in this process, which
        gives the same results as the task of the workers.

        If the computation of an item raises TinyNNValueError, this error is raised after the results of the items
        before. An error of `items` is raised after all results. Any other error of a worker becomes a ProcessError,
        which names the process.
        """
        # each item, the process that computes it, and a list with its result if the result is known
        waiting: deque[tuple[A, int, list[T]]] = deque()
        held = [0] * self._processes.n  # number of items that each worker has
        remaining, error = iter(items), None
        while True:
            try:
                item = next(remaining)
            except StopIteration:
                break
            # this error is raised later, because a result before it may contain an earlier error
            except Exception as found:
                error = found
                break
            rank = min(range(1, self._processes.n), key=held.__getitem__)
            if held[rank] < _AHEAD:
                self._send(rank, ITEM, item)
                held[rank] += 1
                waiting.append((item, rank, []))
            else:
                waiting.append((item, 0, [compute(item)]))
            while waiting and (waiting[0][2] or len(waiting) > 2 * _AHEAD * self._processes.n or self._ready(waiting)):
                yield self._next(waiting, held)
        while waiting:
            yield self._next(waiting, held)
        if error is not None:
            raise error

    def _ready(self, waiting: deque[tuple[A, int, list[T]]]) -> bool:
        return self._processes.has_message(waiting[0][1])

    def _next(self, waiting: deque[tuple[A, int, list[T]]], held: list[int]) -> tuple[A, T]:
        """Remove the first item and return it with its result. Wait for the result if necessary."""
        item, rank, known = waiting.popleft()
        if rank == 0:
            return item, known[0]
        held[rank] -= 1
        result = self._processes.receive(rank)
        if isinstance(result, TinyNNValueError):
            raise result
        if isinstance(result, _Failure):
            raise ProcessError(result.text)
        return item, result

    def _send(self, rank: int, kind: str, content: object) -> None:
        self._sent = [one for one in self._sent if not one.Test()]
        self._sent.append(self._processes.send((kind, content), rank))


def each_in_order(workers: Workers | None) -> Each:
    """Return the function that computes items with the workers, or in this process if there are no workers."""
    return one_after_another if workers is None else workers.computed


def follow(processes: Processes, opened: Callable[[Any], AbstractContextManager[Callable[[Any], Any]]]) -> None:
    """Compute the items that process 0 sends, until process 0 sends END.

    opened: a function of a task. It returns a context manager, which yields the function that computes an item.
    """
    # Ctrl-C reaches all processes. Process 0 handles it and ends this process.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if _is_main_thread() else None
    try:
        _follow(processes, opened)
    finally:
        if _is_main_thread():
            signal.signal(signal.SIGINT, previous)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _follow(processes: Processes, opened: Callable[[Any], AbstractContextManager[Callable[[Any], Any]]]) -> None:
    with ExitStack() as stack:
        compute: Callable[[Any], Any] = partial(_always, _Failure("bug in toynn: an item came before its task"))
        while True:
            kind, content = processes.receive(0)
            if kind == END:
                processes.send(ENDED, 0).wait()
                return
            if kind == ITEM:
                processes.send(_result(processes, compute, content), 0).wait()
                continue
            stack.close()
            try:
                compute = stack.enter_context(opened(content))
            except Exception as error:
                compute = partial(_always, _answer(processes, error))


def _always(answer: T, item: object) -> T:  # noqa: ARG001
    """Return the answer for every item."""
    return answer


def _result(processes: Processes, compute: Callable[[Any], Any], item: object) -> Any:
    try:
        return compute(item)
    except Exception as error:
        return _answer(processes, error)


def _answer(processes: Processes, error: Exception) -> TinyNNValueError | _Failure:
    """Return the answer for an error: the error itself if it is about the input, otherwise a description."""
    if isinstance(error, TinyNNValueError):
        return error
    return _Failure(f"process {processes.rank} of {processes.n} on host {processes.host}: {one_line(error)}")

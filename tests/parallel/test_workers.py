"""Process 0 gives items to the other processes, which are threads here: results in order, and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from thread_processes import in_threads
from toynn.errors import FileFormatError, ProcessError
from toynn.parallel.processes import Processes
from toynn.parallel.workers import Workers, follow

pytestmark = pytest.mark.quick


def job(n: int, compute: Callable[[Processes, Any], Any], items: Callable[[], Iterator[Any]]) -> list[Any]:
    """Return what each process returns or raises. Process 0 returns the items with their results."""

    def work(processes: Processes) -> Any:
        def own(item: Any) -> Any:
            return compute(processes, item)

        if processes.rank > 0:
            return follow(processes, lambda _: nullcontext(own))
        with Workers(processes) as workers:
            workers.start("task")
            return list(workers.computed(own, items()))

    return in_threads(n, work)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("items", [0, 1, 50])
def test_results_are_in_the_order_of_the_items(n: int, items: int) -> None:
    by: set[int] = set()

    def square(processes: Processes, item: int) -> int:
        by.add(processes.rank)
        return item * item

    assert job(n, square, lambda: iter(range(items))) == [[(i, i * i) for i in range(items)]] + [None] * (n - 1)
    assert items < 2 or by - {0}


def test_only_few_items_are_read_ahead() -> None:
    read: list[int] = []
    ahead: list[int] = []

    def items() -> Iterator[int]:
        for i in range(500):
            read.append(i)
            yield i

    def work(processes: Processes) -> None:
        if processes.rank > 0:
            return follow(processes, lambda _: nullcontext(abs))
        with Workers(processes) as workers:
            workers.start("task")
            for item, _ in workers.computed(abs, items()):
                ahead.append(len(read) - item)
        return None

    assert in_threads(2, work) == [None, None]
    assert len(ahead) == 500
    assert max(ahead) < 12


@pytest.mark.parametrize("n", [2, 4])
def test_the_first_wrong_item_is_the_error_of_process_0_alone(n: int) -> None:
    def check(_: Processes, item: int) -> int:
        if item in (11, 12, 17):
            raise FileFormatError(f"item {item} is damaged")
        return item

    error, *others = job(n, check, lambda: iter(range(30)))
    assert (type(error), str(error)) == (FileFormatError, "item 11 is damaged")
    assert others == [None] * (n - 1)


def test_an_error_of_the_items_comes_after_the_results_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(6)
        raise OSError("the file cannot be read")

    def check(_: Processes, item: int) -> int:
        if item == 5:
            raise FileFormatError("item 5 is damaged")
        return item

    assert str(job(2, check, items)[0]) == "item 5 is damaged"
    assert str(job(2, lambda _, item: item, items)[0]) == "the file cannot be read"


def test_another_error_of_a_worker_names_it() -> None:
    def compute(processes: Processes, item: int) -> int:
        if processes.rank == 1:
            raise MemoryError
        return item

    error, other = job(2, compute, lambda: iter(range(9)))
    assert isinstance(error, ProcessError)
    assert str(error).startswith("process 1 of 2 on host ")
    assert str(error).endswith(": out of memory")
    assert other is None


def test_ctrl_c_in_process_0_ends_the_workers_without_an_error() -> None:
    def work(processes: Processes) -> str | None:
        if processes.rank > 0:
            follow(processes, lambda _: nullcontext(abs))
            return None
        try:
            with processes.ending_together(), Workers(processes) as workers:
                workers.start("task")
                for item, _ in workers.computed(abs, iter(range(9))):
                    if item == 4:
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            return "interrupted"
        return "not interrupted"

    assert in_threads(3, work) == ["interrupted", None, None]

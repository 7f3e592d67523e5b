"""ParallelCommand: a command that mpiexec may start in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import click

from toynn.parallel.processes import Processes, processes_of_job
from toynn.parallel.workers import Workers, follow


class ParallelCommand(click.Command):
    """A command that all processes of a job run. The processes compare their commands before the command begins.

    The object of the click context is then the processes of the job, or None in a process that runs alone.
    """

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = processes = processes_of_job()
        if processes is not None:
            shows = " --show-config" if ctx.params.get("show_config") else ""
            processes.meet(f"toynn {ctx.info_name}{shows}")
        return super().invoke(ctx)


@contextmanager
def in_all_processes(processes: Processes | None) -> Iterator[None]:
    """Run a block in all processes. If the block fails in one process, all processes end. In the block, the processes
    must exchange values only with `Processes.exchanged`.

    processes: None for a process that runs alone.
    """
    if processes is None:
        yield
        return
    with processes.ending_together(), processes.together():
        yield


@contextmanager
def working_for_process_0(
    processes: Processes | None,
    opened: Callable[[Any, int], AbstractContextManager[Callable[[Any], Any]]],
    n_threads: int | None = None,
) -> Iterator[Workers | None]:
    """Yield the workers in process 0. In the other processes, work until the block of process 0 ends, and yield None.

    processes: None for a process that runs alone. Then None is yielded.
    opened: the argument `opened` of `follow`, with the number of threads as a second argument.
    n_threads: the number of threads that the user asked for, or None.
    """
    if processes is None:
        yield None
        return
    with processes.ending_together():
        with processes.together():
            from importlib.metadata import version  # a slow import, which a process that runs alone does not need

            processes.compare({"version of toynn": version("toynn")})
            threads = processes.threads(n_threads)
            # the library tokenizers reads this variable when it starts its threads
            os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
        if processes.writes:
            with Workers(processes, threads) as workers:
                yield workers
        else:
            follow(processes, lambda task: opened(task, threads))
            yield None

"""ParallelCommand: a command that mpiexec may start in several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from toynn.parallel.processes import Processes, processes_of_job


class ParallelCommand(click.Command):
    """A command that all processes of a job run. The processes compare their commands before it begins.

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
    """Run a block in all processes, in which they only use `Processes.exchanged`. If a process fails, all end.

    processes: None for a process that runs alone.
    """
    if processes is None:
        yield
        return
    with processes.ending_together(), processes.together():
        yield

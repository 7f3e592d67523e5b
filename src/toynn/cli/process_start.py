"""The time that the command has taken since the operating system started its process.

`--time` counts this time, which Python needs to start and to import modules. This module imports few other modules,
because it is loaded first.
"""

from __future__ import annotations

import os
import time

_END = 2.5  # the end of `toynn train`, mostly the report, takes this many times as long as its start
_LONGEST = 300.0  # seconds; a larger age shows that the clocks of the system differ, so the age is not used
_began: float | None = None  # when the process started, by the clock of `time.perf_counter`; None: unknown


def remember_start() -> None:
    """Remember when the process started. The process of a command calls this function first."""
    global _began  # noqa: PLW0603 (a process starts once)
    _began = time.perf_counter() - _age()


def seconds_since_start() -> float:
    """Return the seconds since the process started, or 0 if `remember_start` was not called, as in a Python program."""
    return 0.0 if _began is None else time.perf_counter() - _began


def reserved_seconds() -> float:
    """Return the seconds of --time that are needed before the command begins, and after the training.

    The command calls this function when it begins. The end is estimated from the start, because both are slower on a
    slow machine, and if other programs are running.
    """
    return (1.0 + _END) * seconds_since_start()


def _age() -> float:
    """Return the age of this process in seconds.

    If the system does not say when the process started, the result is the CPU time of the process, which is a little
    shorter.
    """
    used = time.process_time()
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 (to import pathlib takes time)
            # the name of the program is in parentheses, and can contain spaces and parentheses
            fields = file.read().rpartition(b")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # seconds since the system was started
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return used
    return age if used <= age + 0.02 and age <= _LONGEST else used

"""What may differ around a run of the curves without a bit of them changing: memory, time, company."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Surroundings:
    """One way to run a process. prefix is a command that runs the command behind it."""

    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    times: int = 1  # how often in one process; the last is compared
    busy: int = 0  # processes that compute beside it

    def missing(self) -> str:
        """Why this machine cannot do so; "" where it can."""
        if not self.prefix:
            return ""
        if shutil.which(self.prefix[0]) is None:
            return f"no {self.prefix[0]} here"
        done = subprocess.run([*self.prefix, "true"], capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stderr.strip()

    @contextmanager
    def company(self) -> Iterator[None]:
        """Keeps the busy processes running."""
        started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.busy)]
        try:
            yield
            assert all(process.poll() is None for process in started), "the load ended before the run did"
        finally:
            for process in started:
                process.kill()
                process.wait()


SURROUNDINGS = [
    Surroundings("cold: a process's first run"),
    Surroundings("warm: the second run of one process", times=2),
    Surroundings("addresses not randomised (setarch -R)", prefix=("setarch", platform.machine(), "-R")),
    # A freed block is filled with the byte, a new one with its complement: what reads memory it never wrote shows.
    Surroundings("memory filled with 0x5A, 0xA5 (MALLOC_PERTURB_=90)", {"MALLOC_PERTURB_": "90"}),
    Surroundings("memory filled with 0x80, 0x7F (MALLOC_PERTURB_=128)", {"MALLOC_PERTURB_": "128"}),
    Surroundings("every block a mapping of its own", {"MALLOC_MMAP_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}),
    Surroundings("huge pages", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
    Surroundings("the stack 24,008 bytes lower", {"TOYNN_TEST_PADDING": "x" * 24_008}),
    Surroundings("PYTHONHASHSEED=0", {"PYTHONHASHSEED": "0"}),
    Surroundings("PYTHONHASHSEED=4294967295", {"PYTHONHASHSEED": "4294967295"}),
    Surroundings("Python's objects from malloc", {"PYTHONMALLOC": "malloc"}),
    Surroundings("under load: four busy processes a core", busy=4 * (os.cpu_count() or 1)),
]

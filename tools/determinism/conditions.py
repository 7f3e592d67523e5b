"""The conditions of a process under which the golden curves must have the same bits: memory, repetition and load."""

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
class Condition:
    """A condition under which a process is run.

    Attributes:
        env: environment variables to add.
        prefix: the beginning of the command, for example `setarch x86_64 -R`; Python and its arguments follow.
        times: number of runs of the curves in one process; the last run is compared.
        busy: number of processes that compute at the same time.
    """

    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    times: int = 1
    busy: int = 0

    def unavailable(self) -> str:
        """Return why this machine cannot provide the condition, or "" if it can."""
        if not self.prefix:
            return ""
        if shutil.which(self.prefix[0]) is None:
            return f"{self.prefix[0]} is not installed"
        done = subprocess.run([*self.prefix, "true"], capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stderr.strip()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Keep the busy processes running while the block runs."""
        started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.busy)]
        try:
            yield
            assert all(process.poll() is None for process in started), "a busy process ended before the curves did"
        finally:
            for process in started:
                process.kill()
                process.wait()


CONDITIONS = [
    Condition("first run in a process"),
    Condition("second run in a process", times=2),
    Condition("addresses not randomised (setarch -R)", prefix=("setarch", platform.machine(), "-R")),
    # glibc fills a freed block with the byte of MALLOC_PERTURB_, and a new block with the complement of this byte, so
    # a read of uninitialised memory changes the result.
    Condition("memory filled with 0x5A, 0xA5 (MALLOC_PERTURB_=90)", {"MALLOC_PERTURB_": "90"}),
    Condition("memory filled with 0x80, 0x7F (MALLOC_PERTURB_=128)", {"MALLOC_PERTURB_": "128"}),
    Condition("one mapping for each block", {"MALLOC_MMAP_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}),
    Condition("huge pages", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
    Condition("stack 24,008 bytes lower", {"TOYNN_TEST_PADDING": "x" * 24_008}),
    Condition("PYTHONHASHSEED=0", {"PYTHONHASHSEED": "0"}),
    Condition("PYTHONHASHSEED=4294967295", {"PYTHONHASHSEED": "4294967295"}),
    Condition("Python objects allocated by malloc", {"PYTHONMALLOC": "malloc"}),
    Condition("under load: four busy processes per core", busy=4 * (os.cpu_count() or 1)),
]

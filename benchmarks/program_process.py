"""Start the process of a benchmarked program, and send commands to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.shapes import Shape

ROOT = Path(__file__).resolve().parent.parent


class ProgramError(Exception):
    """A benchmark cannot be completed, for example because a program failed or computed other losses than toynn."""


class ProgramProcess:
    """A running program. It has taken its first step when the constructor returns. The class is a context manager.

    Attributes:
        import_s: seconds to import the library.
        rss_import: resident bytes after the import.
        first_loss_s: seconds from the start of the process until it reports its first loss.
        first_loss: the loss before the first step.
        version: a text with the library and its version.
    """

    def __init__(self, name: str, shape: Shape, threads: int, scratch: Path) -> None:
        """Start the program.

        scratch: a folder for the cache of torch.compile, empty at first, so that no old code is used. It also contains
            the base of an adapter.
        """
        n = str(threads)
        settings = {"OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n}
        settings |= {"TORCHINDUCTOR_COMPILE_THREADS": n, "TORCHINDUCTOR_CACHE_DIR": str(scratch / f"{shape.name}-{n}")}
        self.name = name
        start = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.program", name, shape.name, n, str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=ROOT,
            env=os.environ | settings,
        )
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.first_loss_s = time.monotonic() - start
        self.first_loss: float = ready["first_loss"]
        self.import_s: float = ready["import_s"]
        self.rss_import: int = ready["rss_import"]
        self.version: str = ready["version"]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its answer; see `benchmarks.program.answer`. Raise ProgramError on failure."""
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps({"do": do, **arguments}) + "\n")
            pipe.flush()
        except OSError:
            raise ProgramError(f"the process of {self.name} has ended") from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        pipe = self._process.stdout
        assert pipe is not None
        line = pipe.readline()
        if not line:
            raise ProgramError(f"{self.name} ended with exit status {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise ProgramError(f"{self.name}: {message['error']}")
        return message

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ProgramProcess:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

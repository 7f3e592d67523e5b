"""A contender's own process: `python -m benchmarks.program NAME SHAPE THREADS`. `benchmarks.program_process` talks to it.

It imports its side, builds its model, takes a step and says so; then it answers commands, JSON lines, one at a time.
Whatever else writes to standard output (a compiler, say) is sent to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine import peak_rss, rss
from benchmarks.shapes import SHAPES, Shape


class Contender(Protocol):
    def step(self) -> float:
        """The loss before the step."""

    def restart(self, folder: Path) -> None:
        """Training from the weights in the folder and fresh moments."""


def imported(name: str, threads: int) -> str:
    """Imports the contender's side, and nothing of the other. Returns its version, in words."""
    if name.startswith("toynn"):
        from benchmarks import toynn_side

        return toynn_side.version()
    from benchmarks import torch_side

    torch_side.prepare(threads)
    return torch_side.version()


def built(name: str, shape: Shape, threads: int) -> Contender:
    if name.startswith("toynn"):
        from benchmarks import toynn_side

        if name == "toynn-matmul":
            return toynn_side.Matmul(threads)
        return toynn_side.Training(shape, threads, layout="per_head" if name == "toynn-per-head" else "fused")
    from benchmarks import torch_side

    if name == "torch-matmul":
        return torch_side.Matmul()
    return torch_side.Training(shape, compiled=name == "torch-compile")


def answer(contender: Contender, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "steps":  # the first fills the caches again and is not timed
        contender.step()
        seconds, loss = [], 0.0
        for _ in range(command["steps"]):
            start = time.perf_counter()
            loss = contender.step()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "loss": loss}
    if command["do"] == "peak":  # after two steps more, with all there is by then
        contender.step()
        contender.step()
        return {"peak_rss": peak_rss()}
    folder = Path(command["folder"])
    if command["do"] == "save":
        from benchmarks import toynn_side

        if not isinstance(contender, toynn_side.Training):
            raise TypeError("only toynn's weights are saved")
        contender.save(folder)
        return {}
    contender.restart(folder)
    return {"losses": [contender.step() for _ in range(command["steps"])]}


def main() -> None:
    name, shape, threads = sys.argv[1], SHAPES[sys.argv[2]], int(sys.argv[3])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        start = time.perf_counter()
        words = imported(name, threads)
        import_s, rss_import = time.perf_counter() - start, rss()
        contender = built(name, shape, threads)
        contender.step()
        reply({"import_s": import_s, "rss_import": rss_import, "version": words})
        for line in sys.stdin:
            reply(answer(contender, json.loads(line)))
    except Exception as error:
        reply({"error": type(error).__name__})
        raise


if __name__ == "__main__":
    main()

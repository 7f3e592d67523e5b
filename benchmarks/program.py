"""Run one benchmarked program: `python -m benchmarks.program NAME SHAPE THREADS FOLDER`; `program_process` starts it.

The program imports its library, builds its model, takes a step and reports it. Then it reads commands as JSON lines
and answers each command with a JSON line. All other output, for example that of a compiler, goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine import peak_rss, rss
from benchmarks.shapes import ADAPTER_SHAPES, LONG_SHAPES, SHAPES, Shape


class Program(Protocol):
    def step(self) -> float:
        """Take a training step and return the loss before it."""

    def restart(self, folder: Path) -> None:
        """Start training again from the weights in the folder, with moments of zero."""


def imported(name: str, threads: int) -> str:
    """Import only the library of the program. Return a text with the library and its version."""
    if name.startswith("toynn"):
        from benchmarks import toynn_side

        return toynn_side.version()
    from benchmarks import torch_side

    torch_side.prepare(threads)
    if name.startswith("peft"):
        from benchmarks import peft_side

        return f"{peft_side.version()} on {torch_side.version()}"
    return torch_side.version()


def built(name: str, shape: Shape, threads: int, folder: Path) -> Program:
    """Build the named program. folder: the folder with the base of an adapter."""
    precision = "bf16" if name.endswith("-bf16") else "f32"
    if shape.adapter_rank and name.startswith("toynn"):
        from benchmarks.toynn_adapter import AdapterTraining

        return AdapterTraining(
            shape, threads, folder, in_f32=name == "toynn-f32", recompute=name == "toynn-recompute", precision=precision
        )
    if shape.adapter_rank:
        from benchmarks.peft_side import PeftTraining

        return PeftTraining(shape, folder, in_bf16=precision == "bf16")
    if name.startswith("toynn"):
        from benchmarks import toynn_side

        if name == "toynn-matmul":
            return toynn_side.Matmul(threads)
        layout = "per_head" if name == "toynn-per-head" else "fused"
        moments = "bf16" if name == "toynn-moments-in-bf16" else "f32"
        precision = "bf16" if name == "toynn-bf16" else "f32"
        return toynn_side.Training(shape, threads, layout=layout, precision=precision, moments=moments)
    from benchmarks import torch_side

    if name == "torch-matmul":
        return torch_side.Matmul()
    compiled = name.startswith("torch-compile")
    return torch_side.Training(shape, compiled=compiled, in_bf16=precision == "bf16")


def answer(program: Program, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out a command ("steps", "peak", "save" or "restart") and return its results."""
    if command["do"] == "steps":  # the first step refills the caches and is not timed
        if command.get("refill", True):
            program.step()
        seconds, loss = [], 0.0
        for _ in range(command["steps"]):
            start = time.perf_counter()
            loss = program.step()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "loss": loss}
    if command["do"] == "peak":  # the peak is read after two more steps, when all memory is allocated
        program.step()
        loss = program.step()
        return {"peak_rss": peak_rss(), "loss": loss}
    folder = Path(command["folder"])
    if command["do"] == "save":
        from benchmarks import toynn_side

        if not isinstance(program, toynn_side.Training):
            raise TypeError("only a training program of toynn can save its weights")
        program.save(folder)
        return {}
    program.restart(folder)
    return {"losses": [program.step() for _ in range(command["steps"])]}


def main() -> None:
    name, shape, threads = sys.argv[1], {**SHAPES, **ADAPTER_SHAPES, **LONG_SHAPES}[sys.argv[2]], int(sys.argv[3])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        start = time.perf_counter()
        version = imported(name, threads)
        import_s, rss_import = time.perf_counter() - start, rss()
        program = built(name, shape, threads, Path(sys.argv[4]))
        first_loss = program.step()
        reply({"import_s": import_s, "rss_import": rss_import, "version": version, "first_loss": first_loss})
        for line in sys.stdin:
            reply(answer(program, json.loads(line)))
    except Exception as error:
        reply({"error": type(error).__name__})
        raise


if __name__ == "__main__":
    main()

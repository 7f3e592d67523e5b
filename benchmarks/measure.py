"""Measure a shape with a number of threads. The programs take turns."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import available_bytes
from benchmarks.program_process import ProgramError, ProgramProcess
from benchmarks.shapes import PEAK_SIZE, SHAPES, Shape

REFERENCE, IN_BF16 = "toynn", "toynn-bf16"
LABELS = {
    REFERENCE: "toynn",
    IN_BF16: "toynn, bfloat16",
    "toynn-moments-in-bf16": "toynn, moments in bfloat16",
    "toynn-per-head": "toynn, per_head",
    "torch": "PyTorch, eager",
    "torch-bf16": "PyTorch, eager, bfloat16 autocast",
    "torch-compile": "PyTorch, compiled",
    "torch-compile-bf16": "PyTorch, compiled, bfloat16 autocast",
}
MATMULS = {"toynn-matmul": "tnn_fused_linear", "torch-matmul": "torch.matmul"}

_PAUSE_S = 0.05  # pause in seconds, after which idle threads no longer spin
_CHECKED_STEPS = 3
_TOLERANCE, _TOLERANCE_IN_BF16 = 1e-3, 3e-2


@dataclass
class Row:
    """The measurements of a program on a shape.

    Attributes:
        rounds: the seconds of each timed step, one list per turn.
        note: the reason, if there are no rounds.
    """

    shape: Shape
    threads: int
    program: str
    rounds: list[list[float]] = field(default_factory=list)
    import_s: float = 0.0
    first_loss_s: float = 0.0
    rss_import: int = 0
    peak_rss: int = 0
    version: str = ""
    note: str = ""

    @property
    def seconds(self) -> list[float]:
        return [second for turn in self.rounds for second in turn]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def tolerance(program: str) -> float:
    """Return the largest allowed difference between a loss of the program and the same loss of toynn in f32."""
    return _TOLERANCE_IN_BF16 if program.endswith("-bf16") else _TOLERANCE


def ratios(row: Row, reference: Row) -> list[float]:
    """Return, for each turn, how many times as long a step of `row` takes as a step of `reference`."""
    pairs = zip(row.rounds, reference.rounds, strict=True)
    return [statistics.median(mine) / statistics.median(its) for mine, its in pairs]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def programs(shape: Shape) -> list[str]:
    """Return the programs for a shape. The per_head layout is slow, so it is measured only on the smallest shape."""
    return [name for name in LABELS if name != "toynn-per-head" or shape.name == "tiny"]


def measure_peak(threads: int, rounds: int) -> dict[str, float]:
    """Return the GFLOP/s of a square f32 matrix product: the best value of each library."""
    shape, best = SHAPES["tiny"], dict.fromkeys(MATMULS, math.inf)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        children = [stack.enter_context(ProgramProcess(name, shape, threads, Path(scratch))) for name in MATMULS]
        for _ in range(rounds):
            for child in children:
                time.sleep(_PAUSE_S)
                best[child.name] = min(best[child.name], *child.ask("steps", steps=10)["seconds"])
    return {name: 2e-9 * PEAK_SIZE**3 / seconds for name, seconds in best.items()}


def measure(shape: Shape, threads: int, names: Sequence[str], rounds: int, steps: int) -> list[Row]:
    """Measure one shape and return its rows. `names` starts with toynn in f32.

    All programs are in memory at the same time and take turns. If they do not fit in memory together, each program is
    started again for each of its turns.

    Raises:
        ProgramError: a program failed, or its losses differ. If torch.compile fails, its row gets a note instead.
    """
    rows = {name: Row(shape, threads, name) for name in names}
    memory = available_bytes()
    if memory is not None and shape.expected_bytes > memory:
        for row in rows.values():
            row.note = "does not fit into memory"
        return list(rows.values())
    together = memory is None or shape.expected_bytes * len(names) <= memory
    with tempfile.TemporaryDirectory() as scratch:
        check = _Check(Path(scratch))
        if together:
            _turns(list(rows.values()), check, rounds, steps)
        else:
            for _ in range(rounds):
                for row in rows.values():
                    _turns([row], check, 1, steps)
    return list(rows.values())


class _Check:
    """Check that every program computes the same losses from the initial weights of the first program."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._weights = scratch / "weights"
        self._losses: list[float] = []

    def __call__(self, child: ProgramProcess) -> None:
        if not self._losses:
            self._weights.mkdir()
            child.ask("save", folder=str(self._weights))
        losses = child.ask("restart", folder=str(self._weights), steps=_CHECKED_STEPS)["losses"]
        self._losses = self._losses or losses
        allowed = tolerance(child.name)
        if any(not abs(loss - wanted) <= allowed for loss, wanted in zip(losses, self._losses, strict=True)):
            raise ProgramError(f"{child.name} computes the losses {losses}, but {REFERENCE} computes {self._losses}")


def _turns(rows: list[Row], check: _Check, rounds: int, steps: int) -> None:
    """Start the programs, check their losses, and add rounds to their rows."""
    with ExitStack() as stack:
        children = []
        for row in rows:
            if row.note:
                continue
            try:
                child = stack.enter_context(ProgramProcess(row.program, row.shape, row.threads, check.scratch))
            except ProgramError as error:
                if not row.program.startswith("torch-compile"):
                    raise
                row.note = f"does not work on this machine ({error})"
                continue
            children.append((row, child))
            if not row.rounds:
                row.import_s, row.first_loss_s, row.rss_import = child.import_s, child.first_loss_s, child.rss_import
                row.version, row.peak_rss = child.version, child.ask("peak")["peak_rss"]
            check(child)
        for _ in range(rounds):
            for row, child in children:
                time.sleep(_PAUSE_S)
                turn = child.ask("steps", steps=steps)
                if not math.isfinite(turn["loss"]):
                    raise ProgramError(f"the loss of {row.program} is {turn['loss']}, so its training diverged")
                row.rounds.append(turn["seconds"])

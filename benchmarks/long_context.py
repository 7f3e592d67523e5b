"""Compare training on long sequences with PyTorch, and write a section of docs/performance.md: `make bench-long`."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine
from benchmarks.measure import LABELS, REFERENCE, Row, measure_peak, tolerance
from benchmarks.program_process import ROOT, ProgramError, ProgramProcess
from benchmarks.report import Run, heading, speedup, write_json, write_markdown
from benchmarks.shapes import LONG_SHAPES, Shape

PROGRAMS = (REFERENCE, "torch", "torch-bf16")
_PAUSE_S = 0.05  # the time after which idle threads stop spinning and sleep
_CHECKED_STEPS = 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_context",
        description="Compare training on long sequences with toynn and with PyTorch in one run.",
    )
    names = list(LONG_SHAPES)
    parser.add_argument(
        "--shapes", nargs="+", choices=names, default=names, metavar="SHAPE",
        help=f"Model shapes to measure (default: {' '.join(names)}).",
    )  # fmt: skip
    parser.add_argument(
        "--threads", nargs="+", type=int, choices=range(1, machine.cores() + 1), default=[machine.cores()], metavar="N",
        help="Thread counts (default: the number of cores).",
    )  # fmt: skip
    parser.add_argument(
        "--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="NAME",
        help=f"Programs to compare (default: {' '.join(PROGRAMS)}); {REFERENCE} is always measured.",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, help="How many times each program is timed (default: 3 to 6, depending on the shape)."
    )
    parser.add_argument("--out", type=Path, help="Output folder (default: docs/ and benchmarks/results/).")
    return parser.parse_args()


def measure(shape: Shape, threads: int, names: list[str], rounds: int) -> list[Row]:
    """Measure one shape. All programs are in memory at the same time, and take turns of shape.steps steps.

    Raises ProgramError if a program fails, or if its losses differ from those of toynn.
    """
    rows = {name: Row(shape, threads, name) for name in names}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        weights, losses = Path(scratch) / "weights", list[float]()
        weights.mkdir()
        children = {}
        for name, row in rows.items():
            child = children[name] = stack.enter_context(ProgramProcess(name, shape, threads, Path(scratch)))
            row.version, row.import_s, row.first_loss_s = child.version, child.import_s, child.first_loss_s
            row.rss_import, row.peak_rss = child.rss_import, child.ask("peak")["peak_rss"]
            if name == REFERENCE:
                child.ask("save", folder=str(weights))
            found = child.ask("restart", folder=str(weights), steps=_CHECKED_STEPS)["losses"]
            losses = losses or found
            if any(not abs(loss - wanted) <= tolerance(name) for loss, wanted in zip(found, losses, strict=True)):
                raise ProgramError(f"{name} computes the losses {found}, but toynn computes {losses}")
        for _ in range(rounds):
            for name, child in children.items():
                time.sleep(_PAUSE_S)
                rows[name].rounds.append(child.ask("steps", steps=shape.steps, refill=shape.steps > 1)["seconds"])
    return list(rows.values())


def markdown(run: Run) -> str:
    """Return a table of the steps, and a table of how the memory grows with the number of tokens."""
    columns = ["step, s", "tokens/s", "GFLOP/s", "of peak", "speedup of toynn", "peak, MiB", "peak of toynn / this",
               "KiB for each token"]  # fmt: skip
    lines = ["| T | threads | | " + " | ".join(columns) + " |", "| --: | --: | :-- |" + " --: |" * len(columns)]
    for row in run.rows:
        reference, shape = run.reference(row), row.shape
        seconds = statistics.median(row.seconds)
        gflops = shape.step_flop / seconds * 1e-9
        lines.append(
            f"| {shape.t_seq} | {row.threads} | {LABELS[row.program]} | {seconds:.2f} | {shape.tokens / seconds:.0f} | "
            f"{gflops:.0f} | {gflops / max(run.peaks[row.threads].values()):.0%} | {speedup(row, reference)} | "
            f"{row.peak_rss / 2**20:.0f} | {reference.peak_rss / row.peak_rss:.2f} | "
            f"{(row.peak_rss - row.rss_import) / shape.tokens / 2**10:.0f} |"
        )
    peaks = (f"{max(gflops.values()):.0f} GFLOP/s with {threads} thread(s)" for threads, gflops in run.peaks.items())
    return f"{heading(run)}  \nPeak of a square product: {', '.join(peaks)}.\n\n" + "\n".join(lines)


def main() -> int:
    flags = arguments()
    run = Run([], {}, machine.load())
    names = [name for name in PROGRAMS if name in (REFERENCE, *flags.programs)]
    try:
        for shape in (LONG_SHAPES[name] for name in flags.shapes):
            for threads in flags.threads:
                print(f"{shape.name}, {threads} thread(s) ...", file=sys.stderr)
                run.see_peak(threads, measure_peak(threads, 6))
                run.rows += measure(shape, threads, names, flags.rounds or shape.rounds)
    except ProgramError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    text = markdown(run)
    print(text)
    docs, results = flags.out or ROOT / "docs", flags.out or ROOT / "benchmarks" / "results"
    for folder in (docs, results):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(run, results / "long_context.json")
    write_markdown(text, docs / "performance.md", "make bench-long")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure toynn and PyTorch, and write docs/performance.md, its plot and all samples: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.measure import LABELS, REFERENCE, measure, measure_peak, programs
from benchmarks.program_process import ROOT, ProgramError
from benchmarks.report import Run, markdown, read_json, write_json, write_markdown
from benchmarks.shapes import SHAPES

RESULTS, NAME = ROOT / "benchmarks" / "results", "performance.json"
_QUIET = 0.3  # the largest load average of an idle machine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare the training steps of toynn and PyTorch in one run."
    )
    names = list(SHAPES)
    parser.add_argument(
        "--shapes", nargs="+", choices=names, default=names, metavar="SHAPE",
        help=f"Model shapes to measure (default: {' '.join(names)}).",
    )  # fmt: skip
    parser.add_argument(
        "--threads", nargs="+", type=positive, default=[1, 2], metavar="N", help="Thread counts (default: 1 2)."
    )
    parser.add_argument(
        "--programs", nargs="+", choices=LABELS, default=list(LABELS), metavar="NAME",
        help=f"Programs to compare (default: {' '.join(LABELS)}); {REFERENCE} is always measured.",
    )  # fmt: skip
    parser.add_argument(
        "--rounds",
        type=positive,
        help="How many times each program is timed (default: 6 to 10, depending on the shape).",
    )
    parser.add_argument(
        "--steps", type=positive, help="Timed steps per turn (default: 2 to 100, depending on the shape)."
    )
    parser.add_argument(
        "--quick", action="store_true", help="Run 2 rounds of 2 steps, only to check that the benchmark works."
    )
    parser.add_argument(
        "--add", action="store_true", help="Keep the earlier results of the shapes and threads that are not measured."
    )
    parser.add_argument("--out", type=Path, help="Output folder (default: docs/ and benchmarks/results/).")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def measured(flags: argparse.Namespace) -> Run:
    """Measure each shape with each number of threads, and write all results after each of these measurements."""
    load = machine.load()
    run = read_json((flags.out or RESULTS) / NAME) if flags.add else Run([], {}, load)
    run.load = max(run.load, load)
    if load > _QUIET:
        print(
            f"benchmarks: the machine is not idle (load average {load:.2f}), so the figures are not reliable",
            file=sys.stderr,
        )
    counts = [threads for threads in flags.threads if threads <= machine.cores()]
    for threads in set(flags.threads) - set(counts):
        print(
            f"benchmarks: {threads} threads are not measured: this process can use only {machine.cores()} core(s)",
            file=sys.stderr,
        )
    for shape in (SHAPES[name] for name in flags.shapes):
        names = [name for name in programs(shape) if name in (REFERENCE, *flags.programs)]
        rounds = flags.rounds or (2 if flags.quick else shape.rounds)
        steps = flags.steps or (2 if flags.quick else shape.steps)
        for threads in counts:
            print(f"{shape.name}, {threads} thread(s): {rounds} rounds of {steps} steps ...", file=sys.stderr)
            run.see_peak(threads, measure_peak(threads, 2 if flags.quick else 6))
            rows = measure(shape, threads, names, rounds, steps)
            run.rows = [row for row in run.rows if (row.shape, row.threads) != (shape, threads)] + rows
            run.sort()
            if flags.out is not None or not flags.quick:
                write(run, flags.out)
    return run


def write(run: Run, out: Path | None) -> None:
    docs, results, text = out or ROOT / "docs", out or RESULTS, markdown(run)
    for folder in (docs, results):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(run, results / NAME)
    try:
        from benchmarks.plot import draw
    except ImportError:
        print("benchmarks: no figure was drawn; it needs matplotlib (pip install '.[plot]')", file=sys.stderr)
    else:
        draw(run, docs / "performance.png")
        text = f"![Speed of toynn relative to the other programs, by shape and threads](performance.png)\n\n{text}"
    write_markdown(text, docs / "performance.md")


def main() -> int:
    flags = arguments()
    try:
        run = measured(flags)
    except ProgramError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    if not run.rows:
        print("benchmarks: nothing was measured; choose --threads within the number of cores", file=sys.stderr)
        return 1
    print(markdown(run))
    return 0


if __name__ == "__main__":
    sys.exit(main())

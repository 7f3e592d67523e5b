"""Compare LoRA training with PEFT, and write a section of docs/performance.md: `python -m benchmarks.adapters`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine
from benchmarks.measure import IN_BF16, REFERENCE, Row, quartiles, tolerance
from benchmarks.program_process import ROOT, ProgramError, ProgramProcess
from benchmarks.report import Run, heading, speedup, write_json, write_markdown
from benchmarks.shapes import ADAPTER_SHAPES, Shape

LABELS = {
    REFERENCE: "toynn, quantized base",
    "toynn-f32": "toynn, base in F32",
    IN_BF16: "toynn, quantized base, bfloat16",
    "toynn-recompute": "toynn, quantized base, recompute",
    "peft": "PEFT, float32",
    "peft-bf16": "PEFT, bfloat16 autocast",
}
BESIDE_PEFT = (REFERENCE, "toynn-f32", IN_BF16, "peft", "peft-bf16")
ALONE = (REFERENCE, "toynn-recompute")  # PEFT is left out, because it needs the f32 weights of the large shape
_PAUSE_S = 0.05  # pause in seconds, after which idle threads no longer spin


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapters", description="Compare LoRA training with toynn and with PEFT in one run."
    )
    names = list(ADAPTER_SHAPES)
    parser.add_argument(
        "--shapes", nargs="+", choices=names, default=names, metavar="SHAPE",
        help=f"Model shapes to measure (default: {' '.join(names)}).",
    )  # fmt: skip
    parser.add_argument(
        "--threads", nargs="+", type=int, choices=range(1, machine.cores() + 1), default=[1, 2], metavar="N",
        help="Thread counts (default: 1 2). The largest shape is measured only with the largest count.",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="Measure only one step, to check that the benchmark works."
    )
    parser.add_argument("--out", type=Path, help="Output folder (default: docs/ and benchmarks/results/).")
    return parser.parse_args()


def with_peft(shape: Shape) -> bool:
    return not shape.untied


def measure(shape: Shape, counts: list[int], quick: bool) -> list[Row]:
    """Measure a shape with each number of threads. The base is written once.

    Raises ProgramError if a program failed, or if its losses differ from those of toynn.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        write = [sys.executable, "-m", "benchmarks.toynn_adapter", shape.name, scratch]
        subprocess.run([*write, "--peft"] if with_peft(shape) else write, cwd=ROOT, check=True)
        for threads in counts if with_peft(shape) else [max(counts)]:
            print(f"{shape.name}, {threads} thread(s) ...", file=sys.stderr)
            rows += _turns(shape, threads, Path(scratch), 1 if quick else shape.rounds, 1 if quick else shape.steps)
    return rows


def _turns(shape: Shape, threads: int, scratch: Path, rounds: int, steps: int) -> list[Row]:
    """Start the programs, compare their first losses, and let them take turns.

    All programs are in memory at the same time.
    """
    rows = {name: Row(shape, threads, name) for name in (BESIDE_PEFT if with_peft(shape) else ALONE)}
    losses: dict[str, list[float]] = {}
    with ExitStack() as stack:
        children = {}
        for name, row in rows.items():
            child = children[name] = stack.enter_context(ProgramProcess(name, shape, threads, scratch))
            row.version, row.import_s, row.first_loss_s = child.version, child.import_s, child.first_loss_s
            row.rss_import, peak = child.rss_import, child.ask("peak")
            row.peak_rss, losses[name] = peak["peak_rss"], [child.first_loss, peak["loss"]]
            if any(
                not abs(loss - wanted) <= tolerance(name)
                for loss, wanted in zip(losses[name], losses[REFERENCE], strict=True)
            ):
                raise ProgramError(f"{name} computes the losses {losses[name]}, but toynn computes {losses[REFERENCE]}")
        for _ in range(rounds):
            for name, child in children.items():
                time.sleep(_PAUSE_S)
                rows[name].rounds.append(child.ask("steps", steps=steps, refill=steps > 1)["seconds"])
    return list(rows.values())


def markdown(run: Run) -> str:
    columns = ["step, s", "quartiles", "tokens/s", "speedup of toynn", "of toynn in bfloat16", "peak, MiB",
               "peak of toynn / this"]  # fmt: skip
    lines = ["| shape | threads | | " + " | ".join(columns) + " |", "| :-- | --: | :-- |" + " --: |" * len(columns)]
    for row in run.rows:
        reference = run.reference(row)
        low, median, high = quartiles(row.seconds)
        lines.append(
            f"| {row.shape.name} | {row.threads} | {LABELS[row.program]} | {median:.2f} | {low:.2f} - {high:.2f} | "
            f"{row.shape.tokens / median:.0f} | {speedup(row, reference)} | "
            f"{speedup(row, run.beside(row).get(IN_BF16))} | {row.peak_rss / 2**20:.0f} | "
            f"{reference.peak_rss / row.peak_rss:.2f} |"
        )
    return heading(run) + "\n\n" + "\n".join(lines)


def main() -> int:
    flags = arguments()
    run = Run([], {}, machine.load())
    try:
        for name in flags.shapes:
            run.rows += measure(ADAPTER_SHAPES[name], flags.threads, flags.quick)
    except ProgramError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    text = markdown(run)
    print(text)
    if flags.out is not None or not flags.quick:
        docs, results = flags.out or ROOT / "docs", flags.out or ROOT / "benchmarks" / "results"
        for folder in (docs, results):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(run, results / "adapters.json")
        write_markdown(text, docs / "performance.md", "make bench-adapters")
    return 0


if __name__ == "__main__":
    sys.exit(main())

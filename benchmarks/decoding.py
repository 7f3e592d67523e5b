"""Compare decoding and prefill with those of llama.cpp, and write the table in docs/performance.md.

Run it with `make bench-decoding`. Both programs read the same GGUF files: random weights in the shape of
SmolLM2-135M, in several types. llama.cpp has its own default settings (repacked weights, cache in f16). The programs
take turns in one process, so a slow change in the speed of the machine affects both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.program_process import ROOT
from toynn import LlamaDecoder, SmolLM2Config
from toynn.interop import GgufBase, export_gguf
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes

BEGIN, END = "<!-- decoding: begin -->", "<!-- decoding: end -->"
KINDS = ("f32", "q8_0", "q4_0", "q4_1", "q4_K")
PROMPT, NEW = 256, 32  # number of tokens of the prompt, and number of tokens that are decoded after the prompt


@dataclass
class Speeds:
    """The tokens per second of each turn."""

    prefill: list[float] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)


def random_model() -> TrainedModel:
    shape = ModelShape.of(SmolLM2Config.smollm2_135m())
    draw = np.random.default_rng(0)
    weights = {
        name: draw.standard_normal(size, dtype=np.float32) * np.float32(0.02) if len(size) > 1
        else np.ones(size, np.float32)
        for name, size in weight_shapes(shape).items()
    }  # fmt: skip
    return TrainedModel(shape, weights, None)


def timed(read: Callable[[list[int]], Any], ids: Sequence[int], speeds: Speeds) -> None:
    """Read a prompt, then the other tokens one at a time, and add both speeds."""
    start = time.perf_counter()
    read(list(ids[:PROMPT]))
    middle = time.perf_counter()
    for token in ids[PROMPT:]:
        read([token])
    speeds.prefill.append(PROMPT / (middle - start))
    speeds.decoding.append((len(ids) - PROMPT) / (time.perf_counter() - middle))


def measured(path: Path, threads: int, rounds: int) -> tuple[Speeds, Speeds]:
    """Return the speeds of toynn and of llama.cpp."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from llama_cpp import LlamaCpp

    ids = [int(one) for one in np.random.default_rng(1).integers(0, 49152, PROMPT + NEW)]
    ours, theirs = Speeds(), Speeds()
    n_ctx = 2 * (PROMPT + NEW)
    with GgufBase(path) as base, LlamaDecoder.on_base(base, n_ctx=n_ctx, n_threads=threads) as decoder:
        decoder.feed(ids)  # this first call reads the pages of the mapped file
        for _ in range(rounds):
            decoder.rewind()
            timed(decoder.feed, ids, ours)
            with LlamaCpp(path, n_ctx, exact=False, n_threads=threads) as llama:
                llama.read(ids[:2])
                timed(llama.read, ids, theirs)
    return ours, theirs


def row(kind: str, threads: int, ours: Speeds, theirs: Speeds) -> str:
    cells = []
    for mine, other in ((ours.decoding, theirs.decoding), (ours.prefill, theirs.prefill)):
        ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
        cells += [f"{statistics.median(mine):.1f}", f"{statistics.median(other):.1f}"]
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f})")
    return f"| {kind} | {threads} | " + " | ".join(cells) + " |"


def write(table: str, page: Path) -> None:
    """Replace the text between the markers of the page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} must contain the lines {BEGIN!r} and {END!r}, between which the table is written")
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="Types of the weights to measure.")
    parser.add_argument(
        "--threads", nargs="+", type=int, choices=range(1, machine.cores() + 1), default=[1], metavar="N",
        help="Numbers of threads of both programs (default: 1).",
    )  # fmt: skip
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="Number of measurements of each program; the programs take turns (default: 5).",
    )
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "performance.md", help="Page that contains the table to replace."
    )
    flags = parser.parse_args()
    load = machine.load()
    lines = [
        "| weights | threads | decoding: toynn | llama.cpp | ratio | prefill: toynn | llama.cpp | ratio |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    model = random_model()
    with tempfile.TemporaryDirectory() as folder:
        for kind in flags.kinds:
            path = Path(folder) / f"{kind}.gguf"
            export_gguf(model, path, kind)
            for threads in flags.threads:
                lines.append(row(kind, threads, *measured(path, threads, flags.rounds)))
                print(lines[-1], flush=True)
            path.unlink()
    day = datetime.now(timezone.utc).date().isoformat()
    heading = f"Measured on {day}: {machine.description()}.  \nLoad average at the start: {load:.2f}."
    write("\n".join([heading, "", *lines]), flags.page)


if __name__ == "__main__":
    main()

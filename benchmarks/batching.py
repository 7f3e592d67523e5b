"""Compare the values of `data.batching` with each other, and write a table of docs/data.md.

Run it with `python -m benchmarks.batching`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import toynn
from benchmarks import machine
from benchmarks.measure import quartiles
from benchmarks.prepare_data import sentences
from benchmarks.program_process import ROOT
from benchmarks.report import write_markdown
from toynn import TrainArgs, TrainConfig
from toynn.data import DataFolder
from toynn.training import (
    CheckpointArgs,
    DataArgs,
    EvaluationArgs,
    ModelArgs,
    OptimizerArgs,
    ScheduleArgs,
    StepArgs,
)
from toynn.training.run_log import read_log

COMMAND = "python -m benchmarks.batching"
_WINDOW, _BATCH = 512, 8  # tokens per window, windows per step
# number of steps per turn for each value of data.batching, chosen so that all turns take a similar time
_STEPS = {"padded": 8, "grouped": 24, "packed": 8}


@dataclass
class Row:
    """The measured training with one value of data.batching. filled: the share of a window that samples fill."""

    batching: str
    filled: float = 0.0
    speeds: list[float] = field(default_factory=list)  # samples per second, one value per turn


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1500, help="Number of samples (default: 1500).")
    parser.add_argument(
        "--rounds", type=int, default=5, help="How many times each value of data.batching is measured (default: 5)."
    )
    parser.add_argument("--threads", type=int, default=machine.cores(), help="Number of threads (default: all cores).")
    parser.add_argument("--out", type=Path, help="Page with the table (default: docs/data.md).")
    return parser.parse_args()


def write_samples(path: Path, samples: int) -> None:
    """Write samples of random words. As in real data, most samples are short and a few are long."""
    draw = np.random.default_rng(0)
    words = " ".join(sentences(0)).split()
    lengths = np.clip(draw.lognormal(3.0, 0.7, samples), 2, 200).astype(int)
    with path.open("w", encoding="utf-8") as file:
        for n in lengths.tolist():
            start = int(draw.integers(0, len(words) - n))
            sample = {"prompt": words[start], "completion": " " + " ".join(words[start + 1 : start + n])}
            file.write(json.dumps(sample) + "\n")


def turn(row: Row, data: Path, run: Path, threads: int) -> None:
    """Train a small model for a few steps, and add the speed to the row."""
    config = TrainConfig(
        ModelArgs(d_model=128, n_heads=4, n_kv=4, d_ff=344, n_layers=4, ctx=_WINDOW),
        StepArgs(steps=_STEPS[row.batching], batch=_BATCH),
        OptimizerArgs(kind="adamw"),
        ScheduleArgs("constant", warmup=1),
        EvaluationArgs(every=0, windows=1),
        CheckpointArgs(every=0),
        data=DataArgs(batching=row.batching),
    )
    toynn.train(TrainArgs(data, run, config, n_threads=threads))
    events: list[dict[str, Any]] = read_log(run)
    started = next(event for event in events if event["event"] == "started")
    seconds = sum(event["seconds"] for event in events if event["event"] == "stepped")
    samples = _sizes(data)[0] / started["windows_per_epoch"]  # mean number of samples in a window
    row.filled = started["filled"]
    row.speeds.append(samples * _BATCH * _STEPS[row.batching] / seconds)


def _sizes(data: Path) -> tuple[int, int]:
    """Return the number of training samples and of their tokens."""
    train = DataFolder.open(data).train
    if train.starts is None:
        raise ValueError(f"{data} must contain samples, but contains plain text")
    return train.starts.size, len(train)


def markdown(rows: list[Row], tokens: float, threads: int) -> str:
    day = datetime.now(timezone.utc).date().isoformat()
    lines = [
        f"Measured on {day}: {machine.description()}, {threads} threads.",
        f"The samples have {tokens:.0f} tokens on average, and `train.t_seq` is {_WINDOW}.",
        "",
        "| `data.batching` | filled places | samples/s | quartiles | beside `padded` |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for row in rows:
        low, median, high = quartiles(row.speeds)
        ratio = statistics.median(mine / its for mine, its in zip(row.speeds, rows[0].speeds, strict=True))
        lines.append(f"| `{row.batching}` | {row.filled:.0%} | {median:.0f} | {low:.0f} - {high:.0f} | {ratio:.1f}x |")
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_samples(folder / "samples.jsonl", options.samples)
        toynn.prepare(folder / "samples.jsonl", folder / "data", vocab_size=4096, validation=0.02, progress=False)
        samples, tokens = _sizes(folder / "data")
        rows = [Row(batching) for batching in _STEPS]
        for number in range(options.rounds):
            for row in rows:
                turn(row, folder / "data", folder / f"{row.batching}-{number}", options.threads)
        text = markdown(rows, tokens / samples, options.threads)
    write_markdown(text, options.out or ROOT / "docs" / "data.md", COMMAND)
    print(text)


if __name__ == "__main__":
    main()

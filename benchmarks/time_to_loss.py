"""Measure the seconds until a model of the shipped stories reaches a validation loss, with toynn and with nanoGPT's
recipe in PyTorch: `python -m benchmarks.time_to_loss`.

Both models have about the same size and read the same number of tokens in a step. Each program trains runs of more and
more steps, because the schedule of the learning rate depends on the number of steps. The result is the time of the
steps of the shortest run that ends at or below the loss. Evaluations and the start are not counted. PyTorch uses the
fastest of its modes: eager or compiled, in float32 or bfloat16.

The time of a step is the median of all steps of a program. So a pause of the machine does not affect the result.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import toynn
from benchmarks import machine
from benchmarks.program_process import ROOT
from benchmarks.report import write_markdown
from benchmarks.sweep_corpora import VOCABULARY
from toynn.data import PackedTokens
from toynn.training import Event, Stepped

PAGE, RESULTS = ROOT / "docs" / "training-recipes.md", ROOT / "benchmarks" / "results" / "time_to_loss.json"
WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 128, 4, 4, 256, 8
TARGET = 2.5  # nats per token
STEPS = tuple(round(100 * 2 ** (i / 3)) for i in range(16))  # from 100 to 3200, with factors of about 1.26
LossOf: TypeAlias = Callable[[int], tuple[float, list[float]]]  # steps -> validation loss, seconds of the steps
_TIMED = 12  # number of timed steps with each mode of PyTorch, to choose the fastest mode


@dataclass(frozen=True)
class Reached:
    """A program that has reached the loss.

    mode: how the program computes. steps: number of steps of its shortest run that ends at or below the target.
    step_s: the median time of its steps in seconds. tried: the validation loss of each run, by its number of steps.
    """

    program: str
    mode: str
    steps: int
    loss: float
    step_s: float
    tried: dict[int, float]

    @property
    def seconds(self) -> float:
        return self.steps * self.step_s


def shortest(loss_of: LossOf, target: float, program: str, mode: str) -> Reached:
    """Train runs of more and more steps until a run ends at or below the target.

    loss_of: returns the validation loss of a run of n steps, and the seconds of each step.

    Raises RuntimeError if no run reaches the target.
    """
    seconds: list[float] = []
    tried: dict[int, float] = {}
    for steps in STEPS:
        tried[steps], times = loss_of(steps)
        seconds += times
        print(f"{program}, {steps} steps: {tried[steps]:.3f}", file=sys.stderr)
        if tried[steps] <= target:
            return Reached(program, mode, steps, tried[steps], statistics.median(seconds), tried)
    raise RuntimeError(f"{program} does not reach a loss of {target:g} in {STEPS[-1]} steps; choose a higher --target")


def shipped_corpus(work: Path) -> Path:
    """Return the data folder of examples/data/corpus.txt. Make the folder if it does not exist."""
    folder = work / "data" / "shipped"
    if not (folder / "meta.json").exists():
        corpus = ROOT / "examples" / "data" / "corpus.txt"
        toynn.prepare(corpus, folder, vocab_size=VOCABULARY, progress=False)
    return folder


# ---- toynn ----


def with_toynn(
    data: Path, work: Path, threads: int, settings: dict[str, Any]
) -> Callable[[int], tuple[float, list[float]]]:
    """Return a function that trains with the default recipe of toynn. settings: settings besides the shape."""

    def loss_of(steps: int) -> tuple[float, list[float]]:
        seconds: list[float] = []

        def see(event: Event) -> None:
            if isinstance(event, Stepped):
                seconds.append(event.seconds)

        shutil.rmtree(work / "run", ignore_errors=True)
        given = {
            "model.d_model": WIDTH, "model.n_heads": HEADS, "model.n_kv": HEADS, "model.n_layers": LAYERS,
            "model.ctx": CONTEXT, "train.batch": BATCH, "train.steps": steps, "evaluation.every": 0,
            "checkpoint.every": 0, **settings,
        }  # fmt: skip
        ended = toynn.train(data, work / "run", n_threads=threads, progress=False, callbacks=[see], **given)
        shutil.rmtree(work / "run")
        assert ended.best_loss is not None
        return ended.best_loss, seconds[1:]

    return loss_of


# ---- PyTorch ----


class TorchRuns:
    """Runs of nanoGPT's recipe on the windows of a data folder."""

    def __init__(self, data: Path, threads: int) -> None:
        import torch

        from benchmarks import torch_side

        torch_side.prepare(threads)
        self._torch, self._data = torch, data
        self._train = torch.from_numpy(np.asarray(PackedTokens.open(data, "train").tokens, np.int64))
        self.mode = "eager, f32"

    def version(self) -> str:
        from benchmarks import torch_side

        return torch_side.version()

    def choose_mode(self) -> None:
        """Set the mode with the lowest median time of a step."""
        times = {}
        for compiled in (False, True):
            for in_bf16 in (False, True):
                mode = f"{'compiled' if compiled else 'eager'}, {'bf16' if in_bf16 else 'f32'}"
                try:
                    times[mode] = statistics.median(self._run(_TIMED, mode)[1])
                except Exception as error:  # without a C++ compiler, torch.compile fails with one of several exceptions
                    print(f"PyTorch, {mode}: {type(error).__name__}", file=sys.stderr)
                    continue
                print(f"PyTorch, {mode}: {1e3 * times[mode]:.1f} ms a step", file=sys.stderr)
        self.mode = min(times, key=times.__getitem__)

    def loss_of(self, steps: int) -> tuple[float, list[float]]:
        """Return the validation loss of a run, and the seconds of each step."""
        from benchmarks.torch_peers import validation_loss

        model, seconds = self._run(steps, self.mode)
        return validation_loss(model, self._data, CONTEXT, BATCH), seconds

    def _run(self, steps: int, mode: str) -> tuple[Any, list[float]]:
        from benchmarks.torch_gpt import CLIP, GPT, learning_rate, optimizer_of

        torch = self._torch
        torch.manual_seed(0)
        model = GPT(VOCABULARY, WIDTH, HEADS, LAYERS, CONTEXT)
        optimizer, seconds = optimizer_of(model), []
        computed: Any = torch.compile(model, dynamic=False) if mode.startswith("compiled") else model
        for step, (ids, targets) in enumerate(self._batches(steps)):
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=mode.endswith("bf16")):
                loss = computed(ids, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            float(loss.item())
            seconds.append(time.perf_counter() - began)
        return model, seconds[2:]

    def _batches(self, steps: int) -> Iterator[tuple[Any, Any]]:
        """Yield ids and targets (BATCH, CONTEXT) at random places, as nanoGPT does."""
        torch = self._torch
        for _ in range(steps):
            starts = torch.randint(len(self._train) - CONTEXT - 1, (BATCH,)).tolist()
            yield tuple(torch.stack([self._train[start + i : start + i + CONTEXT] for start in starts]) for i in (0, 1))


# ---- the result ----


def markdown(reached: list[Reached], target: float, threads: int, versions: str, load: float) -> str:
    """Return a table with a row for each program."""
    least = min(one.seconds for one in reached)
    where = f"{machine.description()}, {threads} threads; {versions}; load average at the start {load:.2f}."
    lines = [
        f"{where} Validation loss to reach: {target:g} nats per token.",
        "",
        "| program | mode | steps | step, ms | seconds to the loss | relative |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    for one in reached:
        cells = (one.steps, f"{1e3 * one.step_s:.1f}", f"{one.seconds:.1f}", f"{one.seconds / least:.2f}")
        lines.append(f"| {one.program} | {one.mode} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_loss", description=__doc__)
    parser.add_argument("--target", type=float, default=TARGET, help="Validation loss in nats per token.")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="Number of threads.")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "time-to-loss", help="Folder of data and runs.")
    parser.add_argument("--no-write", action="store_true", help="Only print the table, without writing a file.")
    flags = parser.parse_args()
    load, data = machine.load(), shipped_corpus(flags.work)
    reached = []
    for kind in ("adamw", "muon"):
        loss_of = with_toynn(data, flags.work, flags.threads, {"optimizer.kind": kind})
        reached.append(shortest(loss_of, flags.target, f"toynn, {kind}", "f32"))
    runs = TorchRuns(data, flags.threads)
    runs.choose_mode()
    reached.append(shortest(runs.loss_of, flags.target, "nanoGPT's recipe in PyTorch", runs.mode))
    text = markdown(reached, flags.target, flags.threads, runs.version(), load)
    print(text)
    if not flags.no_write:
        write_markdown(text, PAGE, "make bench-time-to-loss")
        results = {"target": flags.target, "threads": flags.threads, "runs": [asdict(one) for one in reached]}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

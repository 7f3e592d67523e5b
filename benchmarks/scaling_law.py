"""Train small models of increasing size, and fit the scaling law of `toynn plan` to their validation losses.

`python -m benchmarks.scaling_law` takes hours on one core. Each run that has ended is a line of
benchmarks/results/scaling_law.jsonl; after an interruption, the same command makes only the runs that are missing
there. The fitted constants are written to src/toynn/planning/law.json, and a table to docs/planning.md.

The runs of a size on a text share the steps with a constant learning rate. From a checkpoint of these steps, the
learning rate falls to 0: this gives the loss for one number of steps. The result has the same bits as a separate run
with this number of steps and the schedule "wsd".
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import toynn
from benchmarks.program_process import ROOT, ProgramError
from benchmarks.report import write_markdown
from benchmarks.result_files import add_result, read_results
from benchmarks.scaling_fit import KINDS, Fitted, fit, measured, write_law
from benchmarks.scaling_texts import data_folder
from toynn.data.meta import load_meta
from toynn.planning.law import LAW, log_losses
from toynn.planning.recipe import EVALUATED, PROBE_STEPS, TOKENS_OF_STEP, Size, decay_of, settings_of
from toynn.storage.checkpoint import load_checkpoint
from toynn.training.events import Evaluated, Event

RESULTS = ROOT / "benchmarks" / "results" / "scaling_law.jsonl"
PAGE = ROOT / "docs" / "planning.md"
FEWEST = PROBE_STEPS  # steps of the shortest run of each size and text; each further run has twice as many steps

# The runs in their order: a text, a size, and the largest number of steps. The first runs are close to the models that
# plans of 1, 5 and 20 minutes choose on a machine with two cores.
LADDER = (
    ("stories-20MB", Size(32, 2), 2000),
    ("stories-0.3MB", Size(64, 3), 1000),
    ("sources", Size(64, 3), 1000),
    ("stories-20MB", Size(64, 3), 2000),
    ("sources", Size(32, 2), 1000),
    ("sources", Size(96, 4), 500),
    ("stories-20MB", Size(96, 4), 1000),
    ("sources", Size(128, 5), 500),
    ("stories-0.3MB", Size(32, 2), 1000),
    ("stories-20MB", Size(128, 5), 500),
    ("stories-0.3MB", Size(96, 4), 1000),
    ("stories-2MB", Size(32, 2), 125),
    ("stories-0.3MB", Size(64, 3), 2000),
    ("stories-20MB", Size(96, 4), 2000),
    ("stories-2MB", Size(96, 4), 2000),
    ("stories-20MB", Size(128, 5), 2000),
    ("stories-0.3MB", Size(96, 4), 2000),
    ("stories-0.3MB", Size(128, 5), 1000),
    ("stories-20MB", Size(192, 6), 1000),
    ("stories-2MB", Size(128, 5), 2000),
    ("stories-20MB", Size(128, 5), 4000),
    ("stories-20MB", Size(192, 6), 2000),
    ("stories-2MB", Size(128, 5), 4000),
    ("stories-0.3MB", Size(128, 5), 2000),
    ("stories-20MB", Size(96, 4), 4000),
    ("stories-2MB", Size(96, 4), 4000),
    ("stories-2MB", Size(192, 6), 2000),
    ("stories-0.3MB", Size(192, 6), 1000),
    ("stories-20MB", Size(192, 6), 4000),
    ("stories-2MB", Size(64, 3), 4000),
    ("sources", Size(64, 3), 2000),
    ("sources", Size(96, 4), 1000),
    ("sources", Size(192, 6), 250),
    ("sources", Size(128, 5), 2000),
    ("stories-20MB", Size(32, 2), 4000),
    ("stories-20MB", Size(64, 3), 4000),
    ("sources", Size(96, 4), 4000),
    ("sources", Size(192, 6), 2000),
    ("stories-20MB", Size(128, 5), 8000),
    ("stories", Size(64, 3), 2000),
    ("sources", Size(192, 6), 4000),
    ("stories-20MB", Size(192, 6), 8000),
)


@dataclass(frozen=True)
class Result:
    """A run that has ended.

    layer_parameters: weights in the matrices of the layers. tokens: number of tokens that the run has read.
    train_tokens, train_bytes: size of the training split. loss: validation loss in nats per token. loss_per_byte: the
    same loss in nats per byte of the text. training_loss: mean loss of the last step.
    """

    text: str
    size: str
    steps: int
    layer_parameters: int
    tokens: int
    train_tokens: int
    train_bytes: int
    loss: float
    loss_per_byte: float
    training_loss: float


def missing(results: list[Result]) -> Iterator[tuple[str, Size, int]]:
    """Yield text, size and steps of the runs in LADDER that have not ended."""
    ended = {(one.text, one.size, one.steps) for one in results}
    for text, size, most in LADDER:
        steps = FEWEST
        while steps <= most:
            if (text, size.name, steps) not in ended:
                ended.add((text, size.name, steps))
                yield text, size, steps
            steps *= 2


def measure(text: str, size: Size, steps: int, work: Path) -> Result:
    """Train one model and return its losses."""
    data = data_folder(text, work)
    trunk, branch = work / "runs" / f"{text}-{size.name}", work / "runs" / "branch"
    before = steps - decay_of(steps)
    _train_trunk(data, trunk, size, before)
    shutil.rmtree(branch, ignore_errors=True)
    shutil.copytree(trunk, branch)
    losses: list[Evaluated] = []

    def collect(event: Event) -> None:
        if isinstance(event, Evaluated):
            losses.append(event)

    changed: dict[str, Any] = {
        "train.steps": steps,
        "schedule.decay": steps - before,
        "evaluation.windows": EVALUATED,
    }
    ended = toynn.train(data, branch, resume=True, n_threads=1, progress=False, callbacks=[collect], **changed)
    shutil.rmtree(branch)
    if ended.reason != "done":
        raise ProgramError(f"the run of {steps} steps was {ended.reason} at step {ended.step}; run this command again")
    split, nats = load_meta(data).splits["train"], losses[-1]
    return Result(
        text,
        size.name,
        steps,
        size.layer_parameters,
        steps * TOKENS_OF_STEP,
        split.tokens,
        split.bytes,
        nats.loss,
        math.log(2) * nats.bits_per_byte,
        float(ended.loss or 0.0),
    )


def _train_trunk(data: Path, trunk: Path, size: Size, steps: int) -> None:
    """Train with a constant learning rate up to step `steps`, from the last checkpoint of the same size and text."""
    settings: dict[str, Any] = {
        **settings_of(size, 10 * FEWEST),
        "schedule.decay": 0,
        "train.steps": steps,
        "evaluation.every": 0,
        "evaluation.windows": 1,
        "checkpoint.every": 0,
        "checkpoint.keep_last": 1,
        "checkpoint.keep_best": False,
    }
    if (trunk / "latest").exists() and load_checkpoint(trunk).step > steps:
        shutil.rmtree(trunk)
    if (trunk / "latest").exists():
        toynn.train(data, trunk, resume=True, n_threads=1, progress=False, steps=steps)
    else:
        toynn.train(data, trunk, n_threads=1, progress=False, **settings)


def markdown(results: list[Result], found: Fitted) -> str:
    """Return a table of the constants, a table of the errors, and a table of the runs with the errors of the law."""
    lines = ["| constant | value | standard deviation |", "| :-- | --: | --: |"]
    for i, (name, value) in enumerate(found.log_constants.items()):
        deviation = math.sqrt(found.covariance[i][i])
        lines.append(f"| {name} | {math.exp(value):.4g} | {100 * deviation:.1f} % |")
    scales = found.scales
    lines += ["", "| text | error that similar runs share | error of a single run |", "| :-- | --: | --: |"]
    lines += [f"| {kind} | {100 * scales.amplitude[kind]:.1f} % | {100 * scales.noise[kind]:.1f} % |" for kind in KINDS]
    constants = {name: math.exp(value) for name, value in found.log_constants.items()}
    errors, deviations = found.each_without()
    places = {run: i for i, run in enumerate(found.runs)}
    runs = [
        "| text | model | steps | passes | nats per byte | by the curve | without this run |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for one in sorted(results, key=lambda one: (one.text, one.layer_parameters, one.steps)):
        run = measured(one)
        curve = float(log_losses(constants, run.kind, [run.place])[0]) - run.log_loss
        error, deviation = -errors[places[run]], deviations[places[run]]
        runs.append(
            f"| {one.text} | {one.size} | {one.steps} | {one.tokens / one.train_tokens:.2f} | "
            f"{one.loss_per_byte:.4f} | {100 * math.expm1(curve):+.1f} % | {100 * math.expm1(error):+.1f} % "
            f"(± {100 * deviation:.1f} %) |"
        )
    return "\n".join([*lines, "", _errors(found), "", *runs])


def _errors(found: Fitted) -> str:
    """Return a sentence about the errors of the curve, and about the errors for runs that were left out of the fit."""
    constants = {name: math.exp(value) for name, value in found.log_constants.items()}
    of_curve = [float(log_losses(constants, run.kind, [run.place])[0]) - run.log_loss for run in found.runs]
    alone = found.each_without()[0]
    series: dict[tuple[object, ...], list[int]] = {}
    for i, run in enumerate(found.runs):
        series.setdefault((run.kind, run.place.layer_parameters, run.place.size), []).append(i)
    of_series = np.concatenate([found.without(left_out)[0] for left_out in series.values()])
    curve, one, many = (100 * math.sqrt(float(np.mean(np.square(errors)))) for errors in (of_curve, alone, of_series))
    return (
        f"The root mean square of the errors is {curve:.1f} % for the curve without correction, {one:.1f} % for a run "
        f"that was left out of the fit, and {many:.1f} % if all runs of its size and text were left out."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_law", description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "scaling", help="Folder of data and runs.")
    parser.add_argument("--most", type=int, default=None, help="Largest number of runs to train; 0: only fit the law.")
    flags = parser.parse_args()
    results = read_results(Result, RESULTS)
    try:
        for text, size, steps in list(missing(results))[: flags.most]:
            result = measure(text, size, steps, flags.work)
            print(f"{text}, {size.name}, {steps} steps: {result.loss:.4f}", file=sys.stderr, flush=True)
            add_result(RESULTS, result)
            results.append(result)
    except ProgramError as error:
        print(f"scaling_law: {error}", file=sys.stderr)
        return 1
    found = fit(results)
    write_law(found, LAW)
    write_markdown(markdown(results, found), PAGE, "make scaling-law")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train small models with many settings, and write the tables of docs/training-recipes.md.

`python -m benchmarks.recipe_sweep` takes hours on one core. Each run that has ended becomes a line of
benchmarks/results/recipe_sweep.jsonl. After an interruption, the same command makes only the runs that are missing in
this file.

The center of the sweep is a run with the default settings. Each other run, called a point, differs from the center in a
few settings.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toynn
from benchmarks.program_process import ROOT, ProgramError
from benchmarks.report import write_markdown
from benchmarks.result_files import add_result, read_results
from benchmarks.sweep_corpora import CORPORA, data_folder
from toynn.training import ModelArgs, StepArgs, TrainConfig
from toynn.training.divergence import DivergedError
from toynn.training.toml_config import flat, to_plain

RESULTS = ROOT / "benchmarks" / "results" / "recipe_sweep.jsonl"
PAGE = ROOT / "docs" / "training-recipes.md"
CONTEXT, BATCH, STEPS = 128, 8, 250  # tokens per window, windows per step, steps
LR_TIMES_WIDTH = 0.64  # with AdamW for all weights: the learning rate of the row "adamw", multiplied by d_model

SIZES: dict[str, dict[str, int]] = {
    "0.5M": {"d_model": 96, "n_heads": 3, "n_kv": 3, "d_ff": 256, "n_layers": 3},
    "2M": {"d_model": 192, "n_heads": 6, "n_kv": 6, "d_ff": 512, "n_layers": 4},
    "10M": {"d_model": 384, "n_heads": 12, "n_kv": 12, "d_ff": 1024, "n_layers": 5},
}
# The center has the default values of these keys.
_KEYS = ("model.init_scale", "optimizer.", "schedule.kind", "schedule.warmup", "schedule.decay", "schedule.min_ratio")
_WITHOUT_EFFECT = ("optimizer.moments", "optimizer.ema")

# Keys of POINTS whose value is a factor: of the value of the center, or of 0.64 / d_model.
LR_FACTOR, MUON_LR_FACTOR, ADAMW_LR_FACTOR = "lr x", "muon_lr x", "lr * d_model / 0.64"
_COSINE = {"schedule.kind": "cosine", "schedule.decay": 0}
_WSD = {"schedule.kind": "wsd", "schedule.decay": STEPS // 5}


def _adamw(**others: Any) -> dict[str, Any]:
    """Return the settings of a run with AdamW for all weights, and with the schedule of the center."""
    recipe = {"optimizer.kind": "adamw", ADAMW_LR_FACTOR: 1.0, **_COSINE, "schedule.warmup": 25}
    return {**recipe, "schedule.min_ratio": 0.1, **others}


# The settings in which each run differs from the center.
POINTS: dict[str, dict[str, Any]] = {
    "center": {},
    "wsd to 0": {**_WSD, "schedule.min_ratio": 0.0},
    "cosine to 0": {**_COSINE, "schedule.min_ratio": 0.0},
    "lr x 0.5": {LR_FACTOR: 0.5},
    "lr x 2": {LR_FACTOR: 2.0},
    "muon_lr x 0.5": {MUON_LR_FACTOR: 0.5},
    "muon_lr x 2": {MUON_LR_FACTOR: 2.0},
    "warmup 5": {"schedule.warmup": 5},
    "warmup 75": {"schedule.warmup": 75},
    **{f"init_scale {value}": {"model.init_scale": value} for value in (1.0, 0.25, 0.06)},
    "muon_momentum 0.9": {"optimizer.muon_momentum": 0.9},
    "muon_weight_decay 0": {"optimizer.muon_weight_decay": 0.0},
    "muon_weight_decay 0.1": {"optimizer.muon_weight_decay": 0.1},
    "weight_decay 0": {"optimizer.weight_decay": 0.0},
    "weight_decay 0.3": {"optimizer.weight_decay": 0.3},
    "lr x 0.25": {LR_FACTOR: 0.25},
    "adamw": _adamw(),
    **{f"adamw, lr x {value}": _adamw(**{ADAMW_LR_FACTOR: value}) for value in (0.25, 0.5, 0.625, 2.0, 4.0)},
    **{f"adamw, init_scale {value}": _adamw(**{"model.init_scale": value}) for value in (1.0, 0.5, 0.25, 0.06, 0.03)},
    "adamw, init_scale 0.25, lr x 0.5": _adamw(**{"model.init_scale": 0.25, ADAMW_LR_FACTOR: 0.5}),
    "adamw, cosine to 0": _adamw(**{"schedule.min_ratio": 0.0}),
    "adamw, wsd to 0": _adamw(**{"schedule.kind": "wsd", "schedule.decay": 75, "schedule.min_ratio": 0.0}),
    "adamw, warmup 5": _adamw(**{"schedule.warmup": 5}),
    "adamw, warmup 75": _adamw(**{"schedule.warmup": 75}),
    "adamw, weight_decay 0": _adamw(**{"optimizer.weight_decay": 0.0}),
    "adamw, weight_decay 0.3": _adamw(**{"optimizer.weight_decay": 0.3}),
    "adamw, beta2 0.99": _adamw(**{"optimizer.beta2": 0.99}),
}
# Other programs' recipes: the names of `benchmarks.torch_peers`.
PEERS = {"nanoGPT's recipe": "nanogpt", "nanochat's recipe": "nanochat"}


@dataclass(frozen=True)
class Result:
    """A run that has ended. loss: validation loss after the last step, in nats per token; None if the run diverged."""

    corpus: str
    size: str
    point: str
    loss: float | None
    training_loss: float | None
    settings: dict[str, Any] = field(default_factory=dict)


def center_of(size: str) -> dict[str, Any]:
    """Return the settings of the center for a size: the defaults of `toynn train`."""
    shape = ModelArgs(**SIZES[size], ctx=CONTEXT)  # type: ignore[arg-type]
    default = flat(to_plain(TrainConfig(shape, StepArgs(steps=STEPS, batch=BATCH)).explicit()))
    return {key: value for key, value in default.items() if key.startswith(_KEYS) and key not in _WITHOUT_EFFECT}


def settings_of(size: str, point: str) -> dict[str, Any]:
    """Return the settings of a run as keys of a configuration."""
    shape, center, chosen = SIZES[size], center_of(size), dict(POINTS[point])
    for name, key in ((LR_FACTOR, "optimizer.lr"), (MUON_LR_FACTOR, "optimizer.muon_lr")):
        if name in chosen:
            chosen[key] = chosen.pop(name) * center[key]
    if ADAMW_LR_FACTOR in chosen:
        chosen["optimizer.lr"] = chosen.pop(ADAMW_LR_FACTOR) * LR_TIMES_WIDTH / shape["d_model"]
    return {
        **{f"model.{name}": value for name, value in shape.items()},
        "model.ctx": CONTEXT,
        "train.batch": BATCH,
        "train.steps": STEPS,
        **center,
        **chosen,
        "evaluation.every": 0,
        "checkpoint.every": 0,
    }


def missing(
    results: list[Result], corpora: list[str], sizes: list[str], points: list[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield the corpus, the size and the point (a key of POINTS or PEERS) of each run that has no result yet."""
    ended = {(one.corpus, one.size, one.point) for one in results}
    for size in sizes:
        for point in points:
            for corpus in corpora:
                if (corpus, size, point) not in ended:
                    yield corpus, size, point


def measure(corpus: str, size: str, point: str, work: Path) -> Result:
    """Train one model and return its losses."""
    data = data_folder(corpus, work)
    if point in PEERS:
        from benchmarks.torch_peers import Shape, trained  # needs PyTorch

        shape = Shape(SIZES[size]["d_model"], SIZES[size]["n_heads"], SIZES[size]["n_layers"], CONTEXT)
        return Result(corpus, size, point, *trained(PEERS[point], data, shape, STEPS, BATCH))
    settings, out = settings_of(size, point), work / "run"
    shutil.rmtree(out, ignore_errors=True)
    try:
        ended = toynn.train(data, out, n_threads=1, progress=False, **settings)
    except DivergedError:
        return Result(corpus, size, point, None, None, settings)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if ended.reason != "done":
        raise ProgramError(f"the run was {ended.reason} at step {ended.step}; start the sweep again")
    return Result(corpus, size, point, ended.best_loss, ended.loss, settings)


def markdown(results: list[Result]) -> str:
    """Return one table of validation losses: a row for each point, a column for each corpus and size."""
    losses = {(one.corpus, one.size, one.point): one.loss for one in results}
    columns = [(corpus, size) for corpus in CORPORA for size in SIZES if (corpus, size, "center") in losses]
    finite = [(corpus, size, loss) for (corpus, size, _), loss in losses.items() if loss is not None]
    best = {at: min(loss for *of, loss in finite if tuple(of) == at) for at in columns}
    lines = [
        "| setting | " + " | ".join(f"{corpus}, {size}" for corpus, size in columns) + " |",
        "| :-- |" + " --: |" * len(columns),
    ]
    for point in (*POINTS, *PEERS):
        cells = []
        for corpus, size in columns:
            if (corpus, size, point) not in losses:
                cells.append("not run")
            elif (loss := losses[corpus, size, point]) is None:
                cells.append("diverged")
            else:
                cells.append(f"{loss:.3f} (+{100 * (loss / best[corpus, size] - 1):.1f} %)")
        if any(cell != "not run" for cell in cells):
            lines.append(f"| {point} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    points = [*POINTS, *PEERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe_sweep", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="Model sizes to train.")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA), help="Texts to train on.")
    parser.add_argument("--points", nargs="+", choices=points, default=points, help="Rows of the table to train.")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "sweep", help="Folder for the data and the runs.")
    parser.add_argument("--table-only", action="store_true", help="Only write the table, without training.")
    flags = parser.parse_args()
    results = read_results(Result, RESULTS)
    wanted = list(missing(results, flags.corpora, flags.sizes, [] if flags.table_only else flags.points))
    try:
        for corpus, size, point in wanted:
            result = measure(corpus, size, point, flags.work)
            print(f"{corpus}, {size}, {point}: {result.loss}", file=sys.stderr)
            add_result(RESULTS, result)
            results.append(result)
    except ProgramError as error:
        print(f"recipe_sweep: {error}", file=sys.stderr)
        return 1
    write_markdown(markdown(results), PAGE, "make sweep")
    return 0


if __name__ == "__main__":
    sys.exit(main())

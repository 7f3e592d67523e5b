"""Fine-tune small models with many learning rates, and write a table of docs/training-recipes.md.

A model that has learned the stories learns the questions of examples/data/questions.jsonl. The table has the validation
loss of the questions, and the loss of the stories before and after fine-tuning. If the loss of the stories rises, the
model has forgotten a part of them. `python -m benchmarks.fine_tuning_sweep` makes only the runs that are missing in
benchmarks/results/fine_tuning_sweep.jsonl.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toynn
from benchmarks.program_process import ROOT
from benchmarks.recipe_sweep import LR_TIMES_WIDTH, PAGE, SIZES, settings_of
from benchmarks.report import write_markdown
from benchmarks.result_files import add_result, read_results
from benchmarks.sweep_corpora import STORIES, data_folder, stories
from toynn.training.divergence import DivergedError

RESULTS = ROOT / "benchmarks" / "results" / "fine_tuning_sweep.jsonl"
STEPS, BATCH = 100, 8
FACTORS = (0.01, 0.1, 0.3, 1.0)  # learning rates, as multiples of 0.64 / d_model
ADAPTER_RANK = 8
_SCORED = 40_000  # number of characters of the stories whose loss is computed


@dataclass(frozen=True)
class Result:
    """The result of fine-tuning a model. Losses are in nats per token. A loss is None if the run diverged.

    tuned: "all weights" or "adapter". before, after: the loss of the stories before and after fine-tuning.
    """

    size: str
    tuned: str
    factor: float
    loss: float | None
    before: float
    after: float | None


def base_of(size: str, work: Path) -> Path:
    """Return the run that has learned the stories by the row "adamw" of the sweep. Train the run if needed."""
    out = work / f"base-{size}"
    if not (out / "latest").exists():
        shutil.rmtree(out, ignore_errors=True)
        toynn.train(data_folder(STORIES, work), out, n_threads=1, progress=False, **settings_of(size, "adamw"))
    return out


def questions(work: Path) -> Path:
    """Return the data folder of the questions. Make the folder if it does not exist."""
    folder, examples = work / "data" / "questions", ROOT / "examples" / "data"
    if not (folder / "meta.json").exists():
        toynn.prepare(
            examples / "questions.jsonl",
            folder,
            tokenizer=data_folder(STORIES, work),
            chat_template=examples / "dialogue.jinja",
            progress=False,
        )
    return folder


def loss_of_stories(model: Path, base: Path | None = None) -> float:
    text = stories()[-_SCORED:]
    with toynn.load(model, base=base, n_threads=1) as loaded:
        return loaded.evaluate(text).loss


def measure(size: str, tuned: str, factor: float, work: Path) -> Result:
    """Fine-tune one model and return its losses."""
    base, out = base_of(size, work), work / "tuned"
    shutil.rmtree(out, ignore_errors=True)
    settings: dict[str, Any] = {
        "train.steps": STEPS,
        "train.batch": BATCH,
        "optimizer.lr": factor * LR_TIMES_WIDTH / SIZES[size]["d_model"],
        "evaluation.every": 0,
        "checkpoint.every": 0,
    }
    start: dict[str, Any] = {"init": base}
    if tuned == "adapter":
        settings["adapter.rank"] = ADAPTER_RANK
        start = {"base": base}
    before = loss_of_stories(base)
    try:
        ended = toynn.train(questions(work), out, n_threads=1, progress=False, **start, **settings)
    except DivergedError:
        return Result(size, tuned, factor, None, before, None)
    return Result(size, tuned, factor, ended.best_loss, before, loss_of_stories(out))


def markdown(results: list[Result]) -> str:
    """Return a table with a row for each run: size, trained weights, learning rate and losses."""
    lines = [
        "| size | trained | lr * d_model / 0.64 | loss of questions | loss of stories: before | after |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    order = {size: place for place, size in enumerate(SIZES)}
    for one in sorted(results, key=lambda one: (order[one.size], one.tuned, one.factor)):
        losses = "diverged | " if one.loss is None else f"{one.loss:.4f} | "
        after = "" if one.after is None else f"{one.after:.3f}"
        lines.append(f"| {one.size} | {one.tuned} | {one.factor:g} | {losses}{one.before:.3f} | {after} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning_sweep", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.5M", "2M"], help="Model sizes to train.")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "sweep", help="Folder for the data and the runs.")
    parser.add_argument("--table-only", action="store_true", help="Only write the table, without training.")
    flags = parser.parse_args()
    results = read_results(Result, RESULTS)
    ended = {(one.size, one.tuned, one.factor) for one in results}
    for size in [] if flags.table_only else flags.sizes:
        for tuned in ("all weights", "adapter"):
            for factor in FACTORS:
                if (size, tuned, factor) in ended:
                    continue
                result = measure(size, tuned, factor, flags.work)
                print(f"{size}, {tuned}, {factor}: {result.loss}, stories {result.after}", file=sys.stderr)
                add_result(RESULTS, result)
                results.append(result)
    write_markdown(markdown(results), PAGE, "make sweep, fine-tuning")
    return 0


if __name__ == "__main__":
    sys.exit(main())

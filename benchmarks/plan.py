"""Compare plans with the runs that follow them: the time, and the validation loss.

`python -m benchmarks.plan` prepares stories that were not among the texts to which the scaling law was fitted. It runs
`toynn train --time` in a child process for each size of the text and each time. Each run that has ended is a line of
benchmarks/results/plan.jsonl, and a table is written to docs/planning.md. With the default arguments the script takes
80 minutes, and no other program should run on the machine.

The options --texts and --minutes choose a part of the runs. The table keeps the other runs. On a machine with two
cores, two parts can run at the same time with one core each, if both last equally long:
`taskset -c 0 python -m benchmarks.plan --texts stories-2MB --minutes 20 --work build/plan-0`, and the same with core 1,
another text and another folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.program_process import ROOT, ProgramError
from benchmarks.report import write_markdown
from benchmarks.result_files import add_result, read_results
from benchmarks.scaling_texts import MEGABYTES, NEW, data_folder
from toynn.tinynn import tnn_available_cores
from toynn.training.run_log import read_log

RESULTS = ROOT / "benchmarks" / "results" / "plan.jsonl"
PAGE = ROOT / "docs" / "planning.md"
MINUTES = (1, 5, 20)
_TOYNN = (sys.executable, "-c", "from toynn.cli.start import main; main()")


@dataclass(frozen=True)
class Result:
    """A run that has ended. Losses are in nats per token.

    text: name of the text. minutes: the given time. planned: seconds after which the command should end; this is less
    than the given time if the text is too small. seconds: duration of the whole command. expected, low, high: the loss
    that the plan predicts, and its bounds. loss: the last validation loss. planned_steps, steps: number of steps in the
    plan and in the run. loaded: whether other programs used the machine during the run. cores: number of cores that the
    run could use.
    """

    text: str
    minutes: int
    planned: float
    seconds: float
    expected: float
    low: float
    high: float
    loss: float
    parameters: int
    planned_steps: int
    steps: int
    epochs: float
    loaded: bool
    cores: int = 2


def measure(text: str, minutes: int, work: Path, *, loaded: bool) -> Result:
    """Train for a time in a child process, and return the prediction of the plan and the result of the run."""
    data, run = data_folder(f"{NEW}{text}", work), work / f"run-{text}-{minutes}"
    shutil.rmtree(run, ignore_errors=True)
    command = [*_TOYNN, "train", str(data), "--out", str(run), "--time", f"{minutes}m", "--json"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise ProgramError(f"toynn train failed: {done.stderr.strip()}")
    plan = json.loads(done.stdout)["plan"]
    events = read_log(run)
    last = [event for event in events if event["event"] == "evaluated"][-1]
    before = next(event["seconds_used"] for event in events if event["event"] == "started")
    return Result(
        text,
        minutes,
        60.0 * minutes if plan["uses_whole_time"] else before + plan["seconds"],
        seconds,
        plan["loss"],
        plan["loss_low"],
        plan["loss_high"],
        last["loss"],
        plan["parameters"],
        plan["steps"],
        last["step"],
        plan["epochs"] * last["step"] / plan["steps"],
        loaded,
        tnn_available_cores(),
    )


def markdown(results: list[Result]) -> str:
    """Return a table with the last run of each text and time."""
    runs = {(one.text, one.minutes): one for one in results}
    columns = [
        *("text", "time", "model", "steps: planned", "reached", "epochs"),
        *("seconds: planned", "reached", "loss: expected", "reached", "machine"),
    ]
    lines = [f"| {' | '.join(columns)} |", f"| :-- |{' --: |' * (len(columns) - 2)} :-- |"]
    for text in MEGABYTES:
        for minutes in MINUTES:
            one = runs.get((text, minutes))
            if one is None:
                lines.append(f"| {text} | {minutes} min | not run | | | | | | | | |")
                continue
            lines.append(
                f"| {text} | {minutes} min | {one.parameters / 1e6:.2f} M | {one.planned_steps} | {one.steps} | "
                f"{one.epochs:.1f} | {one.planned:.0f} | {one.seconds:.0f} ({_percent(one.seconds, one.planned)}) | "
                f"{one.expected:.3f} ({one.low:.3f} to {one.high:.3f}) | {one.loss:.3f} "
                f"({_percent(one.loss, one.expected)}) | {_machine(one)} |"
            )
    return "\n".join(lines)


def _machine(one: Result) -> str:
    """Return in words whether other programs used the machine during a run, and how many cores the run could use."""
    return f"{'loaded' if one.loaded else 'idle'}, {one.cores} {'core' if one.cores == 1 else 'cores'}"


def _percent(value: float, expected: float) -> str:
    return f"{100 * (value / expected - 1):+.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--texts", nargs="+", choices=MEGABYTES, default=list(MEGABYTES), help="Texts to train on.")
    parser.add_argument(
        "--minutes", nargs="+", type=int, choices=MINUTES, default=list(MINUTES), help="Training times in minutes."
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "plan", help="Folder for the data and the runs.")
    parser.add_argument("--loaded", action="store_true", help="Note in the table that other programs were running.")
    parser.add_argument("--table-only", action="store_true", help="Only write the table, without training.")
    flags = parser.parse_args()
    try:
        for minutes in [] if flags.table_only else flags.minutes:
            for text in flags.texts:
                result = measure(text, minutes, flags.work, loaded=flags.loaded)
                print(f"{text}, {minutes} min: {result}", file=sys.stderr, flush=True)
                add_result(RESULTS, result)
    except ProgramError as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    # another part of the benchmark may have added results to the file in the meantime
    write_markdown(markdown(read_results(Result, RESULTS)), PAGE, "make bench-plan")
    return 0


if __name__ == "__main__":
    sys.exit(main())

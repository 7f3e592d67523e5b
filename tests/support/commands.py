"""The `toynn` command in child processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOYNN = [sys.executable, "-c", "from toynn.cli.start import main; main()"]

SIZES = {"d_model": 16, "n_heads": 2, "n_kv": 1, "d_ff": 24, "n_layers": 2, "ctx": 16}
KEYS = {
    "train.batch": 2,
    "optimizer.kind": "adamw",
    "schedule.warmup": 2,
    "checkpoint.every": 1,
    **{f"model.{k}": v for k, v in SIZES.items()},
}
# Arguments of `toynn train` for a model so small that a step takes milliseconds.
SMALL = [word for key, value in KEYS.items() for word in ("--set", f"{key}={value}")]


def toynn(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command, and return the completed process."""
    return subprocess.run(
        [*TOYNN, *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        check=False,
        encoding="utf-8",
        timeout=600,
    )


def output_of(*arguments: str | Path) -> str:
    """Run the command, and return its output. Raise AssertionError unless the exit status is 0."""
    done = toynn(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_refused(done: subprocess.CompletedProcess[str], mentions: str) -> None:
    """Check that a command ended with exit status 2 and one line on stderr that contains `mentions`."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert mentions in done.stderr
    assert done.stderr.count("\n") == 1


def start_training(data: Path, run: Path, steps: int, *arguments: str) -> subprocess.Popen[str]:
    """Start `toynn train` of a small model, and return its process."""
    command = [*TOYNN, "train", str(data), "--out", str(run), *SMALL, "--set", f"train.steps={steps}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_a_step(process: subprocess.Popen[str]) -> None:
    """Wait until the process has reported a step."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step ") and "/" in line:
            return
    raise AssertionError("the process ended before its first step")

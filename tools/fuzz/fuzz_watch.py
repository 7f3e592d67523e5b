"""Run a fuzzer as a child process. Report its output, and in which round it crashed, hung or raised an exception."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from dataclasses import dataclass

# the last line of a successful child; without it, a call that ends the process with status 0 would look like success
END = "end of the rounds"
LIMIT = 4 << 30  # memory limit of a round in bytes; toynn must refuse larger requests before it fills any memory


@dataclass(frozen=True)
class Outcome:
    """The result of a child process. seed: the round in which it failed, or None if it succeeded."""

    seed: int | None
    output: str

    @property
    def succeeded(self) -> bool:
        return self.seed is None


PLURALS = {"round": "rounds", "batch": "batches"}


def add_options(parser: argparse.ArgumentParser, unit: str, *, patience: float) -> None:
    """Add the options that all fuzzers share. unit: the name of the things that the fuzzer counts, a key of PLURALS."""
    units = PLURALS[unit]
    parser.add_argument("--seconds", type=float, default=60.0, help="Stop after this time (default: %(default)g s).")
    parser.add_argument(
        f"--{units}", dest="most", metavar="N", type=int, default=10**9, help=f"Stop after this number of {units}."
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help=f"Seed of the first {unit}; the seed grows by one with each {unit} (default: 0).",
    )
    parser.add_argument(
        "--patience", type=float, default=patience,
        help=f"Seconds after which a {unit} counts as hung (default: %(default)g).",
    )  # fmt: skip


def passed_on(options: argparse.Namespace, unit: str) -> list[str]:
    """Return the command-line arguments that pass the seconds, the rounds and the seed to a child process."""
    return ["--seed", str(options.seed), f"--{PLURALS[unit]}", str(options.most), "--seconds", str(options.seconds)]


def watch(script: str, arguments: list[str], patience: float) -> Outcome:
    """Run `script --child arguments`. The child prints "seed N" before each round and END as its last line.

    If the child needs more than `patience` seconds for a round, it is killed.
    """
    # AddressSanitizer reserves terabytes of address space, so AddressSanitizer gets the memory limit as its own option.
    asan = os.environ.get("ASAN_OPTIONS")
    child = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", script, "--child", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="backslashreplace",
        env=os.environ | {"ASAN_OPTIONS": f"{asan}:max_allocation_size_mb={LIMIT >> 20}"} if asan else None,
    )  # fmt: skip
    seed, lines, ended, hung = -1, [], False, threading.Event()

    def kill() -> None:
        hung.set()
        child.kill()

    if child.stdout is None:
        raise AssertionError("the child has no output")

    def started_timer() -> threading.Timer:
        timer = threading.Timer(patience, kill)
        timer.daemon = True  # if the timer is a daemon thread, Ctrl-C ends this process at once
        timer.start()
        return timer

    timer = started_timer()
    for line in child.stdout:
        timer.cancel()
        timer = started_timer()
        if line.startswith("seed "):
            seed = int(line.split()[1])
        elif line == END + "\n":
            ended = True
        else:
            lines.append(line)
    timer.cancel()
    status = child.wait()
    text = "".join(lines)
    if hung.is_set():
        return Outcome(seed, f"the round with seed {seed} hung for {patience:.0f} s\n{text}")
    if status != 0 or not ended:
        return Outcome(seed, f"the round with seed {seed} ended the process with status {status}\n{text}")
    return Outcome(None, text)

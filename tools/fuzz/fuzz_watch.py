"""Watches a fuzzer's child process: what it said, and in which round it died, hung or raised."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass

END = "end of the rounds"  # the last line of a child: a call that ends the process with status 0 is a failure too
LIMIT = 4 << 30  # bytes that a round may ask for: what is larger must be refused, not filled


@dataclass(frozen=True)
class Outcome:
    """What became of the child. seed: of the round it was in when it ended, None where it ended well."""

    seed: int | None
    said: str

    @property
    def well(self) -> bool:
        return self.seed is None


def watch(script: str, words: list[str], patience: float) -> Outcome:
    """Runs `script --child words` as a child, which announces each round by a line "seed N" and ends with the line END.

    A round that takes longer than `patience` seconds is a hang: the child is killed.
    """
    asan = os.environ.get("ASAN_OPTIONS")  # which reserves terabytes of addresses, and has a limit of its own
    child = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", script, "--child", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="backslashreplace",
        env=os.environ | {"ASAN_OPTIONS": f"{asan}:max_allocation_size_mb={LIMIT >> 20}"} if asan else None,
    )  # fmt: skip
    seed, said, ended, hung = -1, [], False, threading.Event()

    def kill() -> None:
        hung.set()
        child.kill()

    if child.stdout is None:
        raise AssertionError("the child has no output")

    def patience_begins() -> threading.Timer:
        begun = threading.Timer(patience, kill)
        begun.daemon = True  # Ctrl-C ends this process at once, not when the patience does
        begun.start()
        return begun

    timer = patience_begins()
    for line in child.stdout:
        timer.cancel()
        timer = patience_begins()
        if line.startswith("seed "):
            seed = int(line.split()[1])
        elif line == END + "\n":
            ended = True
        else:
            said.append(line)
    timer.cancel()
    status = child.wait()
    text = "".join(said)
    if hung.is_set():
        return Outcome(seed, f"the round of seed {seed} hung for {patience:.0f} s\n{text}")
    if status != 0 or not ended:
        return Outcome(seed, f"the round of seed {seed} ended the process with status {status}\n{text}")
    return Outcome(None, text)

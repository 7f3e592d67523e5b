"""Compare `toynn prepare` with the libraries datasets and tokenizers, and write a section of docs/performance.md.

Run it with `python -m benchmarks.prepare`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.measure import quartiles
from benchmarks.prepare_data import END, TEMPLATE, TOKENIZER, file_of, write_conversations, write_data
from benchmarks.prepare_side import CONVERSATIONS, PLAIN, TEXTS
from benchmarks.program_process import ROOT, ProgramError
from benchmarks.report import write_markdown

COMMAND = "make bench-prepare"
PROGRAMS = {
    CONVERSATIONS: ("toynn", "datasets"),
    TEXTS: ("toynn", "datasets", "tokenizers"),
    PLAIN: ("toynn", "tokenizers"),
}
LABELS = {CONVERSATIONS: "conversations", TEXTS: "texts in JSON lines", PLAIN: "plain text"}
_SAMPLES, _ROUNDS = 20_000, 5
_SMALL_FILE, _LARGE_FILE = 200_000_000, 2_000_000_000  # bytes
_PAUSE_S = 0.2  # seconds between two readings of the memory of the processes


@dataclass
class Row:
    """The duration and the CPU time of a program in each turn, in seconds."""

    kind: str
    cores: int
    program: str
    version: str = ""
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_rss: int = 0


@dataclass(frozen=True)
class MemoryRow:
    """The memory needed to prepare a large file. peak: the largest total of the resident bytes of all processes."""

    nbytes: int
    samples: int
    seconds: float
    peak: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare", description="Compare the preparation of data by toynn and other programs."
    )
    parser.add_argument(
        "--quick", action="store_true", help="Run each program once on little data, to check that the benchmark works."
    )
    parser.add_argument(
        "--samples", type=int, default=_SAMPLES, help=f"Number of samples in each file (default: {_SAMPLES})."
    )
    parser.add_argument(
        "--rounds", type=int, default=_ROUNDS, help=f"How many times each program runs (default: {_ROUNDS})."
    )
    parser.add_argument("--no-memory", action="store_true", help="Do not measure the memory for large files.")
    parser.add_argument("--out", type=Path, help="Output folder (default: docs/ and benchmarks/results/).")
    return parser.parse_args()


def turn(row: Row, folder: Path) -> tuple[str, str]:
    """Run a program once in a new process, add its time to the row, and return the digests of its result."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "benchmarks.prepare_side", row.program, row.kind, str(folder), out]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(row.cores), "TOKENIZERS_PARALLELISM": "true"}
        done = subprocess.run(
            [*command, str(row.cores)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
    if done.returncode != 0:
        raise ProgramError(f"{row.program} ended with exit status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    row.seconds.append(found["seconds"])
    row.cpu.append(found["cpu"])
    row.version, row.peak_rss = found["version"], max(row.peak_rss, found["peak_rss"])
    return found["ids"], found["counted"]


def measure(folder: Path, rounds: int) -> list[Row]:
    """Measure all kinds of data with all numbers of cores. The programs take turns.

    Raises ProgramError if a program failed, or if two programs return different tokens.
    """
    rows = []
    for kind, programs in PROGRAMS.items():
        for cores in range(1, min(machine.cores(), 2) + 1):
            print(f"{LABELS[kind]}, {cores} core(s) ...", file=sys.stderr)
            own = [Row(kind, cores, program) for program in programs]
            for _ in range(rounds):
                found = {row.program: turn(row, folder) for row in own}
                if len(set(found.values())) > 1:
                    raise ProgramError(f"the programs return different tokens for {LABELS[kind]}: {found}")
            rows += own
    return rows


def measure_memory(folder: Path, nbytes: int) -> MemoryRow:
    """Write a file of conversations with this size, measure the memory to prepare the file, and delete the file."""
    path = folder / "large.jsonl"
    print(f"a file of {nbytes / 1e9:.2g} GB ...", file=sys.stderr)
    samples = write_conversations(path, 9, most_bytes=nbytes, sentences_of_answer=40)
    nbytes = path.stat().st_size
    try:
        with tempfile.TemporaryDirectory() as out:
            command = [
                sys.executable,
                "-c",
                "from toynn.cli.start import main; main()",
                "prepare",
                str(path),
            ]
            command += ["--tokenizer", str(folder / TOKENIZER), "--chat-template", str(folder / TEMPLATE), "--eos", END]
            start = time.perf_counter()
            with subprocess.Popen([*command, "--out", f"{out}/data"], stdout=subprocess.DEVNULL) as process:
                peak = 0
                while process.poll() is None:
                    peak = max(peak, _resident(process.pid))
                    time.sleep(_PAUSE_S)
            seconds = time.perf_counter() - start
    finally:
        path.unlink()
    if process.returncode != 0:
        raise ProgramError(f"toynn prepare ended with exit status {process.returncode}")
    return MemoryRow(nbytes, samples, seconds, peak)


def _resident(pid: int) -> int:
    """Return the sum of the resident bytes of a process and its descendants."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # the process has ended
        return 0
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)
    return own + sum(_resident(int(child)) for child in children)


def markdown(rows: list[Row], memory: list[MemoryRow], folder: Path, load: float) -> str:
    day = datetime.now(timezone.utc).date().isoformat()
    versions = sorted({row.version for row in rows}, reverse=True)
    head = [f"Measured on {day}: {machine.description()}.", *(f"{one}." for one in versions)]
    head.append(f"Load average at the start: {load:.2f}.")
    lines = [
        "| data | cores | | samples/s | quartiles | MB/s | speed of toynn / this | CPU, s | peak, MiB |",
        "| :-- | --: | :-- | --: | --: | --: | --: | --: | --: |",
    ]
    samples = len(file_of(folder, TEXTS).read_text(encoding="utf-8").splitlines())
    for row in rows:
        toynn = next(one for one in rows if (one.kind, one.cores, one.program) == (row.kind, row.cores, "toynn"))
        low, median, high = quartiles([samples / seconds for seconds in row.seconds])
        speed = [its / mine for its, mine in zip(row.seconds, toynn.seconds, strict=True)]
        ratio = "1" if row is toynn else "{1:.2f} ({0:.2f} - {2:.2f})".format(*quartiles(speed))
        rate = file_of(folder, row.kind).stat().st_size / 1e6 / statistics.median(row.seconds)
        lines.append(
            f"| {LABELS[row.kind]} | {row.cores} | {row.program} | {median:.0f} | {low:.0f} - {high:.0f} | {rate:.2f} "
            f"| {ratio} | {statistics.median(row.cpu):.1f} | {row.peak_rss / 2**20:.0f} |"
        )
    parts = ["  \n".join(head), "\n".join(lines)]
    if memory:
        lines = [
            "| file, GB | samples | seconds | MB/s | peak of all processes, MiB |",
            "| --: | --: | --: | --: | --: |",
        ]
        for one in memory:
            lines.append(
                f"| {one.nbytes / 1e9:.2f} | {one.samples} | {one.seconds:.0f} | {one.nbytes / 1e6 / one.seconds:.2f} "
                f"| {one.peak / 2**20:.0f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> int:
    flags = arguments()
    load = machine.load()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_data(folder, 500 if flags.quick else flags.samples)
            rows = measure(folder, 1 if flags.quick else flags.rounds)
            sizes = (400_000, 4_000_000) if flags.quick else (_SMALL_FILE, _LARGE_FILE)
            memory = [] if flags.no_memory else [measure_memory(folder, nbytes) for nbytes in sizes]
            text = markdown(rows, memory, folder, load)
    except ProgramError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(text)
    if flags.out is not None or not flags.quick:
        docs, results = flags.out or ROOT / "docs", flags.out or ROOT / "benchmarks" / "results"
        for one in (docs, results):
            one.mkdir(parents=True, exist_ok=True)
        found = {
            "machine": machine.description(), "load": load, "rows": [vars(row) for row in rows],
            "memory": [vars(one) for one in memory],
        }  # fmt: skip
        (results / "prepare.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        write_markdown(text, docs / "performance.md", COMMAND)
    return 0


if __name__ == "__main__":
    sys.exit(main())

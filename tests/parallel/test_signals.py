"""Ctrl-C, SIGTERM and kill -9 while several processes run `toynn eval`, `prepare` or `generate --prompts`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from commands import SMALL, output_of
from mpi import MPICH, OPEN_MPI, environment, launch
from runs_of_processes import slow
from small_runs import make_data

# Run a command in which each item takes at least 50 ms, and write a file when the process has computed its first item.
SLOWLY = """
import os, time
from pathlib import Path
from toynn.cli import start
from toynn.parallel import division, workers
from toynn.parallel.launch import launched_rank

def slowly(compute):
    def slow(*given):
        result = compute(*given)
        Path(os.environ["BUSY"] + str(launched_rank())).touch()
        time.sleep(0.05)
        return result
    return slow

division.result_or_error = slowly(division.result_or_error)
workers._result = slowly(workers._result)
start.main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a text, samples and prompts that take minutes."""
    folder = tmp_path_factory.mktemp("signals")
    make_data(folder / "data")
    steps = ["--set", "train.steps=2", "--set", "schedule.warmup=1", "--quiet"]
    output_of("train", folder / "data", "--out", folder / "run", *SMALL, *steps)
    samples = ({"prompt": f"hen {i} ", "completion": "cat " * (i % 7 + 1)} for i in range(60_000))
    (folder / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    (folder / "prompts.txt").write_text("the cat\n" * 4000)
    return folder


def started(library: str, command: str, folder: Path, out: Path) -> subprocess.Popen[str]:
    """Start two processes, and wait until process 1 computes. out: the folder that `prepare` writes."""
    arguments = {
        "eval": ["eval", "run", "data.txt", "--stride", "1"],
        "prepare": ["prepare", "samples.jsonl", "--tokenizer", "data", "--out", str(out)],
        "generate": ["generate", "run", "--prompts", "prompts.txt", "--max-tokens", "2"],
    }[command]
    busy = out.with_name("busy-")
    process = subprocess.Popen(
        [*launch(library, 2), sys.executable, "-c", SLOWLY, *arguments],
        env=environment(library, BUSY=str(busy)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not busy.with_name("busy-1").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [one for one in children if "division.result_or_error" in " ".join(one.cmdline())]


@pytest.mark.parametrize(
    ("library", "command", "signal_", "to"),
    [
        (MPICH, "eval", signal.SIGINT, "all"),
        (MPICH, "prepare", signal.SIGINT, "all"),
        (MPICH, "generate", signal.SIGKILL, "process 1"),
        slow(MPICH, "generate", signal.SIGINT, "all"),
        slow(OPEN_MPI, "eval", signal.SIGINT, "all"),
        slow(OPEN_MPI, "prepare", signal.SIGINT, "all"),
        slow(OPEN_MPI, "generate", signal.SIGINT, "all"),
        *(
            slow(library, command, signal_, to)
            for library in (MPICH, OPEN_MPI)
            for command in ("eval", "prepare", "generate")
            for signal_ in (signal.SIGTERM, signal.SIGKILL)
            for to in ("mpiexec", "process 0", "process 1")
            # With Open MPI, processes notice a killed mpiexec in their next exchange; `eval` exchanges only at its end.
            if (library, command, signal_, to)
            not in [(MPICH, "generate", signal.SIGKILL, "process 1"), (OPEN_MPI, "eval", signal.SIGKILL, "mpiexec")]
        ),
    ],
)
def test_a_signal_ends_all_processes(
    library: str, command: str, signal_: signal.Signals, to: str, folder: Path, tmp_path: Path
) -> None:
    """The terminal sends Ctrl-C to all processes of the job."""
    process = started(library, command, folder, tmp_path / "out")
    workers = workers_of(process)
    assert len(workers) == 2
    if to == "all":
        os.killpg(process.pid, signal_)
        for one in workers:
            if os.getpgid(one.pid) != process.pid:
                one.send_signal(signal_)
    else:
        (psutil.Process(process.pid) if to == "mpiexec" else workers[int(to[-1])]).send_signal(signal_)
    _, error = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert process.returncode != 0
    assert "Traceback" not in error, error
    if signal_ == signal.SIGINT and library == MPICH:  # Open MPI's mpiexec ends the processes itself
        assert error.count("toynn: interrupted\n") == 1, error
        assert process.returncode == 130, error
    assert {one.name for one in (tmp_path / "out").glob("*")} <= {".unfinished"}

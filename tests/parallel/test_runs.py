"""`mpiexec -n N toynn train` writes the bytes of a single process, and all processes end after a signal or an error."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from commands import SMALL, TOYNN, toynn
from mpi import MPICH, OPEN_MPI, environment, in_processes, launch, refused, toynn_in_processes
from runs_of_processes import assert_same_run, events_of, files_of, latest_of, slow
from small_runs import make_data

BATCHES = ["--set", "train.batch=8", "--set", "train.accumulate=3"]  # a step has 24 windows
SETTINGS = [
    *SMALL,
    *BATCHES,
    "--set",
    "train.steps=4",
    "--set",
    "evaluation.every=2",
    "--set",
    "checkpoint.keep_last=9",
    "--threads",
    "1",
    "--quiet",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("parallel") / "data")


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single process."""
    run = tmp_path_factory.mktemp("parallel") / "alone"
    assert toynn("train", data, "--out", run, *SETTINGS).returncode == 0
    return run


QUICK = [(MPICH, 3), (OPEN_MPI, 2)]
MORE = [(library, n) for n in (2, 3, 4, 6, 8) for library in (MPICH, OPEN_MPI) if (library, n) not in QUICK]


@pytest.mark.parametrize(("library", "n"), [*QUICK, *(slow(*case) for case in MORE)])
def test_n_processes_write_the_bytes_of_one(library: str, n: int, data: Path, alone: Path, tmp_path: Path) -> None:
    done = toynn_in_processes(library, n, "train", data, "--out", tmp_path / "run", *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done after 4 steps") == 1, done.stdout
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["--base", "BASE", "--set", "adapter.rank=4"], ["--set", "data.document_attention=true"]]
)
def test_adapters_and_document_attention_have_the_bytes_of_one_process(
    options: list[str], data: Path, alone: Path, tmp_path: Path
) -> None:
    sizes = [] if "--base" in options else SMALL
    given = [str(alone) if one == "BASE" else one for one in options]
    steps = [
        "--set",
        "train.steps=2",
        "--set",
        "schedule.warmup=1",
        "--set",
        "train.batch=4",
        "--threads",
        "1",
        "--quiet",
    ]
    for run, n in (("one", 1), ("two", 2)):
        arguments: list[str | Path] = ["train", data, "--out", tmp_path / run, *sizes, *given, *steps]
        done = toynn(*arguments) if n == 1 else toynn_in_processes(MPICH, n, *arguments)
        assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_a_run_can_be_resumed_with_another_number_of_processes(data: Path, alone: Path, tmp_path: Path) -> None:
    """Three processes repeat the last three steps of a run, and then one process repeats the last two."""
    run = tmp_path / "run"
    shutil.copytree(alone, run)
    for n, first in ((3, "step-00000001"), (1, "step-00000002-1")):
        resume: list[str | Path] = ["train", data, "--out", run, "--resume", "--from", first, "--threads", "1"]
        done = toynn(*resume) if n == 1 else toynn_in_processes(MPICH, n, *resume)
        assert done.returncode == 0, done.stderr
        begun = [event for event in events_of(run) if event["event"] in ("started", "stepped")]
        assert [event["step"] for event in begun][-5 + int(first[5:13]) :] == [*range(int(first[5:13]), 5)]
        assert latest_of(run) == latest_of(alone)


def job(data: Path, run: Path, library: str) -> subprocess.Popen[str]:
    """Start a long run of two processes, and wait for its second checkpoint."""
    settings = [*SMALL, *BATCHES, "--set", "train.steps=100000", "--set", "evaluation.every=0", "--threads", "1"]
    command = [*launch(library, 2), *TOYNN, "train", str(data), "--out", str(run), *settings]
    process = subprocess.Popen(
        command, env=environment(library), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "step-00000002").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [one for one in psutil.Process(process.pid).children(recursive=True) if "toynn" in " ".join(one.cmdline())]


@pytest.mark.parametrize(
    ("library", "killed"),
    [
        (MPICH, "process 1"),
        slow(MPICH, "process 0"),
        slow(MPICH, "mpiexec"),
        slow(OPEN_MPI, "process 0"),
        slow(OPEN_MPI, "process 1"),
        slow(OPEN_MPI, "mpiexec"),
    ],
)
def test_all_processes_end_after_kill_9_of_one_and_the_run_can_be_resumed(
    library: str, killed: str, data: Path, tmp_path: Path
) -> None:
    process = job(data, tmp_path / "run", library)
    workers = workers_of(process)
    assert len(workers) == 2
    (psutil.Process(process.pid) if killed == "mpiexec" else workers[int(killed[-1])]).kill()
    output, _ = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert process.returncode != 0
    if killed != "mpiexec":
        assert {MPICH: "Killed (signal 9)", OPEN_MPI: "signal 9 (Killed)"}[library] in output
    latest = int((tmp_path / "run" / "latest").read_text()[5:])
    steps = ["--set", f"train.steps={latest + 2}"]
    resume: list[str | Path] = ["train", data, "--out", tmp_path / "run", "--resume", "--threads", "1", *steps]
    done = toynn_in_processes(library, 3, *resume)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("signal_", "to"), [(signal.SIGTERM, "process 1"), (signal.SIGINT, "mpiexec")])
def test_a_signal_ends_all_processes_after_the_step_and_saves_it(
    signal_: signal.Signals, to: str, data: Path, tmp_path: Path
) -> None:
    process = job(data, tmp_path / "run", MPICH)
    target = process.pid if to == "mpiexec" else workers_of(process)[1].pid
    os.kill(target, signal_)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.count(", saved\n") == 1, output
    events = events_of(tmp_path / "run")
    assert (events[-1]["event"], events[-1]["reason"]) == ("ended", "interrupted")
    assert (tmp_path / "run" / "latest").read_text() == f"step-{events[-1]['step']:08}\n"


def test_show_config_prints_the_settings_once() -> None:
    done = toynn_in_processes(MPICH, 2, "train", "--show-config", "--set", "train.seed=7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nseed = 7") == 1


def test_wrong_arguments_are_refused_with_one_line(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train: tuple[str | Path, ...] = ("train", data, "--out", run, "--threads", "1", *SMALL)
    refused(
        toynn_in_processes(MPICH, 3, *train),
        "3 processes cannot divide the 2 windows of a step (train.batch = 2, train.accumulate = 1) equally; start 1 or "
        "2 processes, or change train.batch",
    )
    refused(toynn_in_processes(MPICH, 2, *train, "--set", "optimizer.foo=1"), "unknown key")
    refused(toynn_in_processes(MPICH, 2, *train, "--set", "optimizer.ema=0.9"), "optimizer.ema = 0.9 cannot be used")
    growing = toynn_in_processes(MPICH, 2, *train, "--set", "schedule.double_batch=[3]")
    refused(growing, "schedule.double_batch = [3] cannot be used with several processes")
    refused(toynn_in_processes(MPICH, 2, "train"), "the argument DATA is missing")
    cores = len(os.sched_getaffinity(0))
    many = toynn_in_processes(
        MPICH, 2, "train", data, "--out", run, *SMALL, "--threads", str(cores), variables={"TOYNN_OVERSUBSCRIBE": "0"}
    )
    refused(many, f"2 processes with {cores} thread")
    assert not run.exists()


IN_PROCESS_1 = """
import os, sys, toynn
from toynn.cli import start
from toynn.parallel.launch import launched_rank
DATA, OTHER = sys.argv.index(os.environ["DATA"]), os.environ["OTHER"]
if launched_rank() == 1:
    {change}
start.main()
"""


FAILS_IN_A_STEP = "import toynn.training.parallel_step as p; p.ParallelSteps.take = lambda *given: 1 / 0"


@pytest.mark.parametrize(
    ("library", "change", "says"),
    [
        (MPICH, "sys.argv[DATA] = OTHER", "the data (train)"),
        (MPICH, "sys.argv += ['--set', 'optimizer.lr=0.5']", "the configuration of process 1 on host"),
        slow(MPICH, "import toynn.training.parallel_start as p; "
                    "p.build_info = lambda: {**toynn.build_info(), 'profile': 'arm'}",
             "the instruction-set profile (arm) of process 1 on host"),
        slow(MPICH, "sys.argv[DATA] = '/nowhere/at-all'", "process 1 of 2 on host"),
        slow(MPICH, "import toynn.training.trainer as t; t.realize = lambda *given: bytes(1 << 60)",
             "process 1 of 2 on host"),
        (MPICH, FAILS_IN_A_STEP, "process 1 of 2 on host"),
        slow(OPEN_MPI, FAILS_IN_A_STEP, "process 1 of 2 on host"),
    ],
)  # fmt: skip
def test_an_error_of_one_process_names_it_and_ends_all(
    library: str, change: str, says: str, data: Path, tmp_path: Path
) -> None:
    other = make_data(tmp_path / "other", seed=1)
    program = [sys.executable, "-c", IN_PROCESS_1.replace("{change}", change)]
    variables = {"DATA": str(data), "OTHER": str(other)}
    done = in_processes(
        library, 2, [*program, "train", str(data), "--out", str(tmp_path / "run"), *SETTINGS], variables
    )
    refused(done, says)


# From the first step on, process 0 cannot write files of more than 4096 bytes, as if the disk were full.
FULL_DISK = """
import resource
from toynn.cli import start
from toynn.parallel.launch import launched_rank
from toynn.training.parallel_step import ParallelSteps
take = ParallelSteps.take

def take_on_a_full_disk(*given):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    return take(*given)

if launched_rank() == 0:
    ParallelSteps.take = take_on_a_full_disk
start.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("library", [MPICH, OPEN_MPI])
def test_a_full_disk_ends_all_processes_and_the_run_can_be_resumed(
    library: str, data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    program = [sys.executable, "-c", FULL_DISK, "train", str(data), "--out", str(run), *SETTINGS]
    done = in_processes(library, 2, program)
    refused(done, "process 0 of 2 on host")
    assert f": {os.strerror(errno.EFBIG)}\n" in done.stderr
    assert "[Errno" not in done.stderr
    assert (run / "latest").read_text() == "step-00000000\n"
    resumed = toynn_in_processes(library, 2, "train", data, "--out", run, "--resume", "--threads", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert latest_of(run) == latest_of(alone)


def test_a_wrong_mpi_library_is_an_error(data: Path, tmp_path: Path) -> None:
    other = environment(OPEN_MPI)["MPI4PY_LIBMPI"]
    done = toynn_in_processes(
        MPICH, 2, "train", data, "--out", tmp_path / "run", *SMALL, variables={"MPI4PY_LIBMPI": other}
    )
    assert done.returncode != 0
    assert "mpiexec started 2 processes, but mpi4py has loaded another MPI library (Open MPI" in done.stderr

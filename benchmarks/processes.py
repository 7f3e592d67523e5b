"""Compare training in several processes (MPI) with a single process, and with the cost model of docs/scaling.md.

    python -m benchmarks.processes --mpiexec mpiexec            # both measurements below
    python -m benchmarks.processes --table                      # print the predictions in docs/scaling.md
    python -m benchmarks.processes --overlap 1                  # overlap in an emulated network of 1 Gbit/s

The script trains small models with several numbers of processes in turn, and prints two tables:

- the speed of 2 processes with 1 thread each, divided by the speed of 1 process with 2 threads;
- the measured and the predicted duration of a step, with 1 thread in each process. The cost model predicts it from the
  constants that `toynn bench-mpi` measures, and from the speed of 1 process.

With --overlap, the script compares two kinds of steps of 2 processes: the gradients are exchanged during the backward
pass, or after the backward pass. Two processes on one machine exchange data through its memory, which keeps a core
busy. So the script emulates a network: the processes exchange data through sockets of a network namespace, whose speed
the kernel limits. This needs root, the programs unshare, ip and tc, and MPICH.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from toynn.parallel.cost_model import FLOPS_PER_PARAMETER, Network, step_cost

TOYNN = [sys.executable, "-c", "from toynn.cli.start import main; main()"]
# Compute the whole batch before the first exchange.
WITHOUT_OVERLAP = """
from toynn.cli.start import main
from toynn.llm.engine import LlamaSeqEngine as Engine

begin, complete = Engine.begin_gradients, Engine.continue_gradients

def compute(self, *given, **more):
    begin(self, *given, **more)
    complete(self)

Engine.begin_gradients, Engine.continue_gradients = compute, lambda self, name=None: None
main()
"""
# Run a command in a network namespace whose interface sends at most $0 Mbit/s.
NETWORK = 'ip link set lo up && tc qdisc add dev lo root tbf rate $0mbit burst 1mb latency 50ms && exec "$@"'
SOCKETS = {"FI_PROVIDER": "tcp", "MPIR_CVAR_NOLOCAL": "1"}  # let MPICH use no shared memory


@dataclass(frozen=True)
class Model:
    """A model, and the windows of its steps. batch: number of windows in a step. All numbers of processes divide it."""

    name: str
    settings: tuple[str, ...]
    batch: int
    t_seq: int
    steps: int

    @property
    def tokens(self) -> int:
        return self.batch * self.t_seq


def _sizes(d_model: int, n_heads: int, n_kv: int, d_ff: int, n_layers: int, t_seq: int) -> tuple[str, ...]:
    names = ("d_model", "n_heads", "n_kv", "d_ff", "n_layers", "ctx")
    values = (d_model, n_heads, n_kv, d_ff, n_layers, t_seq)
    return tuple(f"model.{name}={value}" for name, value in zip(names, values, strict=True))


MODELS = (
    Model("tiny", _sizes(128, 4, 2, 352, 4, 128), 24, 128, 12),
    Model("small", _sizes(256, 8, 4, 704, 6, 256), 24, 256, 8),
    Model("smol", _sizes(576, 9, 3, 1536, 30, 256), 8, 256, 4),
)


@dataclass(frozen=True)
class Timing:
    """The median duration of a step in seconds, and the number of trained parameters."""

    seconds: float
    parameters: int


def train(
    model: Model,
    data: Path,
    mpiexec: str,
    n: int,
    threads: int,
    program: Sequence[str] = TOYNN,
    network: Sequence[str] = (),
) -> Timing:
    """Train in n processes, and return the duration of a step. The first two steps are not measured.

    program: the command that each process runs. network: the beginning of a command that emulates a network, or ().
    """
    settings = [
        *model.settings,
        f"train.batch={model.batch}",
        f"train.steps={model.steps}",
        "optimizer.kind=adamw",
        "schedule.warmup=1",
        "evaluation.every=0",
        "evaluation.windows=1",
        "checkpoint.every=0",
        "checkpoint.keep_best=false",
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [word for setting in settings for word in ("--set", setting)]
        train = [*program, "train", str(data), "--out", str(run), "--threads", str(threads), "--quiet", *words]
        _run([*network, *_launch(mpiexec, n), *train], SOCKETS if network else {})
        events = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = [event["seconds"] for event in events if event["event"] == "stepped"]
    return Timing(statistics.median(seconds[2:]), events[0]["parameters"])


def _launch(mpiexec: str, n: int) -> list[str]:
    return [] if n == 1 else [mpiexec, "-n", str(n)]


def _run(command: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})) -> str:
    environment = {**os.environ, "TOYNN_OVERSUBSCRIBE": "1", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[-8:])} failed: {done.stderr}")
    return done.stdout


def prepared(folder: Path) -> Path:
    """Write a data folder of random words, and return it."""
    words = [f"{a}{b}" for a in ("ba", "ku", "so", "me", "ti") for b in ("lo", "ra", "n", "st")]
    text = " ".join(words[i * i % 20] + words[i % 17] for i in range(60_000))
    (folder / "words.txt").write_text(text + "\n", encoding="utf-8")
    _run([*TOYNN, "prepare", str(folder / "words.txt"), "--out", str(folder / "data"), "--vocab-size", "512"])
    return folder / "data"


def compare_threads(model: Model, data: Path, mpiexec: str, rounds: int) -> str:
    """Return a row: the speed of 1 process with 2 threads, of 2 processes with 1 thread, and their ratio."""
    alone, two = [], []
    for _ in range(rounds):
        alone.append(train(model, data, mpiexec, 1, 2).seconds)
        two.append(train(model, data, mpiexec, 2, 1).seconds)
    speeds = [model.tokens / statistics.median(seconds) for seconds in (alone, two)]
    ratio = speeds[1] / speeds[0]
    return f"| {model.name} | {model.batch} x {model.t_seq} | {speeds[0]:.0f} | {speeds[1]:.0f} | {ratio:.2f} |"


def check_model(model: Model, data: Path, mpiexec: str, numbers: Sequence[int], rounds: int) -> list[str]:
    """Return a row for each number of processes: measured and predicted seconds of a step, and the error."""
    cores = len(os.sched_getaffinity(0))
    measured: dict[int, list[float]] = {n: [] for n in (1, *numbers)}
    for _ in range(rounds):
        for n, seconds in measured.items():
            timing = train(model, data, mpiexec, n, 1)
            seconds.append(timing.seconds)
    of = {n: statistics.median(seconds) for n, seconds in measured.items()}
    flops = FLOPS_PER_PARAMETER * timing.parameters * model.tokens / of[1]
    rows = []
    for n in numbers:
        found = json.loads(_run([*_launch(mpiexec, n), *TOYNN, "bench-mpi", "--json"]))
        network = Network(found["latency"], found["bandwidth"], found["memory"])
        share = min(1.0, cores / n)  # the part of a core that each process gets
        predicted = step_cost(timing.parameters, model.tokens, flops * share, n, network).seconds
        error = predicted / of[n] - 1
        rows.append(f"| {model.name} | {n} | {of[n]:.3f} s | {predicted:.3f} s | {error:+.0%} |")
    return rows


def compare_overlap(model: Model, data: Path, mpiexec: str, gigabits: float, rounds: int) -> str:
    """Return a row: the duration of a step without and with overlap, and their ratio."""
    network = ["unshare", "--net", "sh", "-c", NETWORK, f"{1000 * gigabits:.0f}"]
    programs = ([sys.executable, "-c", WITHOUT_OVERLAP], TOYNN)
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for of, program in zip(seconds, programs, strict=True):
            of.append(train(model, data, mpiexec, 2, 1, program, network).seconds)
    without, with_overlap = (statistics.median(of) for of in seconds)
    speed = f"{gigabits:g} Gbit/s"
    return f"| {model.name} | {speed} | {without:.3f} s | {with_overlap:.3f} s | {with_overlap / without:.2f} |"


def predictions() -> list[str]:
    """Return the rows of the table of predictions in docs/scaling.md."""
    rows = []
    for parameters, embedding in ((135e6, 28.3e6), (1.1e9, 65.5e6)):
        name = f"{parameters / 1e6:.0f}M" if parameters < 1e9 else f"{parameters / 1e9:.1f}B"
        for n in (8, 64, 512, 4096):
            networks = [Network(20e-6, gigabits / 8 * 1e9, 20e9) for gigabits in (25, 200)]
            batches = max(4096 / n / 8, 1)
            costs = [
                step_cost(parameters, 4096 * 512, 1e12, n, network, batches=batches, embedding=embedding)
                for network in networks
            ]
            cells = " | ".join(f"{cost.seconds:.3g} s, {cost.efficiency:.0%}" for cost in costs)
            rows.append(f"| {name} | {n} | {cells} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mpiexec", default="mpiexec", help="Command that starts the processes (default: mpiexec).")
    parser.add_argument("--models", nargs="+", choices=[one.name for one in MODELS], default=["tiny", "small"])
    parser.add_argument(
        "--rounds", type=int, default=3, help="Number of runs with each setting; the settings take turns (default: 3)."
    )
    parser.add_argument("--table", action="store_true", help="Only print the predictions, without a measurement.")
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="GBIT",
        help="Compare steps with and without overlap of computation and exchange, in a network of GBIT Gbit/s.",
    )
    options = parser.parse_args()
    if options.table:
        print("\n".join(predictions()))
        return
    chosen = [one for one in MODELS if one.name in options.models]
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(Path(folder))
        if options.overlap is not None:
            print("| model | network | without overlap | with overlap | ratio |\n| --- | --- | --- | --- | --- |")
            for model in chosen:
                print(compare_overlap(model, data, options.mpiexec, options.overlap, options.rounds), flush=True)
            return
        print(
            "| model | windows x tokens | 1 process x 2 threads, tokens/s | 2 x 1, tokens/s | ratio |\n| --- "
            + "| --- " * 4
            + "|"
        )
        for model in chosen:
            print(compare_threads(model, data, options.mpiexec, options.rounds), flush=True)
        print("\n| model | processes | measured | predicted | error |\n| --- | --- | --- | --- | --- |")
        for model in chosen:
            numbers = [n for n in (2, 3, 4) if model.batch % n == 0]
            print("\n".join(check_model(model, data, options.mpiexec, numbers, options.rounds)), flush=True)


if __name__ == "__main__":
    main()

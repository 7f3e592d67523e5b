"""The messages and bytes that the processes send in a step, and their formula in docs/scaling.md."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import SMALL
from mpi import MPICH, in_processes
from small_runs import make_data
from toynn.storage.checkpoint import load_checkpoint

STEPS = 3
# Train, count what this process gives to the collective functions of MPI for other processes, and write the counts.
COUNTING = """
import json, os, sys
from toynn.cli import start
from toynn.parallel import processes
from toynn.training import parallel_step, shares

counts = {"messages": 0, "gradients": 0, "weights": 0}

class Counting:
    def __init__(self, comm):
        self.comm = comm

    def __getattr__(self, name):
        return getattr(self.comm, name)

    def Ialltoallv(self, sent, received):
        others = [size for rank, size in enumerate(sent[1]) if rank != self.Get_rank()]
        counts["messages"] += len(others)
        counts["gradients"] += sum(others) * sent[0].itemsize
        return self.comm.Ialltoallv(sent, received)

    def Iallgatherv(self, part, whole):
        counts["messages"] += self.Get_size() - 1
        counts["weights"] += part.nbytes * (self.Get_size() - 1)
        return self.comm.Iallgatherv(part, whole)

created = processes.Processes.__init__
processes.Processes.__init__ = lambda self, comm, from_threads: created(self, Counting(comm), from_threads)
buckets, divided = [], shares.buckets_of
parallel_step.buckets_of = lambda sizes, n: buckets.extend(divided(sizes, n)) or buckets
if limit := int(os.environ["LIMIT"]):
    shares.bucket_limit = lambda n: limit
try:
    start.main()
finally:
    with open(os.environ["COUNTS"] + os.environ["PMI_RANK"], "w") as file:
        json.dump([counts, [dict(one.sizes) for one in buckets]], file)
"""


@dataclass(frozen=True)
class Counts:
    """What one process sent per step. gradients, weights: number of bytes."""

    messages: int
    gradients: int
    weights: int


def counts_of(n: int, limit: int, folder: Path) -> tuple[list[Counts], list[dict[str, int]]]:
    """Train with 24 windows per step. Return the counts of each process, and the sizes of the weights by bucket."""
    data, run = make_data(folder / "data"), folder / "run"
    settings = [*SMALL, "--set", "train.batch=24", "--set", f"train.steps={STEPS}", "--threads", "1", "--quiet"]
    program = [sys.executable, "-c", COUNTING, "train", str(data), "--out", str(run), *settings]
    done = in_processes(MPICH, n, program, {"LIMIT": str(limit), "COUNTS": str(folder / "counts-")})
    assert done.returncode == 0, done.stderr
    found = [json.loads((folder / f"counts-{rank}").read_text()) for rank in range(n)]
    buckets = found[0][1]
    assert all(of_process == buckets for _, of_process in found)
    weights = load_checkpoint(run / "checkpoints" / f"step-{STEPS:08}").model.weights
    together = {name: size for bucket in buckets for name, size in bucket.items()}
    assert together == {name: values.size for name, values in weights.items()}
    assert all(value % STEPS == 0 for counts, _ in found for value in counts.values())
    names = ("messages", "gradients", "weights")
    return [Counts(*(counts[name] // STEPS for name in names)) for counts, _ in found], buckets


# For each number of processes: the number of nodes (see toynn.llm.window_sums) that the windows of one process (12, 8
# or 6) form.
NODES = {2: 2, 3: 1, 4: 2}


@pytest.mark.parametrize(
    ("n", "limit"),
    [(2, 0), pytest.param(4, 2000, marks=pytest.mark.slow), pytest.param(3, 500, marks=pytest.mark.slow)],
)
def test_a_step_sends_the_bytes_and_messages_of_the_formula(n: int, limit: int, tmp_path: Path) -> None:
    """The embedding is also the output layer in this model, so its gradient consists of two parts."""
    found, buckets = counts_of(n, limit, tmp_path)
    parameters, nodes = sum(sum(one.values()) for one in buckets), NODES[n]
    (embedding,) = (one["token_embd.weight"] for one in buckets if "token_embd.weight" in one)
    assert (len(buckets) > 1) == (limit > 0)
    assert all(sum(one.values()) <= limit or len(one) == 1 for one in buckets if limit)
    assert {one.messages for one in found} == {2 * (n - 1) * len(buckets)}
    assert sum(one.gradients for one in found) == nodes * 4 * (parameters + embedding) * (n - 1)
    assert sum(one.weights for one in found) == 4 * parameters * (n - 1)
    unequal = sum(max(one.values()) / 64 + 1 for one in buckets)  # a slice consists of whole 64ths of each weight
    for one in found:
        assert abs(one.weights - 4 * parameters * (n - 1) / n) <= 4 * (n - 1) * unequal

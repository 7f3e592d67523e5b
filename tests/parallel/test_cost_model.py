"""The cost model of a step, its table in docs/scaling.md, and `toynn bench-mpi`."""

from __future__ import annotations

import json

import pytest
from benchmarks.processes import predictions

from commands import toynn
from mpi import MPICH, toynn_in_processes
from paths import ROOT
from toynn.parallel.cost_model import Network, step_cost


def test_the_table_of_the_docs_is_that_of_the_model() -> None:
    assert "\n".join(predictions()) in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_cost_of_a_step_is_the_sum_of_its_parts() -> None:
    cost = step_cost(4e6, 1e6, 1e12, 4, Network(1e-3, 1e9, 1e10))
    assert cost.compute == pytest.approx(6 * 4e6 * 1e6 / 4e12)
    assert cost.transfer == pytest.approx(2 * 4 * 4e6 * 0.75 / 1e9)
    assert cost.latency == pytest.approx(6e-3)
    assert cost.memory == pytest.approx(4e6 * (20 + 40 / 4) / 1e10)
    assert cost.seconds == pytest.approx(6.0 + 0.024 + 0.006 + 0.012)
    assert cost.efficiency == pytest.approx(6.0 / cost.seconds)
    assert cost.hidden == 0  # all weights are in one bucket, so its transfer begins after the backward pass


def test_transfers_are_hidden_by_the_backward_pass_of_the_last_batch() -> None:
    network, sizes = Network(0.0, 1e9, 1e10), (4e7, 1e6, 1e14, 4)
    part = 4 * 4e7 * 0.75 / 1e9  # seconds of the transfer of the gradients, or of the weights
    every, last = 2 / 3 * 6 * 4e7 * 1e6 / 4e14, 4194304 / 4e7
    assert step_cost(*sizes, network).hidden == pytest.approx(part * (1 - last))
    assert step_cost(*sizes, network, embedding=1e7).hidden == pytest.approx(part * 0.75)
    assert step_cost(*sizes, network, batches=8).hidden == pytest.approx(every / 8)
    cost = step_cost(*sizes, network, embedding=1e7, batches=2)
    assert cost.seconds == pytest.approx(0.6 + 2 * part + 4e7 * 30 / 1e10 - part * 0.75)


def test_bench_mpi_measures_the_network_and_predicts_with_it() -> None:
    options = ["--parameters", "1e7", "--tokens", "1e5", "--flops", "1e10", "--megabytes", "1", "--json"]
    options += ["--batches", "4", "--embedding", "5e6"]
    done = toynn_in_processes(MPICH, 2, "bench-mpi", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["processes"] == 2
    network = Network(found["latency"], found["bandwidth"], found["memory"])
    cost = step_cost(1e7, 1e5, 1e10, 64, network, batches=4, embedding=5e6)
    assert found["predicted"]["64"] == {"seconds": cost.seconds, "efficiency": cost.efficiency}
    alone = toynn("bench-mpi")
    assert alone.returncode != 0
    assert "bench-mpi needs several processes; start the command with mpiexec" in alone.stderr

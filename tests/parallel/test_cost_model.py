"""The cost model of a step, its table in docs/scaling.md, and `toynn bench-mpi`."""

from __future__ import annotations

import json

import pytest

from commands import toynn
from mpi import MPICH, toynn_in_processes
from paths import ROOT
from toynn.parallel.cost_model import Network, step_cost

TOKENS, FLOPS, LATENCY = 4096 * 512, 1e12, 20e-6


def row(parameters: float, n: int) -> str:
    """Return a line of the table in docs/scaling.md."""
    cells = []
    for gigabits in (25, 200):
        cost = step_cost(parameters, TOKENS, FLOPS, n, Network(LATENCY, gigabits / 8 * 1e9))
        cells.append(f"{cost.seconds:.3g} s, {cost.efficiency:.0%}")
    name = f"{parameters / 1e6:.0f}M" if parameters < 1e9 else f"{parameters / 1e9:.1f}B"
    return f"| {name} | {n} | {cells[0]} | {cells[1]} |"


def test_the_table_of_the_docs_is_that_of_the_model() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    wanted = [row(parameters, n) for parameters in (135e6, 1.1e9) for n in (8, 64, 512, 4096)]
    assert [line for line in wanted if line not in page] == []


def test_the_parts_of_a_step() -> None:
    cost = step_cost(4e6, 1e6, 1e12, 4, Network(1e-3, 1e9))
    assert cost.compute == pytest.approx(6 * 4e6 * 1e6 / 4e12)
    assert cost.transfer == pytest.approx(2 * 4 * 4e6 * 0.75 / 1e9)
    assert cost.latency == pytest.approx(6e-3)
    assert cost.efficiency == pytest.approx(6.0 / (6.0 + 0.024 + 0.006))


def test_bench_mpi_measures_the_network_and_predicts_with_it() -> None:
    options = ("--parameters", "1e6", "--tokens", "1e5", "--flops", "1e10", "--megabytes", "1", "--json")
    done = toynn_in_processes(MPICH, 2, "bench-mpi", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["processes"] == 2
    cost = step_cost(1e6, 1e5, 1e10, 64, Network(found["latency"], found["bandwidth"]))
    assert found["predicted"]["64"] == {"seconds": cost.seconds, "efficiency": cost.efficiency}
    alone = toynn("bench-mpi")
    assert alone.returncode != 0
    assert "bench-mpi needs several processes; start it with mpiexec" in alone.stderr

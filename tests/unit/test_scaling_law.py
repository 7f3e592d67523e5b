"""The scaling law: its constants follow from the recorded runs, and the fit finds the constants of known losses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.result_files import read_results
from benchmarks.scaling_fit import KINDS, bytes_read, fit, is_probe, kind_of, least_squares
from benchmarks.scaling_law import LADDER, RESULTS, Result, missing

from toynn.planning.law import ScalingLaw, Text, effective_bytes

pytestmark = pytest.mark.quick

RUNS = read_results(Result, RESULTS)
LAW = ScalingLaw.load()


def test_the_constants_follow_from_the_recorded_runs() -> None:
    found = fit(RUNS)
    assert found["log_constants"] == pytest.approx(LAW.log_constants, abs=1e-4)
    assert np.allclose(found["covariance"], LAW.covariance, rtol=0.02, atol=1e-3 * np.abs(LAW.covariance).max())
    assert tuple(found["probes"]) == LAW.kinds == KINDS
    assert tuple(found["probes"].values()) == pytest.approx(LAW.probes)
    assert found["residual"] == pytest.approx(LAW.residual, rel=1e-3)
    assert (found["largest_parameters"], found["vocabulary"]) == (LAW.largest_parameters, LAW.vocabulary)


def test_the_law_is_close_to_most_runs() -> None:
    probes = {run.text: run.loss_per_byte for run in RUNS if is_probe(run)}
    off = []
    for run in RUNS:
        text = Text(run.train_tokens, run.train_bytes, probes.get(run.text))
        predicted = LAW.predicted(text, run.layer_parameters, run.tokens)
        assert abs(predicted.log_loss - math.log(run.loss_per_byte)) < 4 * predicted.deviation
        off.append(abs(predicted.log_loss - math.log(run.loss_per_byte)))
    assert np.median(off) < 0.03


def test_the_fit_finds_the_constants_of_losses_without_noise() -> None:
    wanted = {
        "stories.E": 0.2, "stories.G": 1.1, "stories.n0": 3e4, "stories.u0": 2e6, "stories.alpha": 0.9,
        "stories.beta": 0.7, "sources.E": 0.5, "sources.G": 1.6, "sources.n0": 8e4, "sources.u0": 5e5,
        "sources.alpha": 0.6, "sources.beta": 0.5, "repeats": 6.0,
    }  # fmt: skip

    def loss(kind: str, n: float, u: float) -> float:
        limits = math.pow(n / wanted[f"{kind}.n0"], -wanted[f"{kind}.alpha"])
        limits += math.pow(u / wanted[f"{kind}.u0"], -wanted[f"{kind}.beta"])
        return wanted[f"{kind}.E"] + wanted[f"{kind}.G"] * limits / (1 + limits)

    made = [
        replace(
            RUNS[0], text=text, size=size, steps=steps, layer_parameters=n, tokens=1024 * steps,
            train_tokens=nbytes // 4, train_bytes=nbytes,
            loss_per_byte=loss(kind, n, effective_bytes(4096.0 * steps, nbytes, wanted["repeats"])),
        )
        for text, kind, nbytes in (("stories-20MB", "stories", 20_000_000), ("stories-0.3MB", "stories", 300_000),
                                   ("sources", "sources", 4_000_000))
        for size, n in (("32x2", 26_624), ("64x3", 159_744), ("128x5", 1_003_520))
        for steps in (125, 250, 500, 1000, 2000, 4000)
    ]  # fmt: skip
    found = fit(made, prior=0.0)
    assert {name: math.exp(value) for name, value in found["log_constants"].items()} == pytest.approx(wanted, rel=1e-3)
    assert found["residual"] < 1e-6


def test_least_squares_of_a_line_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = 3 * x - 1 + rng.normal(size=20)
    found, jacobian = least_squares(lambda p: p[0] * x + p[1] - y, np.zeros(2))
    assert found == pytest.approx(np.polyfit(x, y, 1), rel=1e-6)
    assert jacobian == pytest.approx(np.stack([x, np.ones(20)], axis=1), abs=1e-8)


def test_the_ladder_goes_on_with_the_runs_that_are_missing() -> None:
    every = list(missing([]))
    assert len(every) == len({(text, size.name, steps) for text, size, steps in every})
    assert {text for text, _, _ in every} == {text for text, _, _ in LADDER}
    left = list(missing(RUNS))
    assert len(left) == len(every) - len(RUNS)
    assert not {(run.text, run.size, run.steps) for run in RUNS} & {(text, size.name, n) for text, size, n in left}
    assert {kind_of(run.text) for run in RUNS} == set(KINDS)
    assert all(bytes_read(run) > 0 for run in RUNS)

"""The scaling law: its constants follow from the recorded runs, and the fit finds the constants of known losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks.result_files import read_results
from benchmarks.scaling_fit import KINDS, content_of, fit, kind_of, least_squares, measured
from benchmarks.scaling_law import LADDER, RESULTS, Result, missing

from toynn.planning.correction import Correction, Place, Scales
from toynn.planning.law import ScalingLaw, Text, effective_bytes
from toynn.planning.recipe import PROBE, PROBE_STEPS, TOKENS_OF_STEP

pytestmark = pytest.mark.quick

RUNS = read_results(Result, RESULTS)
LAW = ScalingLaw.load()


def test_the_constants_follow_from_the_recorded_runs() -> None:
    found = fit(RUNS, LAW.scales)
    assert found.log_constants == pytest.approx(LAW.log_constants, abs=1e-3)
    assert np.allclose(found.covariance, LAW.covariance, rtol=0.02, atol=1e-3 * np.abs(LAW.covariance).max())
    assert (found.runs, LAW.kinds) == (LAW.runs, KINDS)
    assert len(LAW.runs) == len(RUNS)


def test_other_scales_predict_runs_that_are_left_out_worse() -> None:
    def quality(scales: Scales) -> float:
        errors, deviations = fit(RUNS, scales).each_without()
        return float(np.sum(np.log(deviations) + 0.5 * (errors / deviations) ** 2))

    def scaled(lengths: Sequence[float], size: float) -> Scales:
        a, b, c = (one * factor for one, factor in zip(LAW.scales.lengths, lengths, strict=True))
        amplitude = {kind: size * one for kind, one in LAW.scales.amplitude.items()}
        noise = {kind: size * one for kind, one in LAW.scales.noise.items()}
        return Scales(amplitude, noise, (a, b, c))

    usual = quality(LAW.scales)
    for lengths, size in (((4, 4, 4), 1), ((0.25, 0.25, 0.25), 1), ((1, 1, 1), 2)):
        assert quality(scaled(lengths, size)) > usual


def test_runs_that_are_left_out_are_as_far_from_the_law_as_it_says() -> None:
    errors, deviations = fit(RUNS, LAW.scales).each_without()
    for kind in KINDS:
        of_kind = np.array([run.kind == kind for run in LAW.runs])
        assert np.sqrt(np.mean((errors[of_kind] / deviations[of_kind]) ** 2)) == pytest.approx(1, abs=0.25)


def test_the_error_without_a_run_is_that_of_a_fit_without_it() -> None:
    found = fit(RUNS, LAW.scales)
    for number in (3, 20):
        run = LAW.runs[number]
        others = [one for one in RUNS if measured(one) != run]
        assert len(others) == len(RUNS) - 1
        again = ScalingLaw.of(content_of(fit(others, LAW.scales)))
        text = Text(round(run.place.size / 4), run.place.size, None)
        weights = {kind: float(kind == run.kind) for kind in KINDS}
        values = np.array(list(again.log_constants.values()))
        expected = again._mixed(values, text, [run.place], weights)[0]
        error, deviation = (float(one[0]) for one in found.without([number]))
        assert run.log_loss - expected == pytest.approx(error, abs=0.5 * deviation)
        assert (error, deviation) == pytest.approx(tuple(float(one[number]) for one in found.each_without()))


def test_the_law_is_close_to_the_runs() -> None:
    probes = {run.text: run.loss_per_byte for run in RUNS if (run.size, run.steps) == (PROBE.name, PROBE_STEPS)}
    off = []
    for run in RUNS:
        text = Text(run.train_tokens, run.train_bytes, probes[run.text])
        predicted = LAW.predicted(text, run.layer_parameters, run.tokens)
        off.append(abs(predicted.log_loss - math.log(run.loss_per_byte)))
        assert off[-1] < 4 * predicted.deviation
    assert np.median(off) < 0.01


def test_a_correction_is_the_error_at_a_run_and_fades_with_the_distance() -> None:
    scales = Scales({"stories": 0.05}, {"stories": 1e-9}, (1.0, 1.0, 2.0))
    places = [Place(1e5, 1e6, 1e9), Place(1e5, 4e6, 1e9), Place(1e6, 1e6, 1e9)]
    correction, errors = Correction(scales, "stories", places), np.array([0.03, -0.02, 0.01])
    assert correction.weights(places) @ errors == pytest.approx(errors)
    assert np.diag(correction.uncertainty(places)) == pytest.approx(0, abs=1e-9)
    far = [Place(1e5, 1e12, 1e15), Place(1e12, 1e6, 1e9)]
    assert correction.weights(far) @ errors == pytest.approx(0, abs=1e-9)
    assert np.diag(correction.uncertainty(far)) == pytest.approx(0.05**2)
    # on one axis, the correction is that of two joint normal variables
    alone = Correction(Scales({"stories": 0.05}, {"stories": 0.05}, (1.0, 1.0, 2.0)), "stories", places[:1])
    near = [Place(math.e * 1e5, 1e6, 1e9)]
    assert alone.weights(near)[0, 0] == pytest.approx(math.exp(-0.5) / 2)
    assert alone.uncertainty(near)[0, 0] == pytest.approx(0.05**2 * (1 - math.exp(-1) / 2))


def test_the_expected_loss_of_the_probe_is_its_loss() -> None:
    for nbytes, probe in ((3e5, 1.2), (2e7, 0.9), (2e6, 2.5)):
        text = Text(round(nbytes / 4), nbytes, probe)
        found = LAW.predicted(text, PROBE.layer_parameters, PROBE_STEPS * TOKENS_OF_STEP)
        assert found.log_loss == pytest.approx(math.log(probe))


def test_the_fit_finds_the_constants_of_losses_without_noise() -> None:
    wanted = {
        "stories.E": 0.2, "stories.G": 1.1, "stories.n0": 3e4, "stories.u0": 2e6, "stories.alpha": 0.9,
        "stories.beta": 0.7, "stories.gamma": 1.5, "sources.E": 0.5, "sources.G": 1.6, "sources.n0": 8e4,
        "sources.u0": 5e5, "sources.alpha": 0.6, "sources.beta": 0.5, "sources.gamma": 1.0, "repeats": 6.0,
    }  # fmt: skip

    def loss(kind: str, n: float, u: npt.NDArray[np.float64]) -> float:
        limits = math.pow(n / wanted[f"{kind}.n0"], -wanted[f"{kind}.alpha"])
        limits += math.pow(float(u) / wanted[f"{kind}.u0"], -wanted[f"{kind}.beta"])
        gamma = wanted[f"{kind}.gamma"]
        return wanted[f"{kind}.E"] + wanted[f"{kind}.G"] * math.pow(1 + 1 / (gamma * limits), -gamma)

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
    found = fit(made, LAW.scales, prior=0.0)
    assert {name: math.exp(value) for name, value in found.log_constants.items()} == pytest.approx(wanted, rel=1e-3)
    assert np.abs(found.each_without()[0]).max() < 1e-4


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
    assert all(measured(run).place.read > 0 for run in RUNS)

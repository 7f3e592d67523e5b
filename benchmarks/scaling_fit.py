"""Fit the scaling law and its correction to the losses of the runs of `make scaling-law`.

The constants of the law are fitted by generalized least squares of the logarithms of the losses, because the errors of
similar runs are similar. The scales of these errors are those that predict each run best from the other runs.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.sweep_corpora import SOURCES, VOCABULARY
from toynn.planning.correction import Correction, Measured, Place, Scales
from toynn.planning.law import OF_KIND, SHARED, log_losses

Vector = npt.NDArray[np.float64]

KINDS = ("stories", "sources")  # the kinds of text; all texts except "sources" are stories
# The values from which the fit starts. If the runs do not determine a constant, a weak prior keeps the constant near
# its start value. A constant that is twice its start value costs as much as a loss that is one standard deviation from
# the law.
_START = {
    "stories": {"E": 0.12, "G": 1.3, "n0": 5e4, "u0": 1e6, "alpha": 1.0, "beta": 1.0, "gamma": 2.0},
    "sources": {"E": 0.4, "G": 1.5, "n0": 1e5, "u0": 1e6, "alpha": 0.5, "beta": 0.5, "gamma": 2.0},
}
_START_OF_REPEATS = 15.4  # the value that Muennighoff et al. found
_PRIOR = 1.0 / math.log(2)
_ITERATIONS = 500
_SMALL = 1e-7  # the fit ends if no logarithm of a constant changes by more than this in an iteration
_DIFFERENCE = 1e-6  # step of the numerical derivatives
_AMPLITUDE = 0.05  # the amplitude of `Scales` with which `calibrated` begins
_LEAST_NOISE = 0.005  # the smallest noise of `Scales`
# The values that `best_scales` compares: lengths in natural logarithms, and the noise divided by the amplitude.
_LENGTHS = ((0.7, 1.4, 2.8), (0.7, 1.4, 2.8), (1.4, 2.8, 5.6))
_NOISES = (0.1, 0.2, 0.4)


def least_squares(residuals: Callable[[Vector], Vector], start: Vector) -> tuple[Vector, Vector]:
    """Return the parameters with the least sum of squared residuals near `start`, and the matrix of derivatives there.

    The method is that of Levenberg and Marquardt, with shorter steps where the full step is too long. It needs only
    numpy, and gives the same result each time.
    """
    x, damping = start.copy(), 1e-2
    r = residuals(x)
    for _ in range(_ITERATIONS):
        jacobian = derivatives(residuals, x)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ r
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -gradient)
        if np.abs(step).max() < _SMALL:
            break
        # where a full step would overshoot, the lowest point of a parabola along the step is better
        slope, change = 2.0 * float(gradient @ step), float(np.sum(residuals(x + step) ** 2) - r @ r)
        part = 1.0 if change <= slope else min(max(0.5 * slope / (slope - change), 0.02), 1.0)
        candidate = residuals(x + part * step)
        if candidate @ candidate < r @ r:
            x, r, damping = x + part * step, candidate, max(damping / 3, 1e-9)
        else:
            damping *= 4
    return x, derivatives(residuals, x)


def derivatives(residuals: Callable[[Vector], Vector], x: Vector) -> Vector:
    """Return the derivatives of the residuals: one row for each residual, one column for each parameter."""
    columns = []
    for i in range(x.size):
        high, low = x.copy(), x.copy()
        high[i] += _DIFFERENCE
        low[i] -= _DIFFERENCE
        columns.append((residuals(high) - residuals(low)) / (2 * _DIFFERENCE))
    return np.stack(columns, axis=1)


class Run(Protocol):
    """A run of `make scaling-law`; see `benchmarks.scaling_law.Result`."""

    @property
    def text(self) -> str: ...
    @property
    def size(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def layer_parameters(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def train_tokens(self) -> int: ...
    @property
    def train_bytes(self) -> int: ...
    @property
    def loss_per_byte(self) -> float: ...


def kind_of(text: str) -> str:
    """Return the kind of a text, by its name."""
    return "sources" if text == SOURCES else "stories"


def measured(run: Run) -> Measured:
    """Return a run as the law stores it."""
    read = run.tokens * run.train_bytes / run.train_tokens
    place = Place(run.layer_parameters, read, run.train_bytes)
    return Measured(kind_of(run.text), place, math.log(run.loss_per_byte))


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    log_constants, covariance, scales: as in `toynn.planning.law.ScalingLaw`. runs: the runs, sorted by kind.
    precision: the inverse of the covariance of the logarithms of all losses, shape (runs, runs). weighted: the product
    of `precision` with the distances of the losses from the law, shape (runs,). `without` needs both arrays.
    """

    log_constants: dict[str, float]
    covariance: Vector
    scales: Scales
    runs: tuple[Measured, ...]
    precision: Vector
    weighted: Vector

    def without(self, left_out: Sequence[int]) -> tuple[Vector, Vector]:
        """Return the errors of a law that is fitted without some runs, for these runs.

        left_out: the positions of the runs in `runs`. Returns the logarithms of the measured losses minus the expected
        logarithms, and the standard deviations of these differences, each of shape (len(left_out),). The law is treated
        as linear in the logarithms of the constants.
        """
        deviations = np.linalg.inv(self.precision[np.ix_(left_out, left_out)])
        return deviations @ self.weighted[list(left_out)], np.sqrt(np.diag(deviations))

    def each_without(self) -> tuple[Vector, Vector]:
        """Return the results of `without` for each run alone, each of shape (runs,)."""
        variances = 1.0 / np.diag(self.precision)
        return variances * self.weighted, np.sqrt(variances)


def fit(runs: Sequence[Run], scales: Scales | None = None, prior: float = _PRIOR) -> Fitted:
    """Return the law that fits the runs.

    scales: None: the scales are chosen with which the other runs predict each run best. prior: weight of the difference
    between the logarithm of a constant and the logarithm of its start value.
    """
    by_kind = tuple(sorted(map(measured, runs), key=lambda run: KINDS.index(run.kind)))
    return best_fit(by_kind, prior) if scales is None else fit_with(by_kind, scales, prior)


def fit_with(runs: tuple[Measured, ...], scales: Scales, prior: float = _PRIOR, start: Vector | None = None) -> Fitted:
    """Return the law that fits the runs, which are sorted by kind.

    start: the logarithms of the constants from which the fit starts; None: those of `_START`.
    """
    kinds = [kind for kind in KINDS if any(run.kind == kind for run in runs)]
    names = [f"{kind}.{name}" for kind in kinds for name in OF_KIND] + list(SHARED)
    prior_values = np.log([*(_START[kind][name] for kind in kinds for name in OF_KIND), _START_OF_REPEATS])
    places = {kind: [run.place for run in runs if run.kind == kind] for kind in kinds}
    losses = np.array([run.log_loss for run in runs])
    covariance = np.zeros((len(runs), len(runs)))
    begin = 0
    for kind in kinds:
        end = begin + len(places[kind])
        covariance[begin:end, begin:end] = Correction(scales, kind, places[kind]).covariance
        begin = end
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))

    def distances(x: Vector) -> Vector:
        constants = dict(zip(names, np.exp(np.clip(x, -40, 40)).tolist(), strict=True))
        return np.asarray(losses - np.concatenate([log_losses(constants, kind, places[kind]) for kind in kinds]))

    def residuals(x: Vector) -> Vector:
        return np.concatenate([np.asarray(whitening @ distances(x)), prior * (x - prior_values)])

    x, jacobian = least_squares(residuals, prior_values if start is None else start)
    of_constants = np.linalg.pinv(jacobian.T @ jacobian)
    of_runs = whitening.T @ jacobian[: len(runs)]
    precision = whitening.T @ whitening - of_runs @ of_constants @ of_runs.T
    weighted = whitening.T @ whitening @ distances(x)
    return Fitted(dict(zip(names, x.tolist(), strict=True)), of_constants, scales, runs, precision, weighted)


def best_fit(runs: tuple[Measured, ...], prior: float = _PRIOR) -> Fitted:
    """Return the fit whose scales predict each run best from the others."""
    best: tuple[float, Fitted] | None = None
    kinds = [kind for kind in KINDS if any(run.kind == kind for run in runs)]
    for a, b, c, noise in itertools.product(*_LENGTHS, _NOISES):
        scales = Scales(dict.fromkeys(kinds, _AMPLITUDE), dict.fromkeys(kinds, noise * _AMPLITUDE), (a, b, c))
        found = calibrated(fit_with(runs, scales, prior), prior)
        errors, deviations = found.each_without()
        quality = float(np.sum(np.log(deviations) + 0.5 * (errors / deviations) ** 2))
        if best is None or quality < best[0]:
            best = quality, found
    assert best is not None
    return best[1]


def calibrated(found: Fitted, prior: float = _PRIOR) -> Fitted:
    """Return a fit whose deviations are as large as the errors of runs that are left out, for each kind of text."""
    for _ in range(2):
        errors, deviations = found.each_without()
        scales = found.scales
        amplitude, noise = {}, {}
        for kind in scales.amplitude:
            of_kind = np.array([run.kind == kind for run in found.runs])
            factor = math.sqrt(float(np.mean((errors[of_kind] / deviations[of_kind]) ** 2)))
            amplitude[kind] = factor * scales.amplitude[kind]
            noise[kind] = max(factor * scales.noise[kind], _LEAST_NOISE)
        start = np.array(list(found.log_constants.values()))
        found = fit_with(found.runs, replace(scales, amplitude=amplitude, noise=noise), prior, start)
    return found


def content_of(found: Fitted) -> dict[str, Any]:
    """Return the content of law.json; see `toynn.planning.law.ScalingLaw`."""
    scales = found.scales
    return {
        "log_constants": found.log_constants,
        "covariance": found.covariance.tolist(),
        "scales": {"amplitude": scales.amplitude, "noise": scales.noise, "lengths": list(scales.lengths)},
        "runs": [[run.kind, *run.place, run.log_loss] for run in found.runs],
        "vocabulary": VOCABULARY,
    }


def write_law(found: Fitted, path: Path) -> None:
    """Write law.json, with one constant, row of the covariance or run in each line."""
    text = json.dumps(content_of(found), indent=1)
    rows = re.sub(r"\[[^\[\]]*\]", lambda row: " ".join(row[0].split()), text)
    path.write_text(rows + "\n", encoding="utf-8")

"""Fit the constants of the scaling law to the runs of the ladder, by least squares of the logarithms of the losses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.sweep_corpora import SOURCES, VOCABULARY
from toynn.planning.law import OF_KIND, SHARED, log_loss
from toynn.planning.recipe import PROBE, PROBE_STEPS

Vector = npt.NDArray[np.float64]

KINDS = ("stories", "sources")  # the kinds of text; all texts except "sources" are stories
# The values from which the fit starts. If the runs do not determine a constant, a weak prior keeps the constant near
# its start value. A constant that is twice its start value costs as much as a loss that differs from the law by a
# typical amount.
_START = {
    "stories": {"E": 0.12, "G": 1.3, "n0": 5e4, "u0": 1e6, "alpha": 1.0, "beta": 1.0},
    "sources": {"E": 0.4, "G": 1.5, "n0": 1e5, "u0": 1e6, "alpha": 0.5, "beta": 0.5},
}
_START_OF_REPEATS = 15.4  # the value that Muennighoff et al. found
_PRIOR = 0.03  # residual of a constant that differs from its value in _START by a factor of two
_ITERATIONS = 500
_DIFFERENCE = 1e-6  # step of the numerical derivatives


def least_squares(residuals: Callable[[Vector], Vector], start: Vector) -> tuple[Vector, Vector]:
    """Return the parameters with the least sum of squared residuals near `start`, and the matrix of derivatives there.

    The method is that of Levenberg and Marquardt. It needs only numpy, and gives the same result each time.
    """
    x, damping = start.copy(), 1e-2
    r = residuals(x)
    for _ in range(_ITERATIONS):
        jacobian = derivatives(residuals, x)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ r
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -gradient)
        candidate = residuals(x + step)
        if candidate @ candidate < r @ r:
            small = r @ r - candidate @ candidate < 1e-14 * (r @ r)
            x, r, damping = x + step, candidate, max(damping / 3, 1e-9)
            if small:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
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
    """A run of the ladder; see `benchmarks.scaling_law.Result`."""

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
    """Return the kind of a text of the ladder."""
    return "sources" if text == SOURCES else "stories"


def bytes_read(run: Run) -> float:
    return run.tokens * run.train_bytes / run.train_tokens


def fit(runs: Sequence[Run], prior: float = _PRIOR / math.log(2)) -> dict[str, Any]:
    """Return the law that fits the runs, as the content of law.json; see `toynn.planning.law.ScalingLaw`.

    prior: weight of the distance between the logarithm of a constant and its start value.
    """
    kinds = [kind for kind in KINDS if any(kind_of(run.text) == kind for run in runs)]
    names = [f"{kind}.{name}" for kind in kinds for name in OF_KIND] + list(SHARED)
    start = np.log([*(_START[kind][name] for kind in kinds for name in OF_KIND), _START_OF_REPEATS])

    def residuals(x: Vector) -> Vector:
        constants = dict(zip(names, np.exp(np.clip(x, -40, 40)).tolist(), strict=True))
        of_runs = [
            log_loss(constants, kind_of(run.text), run.layer_parameters, bytes_read(run), run.train_bytes)
            - math.log(run.loss_per_byte)
            for run in runs
        ]
        return np.concatenate([of_runs, prior * (x - start)])

    x, jacobian = least_squares(residuals, start)
    variance = float(np.sum(residuals(x)[: len(runs)] ** 2)) / max(len(runs) - x.size, 1)
    covariance = variance * np.linalg.pinv(jacobian.T @ jacobian)
    measured = {(kind_of(run.text), run.text): math.log(run.loss_per_byte) for run in runs if is_probe(run)}
    probes = {kind: float(np.mean([one for (of, _), one in measured.items() if of == kind])) for kind in kinds}
    return {
        "log_constants": dict(zip(names, x.tolist(), strict=True)),
        "covariance": covariance.tolist(),
        "probes": probes,
        "residual": math.sqrt(variance),
        "largest_parameters": max(run.layer_parameters for run in runs),
        "largest_read": max(bytes_read(run) for run in runs),
        "vocabulary": VOCABULARY,
        "runs": len(runs),
    }


def is_probe(run: Run) -> bool:
    """Return whether a run is a probe, which measures the difficulty of its text."""
    return (run.size, run.steps) == (PROBE.name, PROBE_STEPS)


def write_law(content: dict[str, Any], path: Path) -> None:
    """Write law.json, with one constant in each line."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

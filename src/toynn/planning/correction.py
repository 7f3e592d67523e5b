"""Correct the scaling law near the runs that were measured, and give the uncertainty of the corrected law.

The law is a smooth curve, but on stories, the loss falls sharply when a model learns to copy names. So the error of the
law is treated as a Gaussian process: the errors of two runs on the same kind of text are similar if the runs are
similar. The correlation of two errors is

    exp(-(d1^2 + d2^2 + d3^2) / 2)

d1, d2 and d3 are the differences between the logarithms of three numbers of a run: the weights, the bytes read, and the
distinct bytes read. Each difference is divided by a length scale. Near a measured run, the correction is the error of
the law for this run. Far from all runs, the correction is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


class Place(NamedTuple):
    """The three numbers on which the loss of a run on a kind of text depends.

    layer_parameters: weights in the layers, without the embedding. read: bytes of text that the run reads; a byte that
    is read twice counts twice. size: bytes of the training text.
    """

    layer_parameters: float
    read: float
    size: float


class Measured(NamedTuple):
    """A measured run. kind: the kind of text. log_loss: the logarithm of the loss in nats per byte."""

    kind: str
    place: Place
    log_loss: float


@dataclass(frozen=True)
class Scales:
    """How much the law errs, and how similar the errors of similar runs are.

    The error of a run is an error of the logarithm of the loss. One part of the error is shared by similar runs, and
    the other part belongs to the run alone.

    amplitude: for each kind of text, the standard deviation of the shared part.
    noise: for each kind of text, the standard deviation of the other part.
    lengths: the lengths by which the differences d1, d2 and d3 are divided (see the start of this file).
    """

    amplitude: dict[str, float]
    noise: dict[str, float]
    lengths: tuple[float, float, float]


def columns(places: Sequence[Place]) -> tuple[Vector, Vector, Vector]:
    """Return the weights, the bytes read and the text sizes of places, each of shape (len(places),)."""
    table = np.array(places, dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def similarity(scales: Scales, kind: str, a: Sequence[Place], b: Sequence[Place]) -> Vector:
    """Return the covariances of the errors of the law at the places a and b: shape (len(a), len(b))."""
    distance = (_coordinates(scales, a)[:, None] - _coordinates(scales, b)[None]) ** 2
    return np.asarray(scales.amplitude[kind] ** 2 * np.exp(-0.5 * distance.sum(-1)))


def _coordinates(scales: Scales, places: Sequence[Place]) -> Vector:
    weights, read, size = columns(places)
    return np.asarray(np.log(np.stack([weights, read, np.minimum(read, size)], axis=1)) / np.array(scales.lengths))


class Correction:
    """The correction of the law for one kind of text.

    scales: see `Scales`. kind: the kind of text. places: the places of the measured runs of this kind.
    """

    def __init__(self, scales: Scales, kind: str, places: Sequence[Place]) -> None:
        self._scales, self._kind, self._places = scales, kind, places
        self.covariance = similarity(scales, kind, places, places)
        self.covariance += scales.noise[kind] ** 2 * np.eye(len(places))
        self._inverse = np.linalg.inv(self.covariance)

    def weights(self, places: Sequence[Place]) -> Vector:
        """Return the factors of the errors at the measured runs: shape (len(places), number of measured runs).

        The product with the errors of the law at the measured runs is the correction.
        """
        return np.asarray(similarity(self._scales, self._kind, places, self._places) @ self._inverse)

    def uncertainty(self, places: Sequence[Place]) -> Vector:
        """Return the covariances of the errors that remain after the correction: shape (len(places), len(places))."""
        with_runs = similarity(self._scales, self._kind, places, self._places)
        prior = similarity(self._scales, self._kind, places, places)
        return np.asarray(prior - with_runs @ self._inverse @ with_runs.T)

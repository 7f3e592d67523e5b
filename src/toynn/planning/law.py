"""The scaling law: the validation loss that a model of a size reaches on a text after a number of tokens.

For a kind of text, the loss in nats per byte is

    L = E + G (1 + z / gamma)^-gamma    with    1 / z = (n / n0)^-alpha + (u / u0)^-beta

n: weights in the layers, without the embedding. u: effective bytes of training text. z has the form of the law of
Kaplan et al. 2020 ("Scaling Laws for Neural Language Models"): the smaller of (n / n0)^alpha and (u / u0)^beta has more
influence. E is the loss that no model can avoid, and E + G is the loss of a model that has learned almost nothing.
gamma says how sharply the loss falls to E.

The first pass over a text counts fully, and each further pass counts less (Muennighoff et al. 2023, "Scaling
Data-Constrained Language Models"):

    u = U (1 + R (1 - exp(-(passes - 1) / R)))  if passes > 1

R is shared by all kinds of text. The other constants belong to one kind. Near the measured runs, the law is corrected
by its error there; see `toynn.planning.correction`. law.json contains the measured runs, and the constants with their
covariance, which `make scaling-law` fits.

The text of a user is of an unknown kind. A probe, the smallest model after 125 steps, shows how difficult the text is.
The loss of each kind of text is multiplied by a ratio: the loss of the probe, divided by the loss that the law expects
for the probe on a text of this kind and size. The results for the kinds are interpolated by the loss of the probe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toynn.planning.correction import Correction, Measured, Place, Scales, Vector, columns
from toynn.planning.recipe import PROBE, PROBE_STEPS, TOKENS_OF_STEP

LAW = Path(__file__).with_name("law.json")
KNOWN_PASSES = 4.0  # up to this number of passes, a further pass is almost as good as new text
SHARED = ("repeats",)  # constants that all kinds of text share; "repeats" is the constant R
OF_KIND = ("E", "G", "n0", "u0", "alpha", "beta", "gamma")
_USEFUL = 0.05  # a further pass is left out if it counts as less than this share of the first pass
_BETWEEN_KINDS = 0.02  # keeps `_spread` above 0, because a text can differ from the kind that its probe fits
_DIFFERENCE = 1e-4  # step of the numerical derivatives
_TRIED_IN_A_DOUBLING = 8  # numbers of steps between a number and its double that `best_steps` compares
_FEWER = 16  # `best_steps` returns at least the largest number of steps, divided by this number


@dataclass(frozen=True)
class Text:
    """A text to learn. tokens, nbytes: size of its training split.

    probe: loss of the probe in nats per byte; None: unknown, because the data has no validation tokens.
    """

    tokens: int
    nbytes: float
    probe: float | None

    @property
    def bytes_per_token(self) -> float:
        return self.nbytes / self.tokens

    def place(self, layer_parameters: float, tokens: float) -> Place:
        """Return the place of a run that reads a number of tokens of this text."""
        return Place(layer_parameters, tokens * self.bytes_per_token, self.nbytes)


class Prediction(NamedTuple):
    """An expected loss. log_loss: the logarithm of the loss in nats per byte. deviation: its standard deviation."""

    log_loss: float
    deviation: float


def effective_bytes(read: Vector | float, size: Vector | float, repeats: float) -> Vector:
    """Return the effective bytes of training text. read: bytes that a run reads. size: bytes of the text."""
    passes = np.asarray(read, dtype=np.float64) / size
    further = np.maximum(passes - 1.0, 0.0)
    return np.asarray(np.minimum(read, size) + size * repeats * -np.expm1(-further / repeats))


def log_losses(constants: Mapping[str, float], kind: str, places: Sequence[Place]) -> Vector:
    """Return the logarithms of the losses in nats per byte by the law without a correction: shape (len(places),).

    constants: by name, for example "stories.E" and "repeats".
    """
    weights, read, size = columns(places)
    u = effective_bytes(read, size, constants["repeats"])
    limits = (weights / constants[f"{kind}.n0"]) ** -constants[f"{kind}.alpha"]
    limits += (u / constants[f"{kind}.u0"]) ** -constants[f"{kind}.beta"]
    gamma = constants[f"{kind}.gamma"]
    above = constants[f"{kind}.G"] * (1.0 + 1.0 / (gamma * limits)) ** -gamma
    return np.asarray(np.log(constants[f"{kind}.E"] + above))


@dataclass(frozen=True)
class ScalingLaw:
    """The fitted law.

    log_constants: the logarithm of each constant, by name. covariance: the covariance matrix of these logarithms.
    scales: the errors of the law; see `toynn.planning.correction`. runs: the measured runs.
    vocabulary: number of tokens in the vocabulary of the measured runs.
    """

    log_constants: dict[str, float]
    covariance: Vector
    scales: Scales
    runs: tuple[Measured, ...]
    vocabulary: int

    @classmethod
    def load(cls, path: Path = LAW) -> ScalingLaw:
        """Return the law in a file, by default the law of this package."""
        return cls.of(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ScalingLaw:
        """Return the law with the content of law.json."""
        scales = content["scales"]
        weights, read, different = scales["lengths"]
        return cls(
            {name: float(value) for name, value in content["log_constants"].items()},
            np.array(content["covariance"], dtype=np.float64),
            Scales(scales["amplitude"], scales["noise"], (weights, read, different)),
            tuple(Measured(kind, Place(*place), loss) for kind, *place, loss in content["runs"]),
            content["vocabulary"],
        )

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of text."""
        return tuple(self.scales.amplitude)

    @cached_property
    def _corrections(self) -> dict[str, Correction]:
        return {kind: Correction(self.scales, kind, self._places(kind)) for kind in self.kinds}

    def _places(self, kind: str) -> list[Place]:
        return [run.place for run in self.runs if run.kind == kind]

    def predicted(self, text: Text, layer_parameters: float, tokens: float) -> Prediction:
        """Return the expected loss of a model on a text after a number of tokens."""
        values = np.array(list(self.log_constants.values()))
        place = [text.place(layer_parameters, tokens)]
        shares = self._shares(text)
        middle = self._mixed(values, text, place, shares)[0]
        gradient = np.empty_like(values)
        for i in range(values.size):
            changed = values.copy()
            changed[i] += _DIFFERENCE
            gradient[i] = (self._mixed(changed, text, place, shares)[0] - middle) / _DIFFERENCE
        variance = float(gradient @ self.covariance @ gradient)
        for kind, share in shares.items():
            variance += share**2 * self._variance(kind, text, place)
        return Prediction(float(middle), math.sqrt(max(variance, 0.0) + self._spread(text, place, shares) ** 2))

    def expected(self, text: Text, layer_parameters: float, tokens: Sequence[int]) -> Vector:
        """Return the logarithms of the expected losses after each of the numbers of tokens: shape (len(tokens),)."""
        values = np.array(list(self.log_constants.values()))
        places = [text.place(layer_parameters, one) for one in tokens]
        return self._mixed(values, text, places, self._shares(text))

    def _mixed(self, log_constants: Vector, text: Text, places: Sequence[Place], shares: Mapping[str, float]) -> Vector:
        """Return the logarithms of the losses at places, interpolated between the kinds of text."""
        of_kinds = [share * self._of_kind(log_constants, kind, text, places) for kind, share in shares.items()]
        return np.asarray(np.sum(of_kinds, axis=0))

    def _of_kind(self, log_constants: Vector, kind: str, text: Text, places: Sequence[Place]) -> Vector:
        """Return the logarithms of the losses at places, on the assumption that the text is of this kind."""
        if text.probe is None:
            return self._corrected(log_constants, kind, places)
        found = self._corrected(log_constants, kind, [*places, _probe_of(text)])
        return np.asarray(found[:-1] - found[-1] + math.log(text.probe))

    def _corrected(self, log_constants: Vector, kind: str, places: Sequence[Place]) -> Vector:
        """Return the logarithms of the losses at places on the texts of a kind, by the corrected law."""
        constants = dict(zip(self.log_constants, np.exp(log_constants).tolist(), strict=True))
        measured = np.array([run.log_loss for run in self.runs if run.kind == kind])
        errors = measured - log_losses(constants, kind, self._places(kind))
        return log_losses(constants, kind, places) + self._corrections[kind].weights(places) @ errors

    def _variance(self, kind: str, text: Text, place: Sequence[Place]) -> float:
        """Return the variance of the logarithm of a corrected loss, which includes the variance of the probe."""
        noise = self.scales.noise[kind] ** 2
        if text.probe is None:
            return float(self._corrections[kind].uncertainty(place)[0, 0]) + noise
        left = self._corrections[kind].uncertainty([*place, _probe_of(text)])
        return float(left[0, 0] + left[1, 1] - 2 * left[0, 1]) + 2 * noise

    def _shares(self, text: Text) -> dict[str, float]:
        """Return the weight of each kind of text for interpolation. The weights add up to 1.

        If the loss of the probe lies between the losses of the probe on two kinds, only these kinds have weights. The
        weights are linear in the logarithm of the loss of the probe.
        """
        values = np.array(list(self.log_constants.values()))
        places = {kind: float(self._corrected(values, kind, [_probe_of(text)])[0]) for kind in self.kinds}
        order = sorted(self.kinds, key=lambda kind: places[kind])
        at = places[order[0]] if text.probe is None else math.log(text.probe)
        near = np.eye(len(order))
        shares = [float(np.interp(at, [places[kind] for kind in order], row)) for row in near]
        return dict(zip(order, shares, strict=True))

    def _spread(self, text: Text, place: Sequence[Place], shares: Mapping[str, float]) -> float:
        """Return the standard deviation of the logarithm of a loss that is due to the unknown kind of the text.

        The deviation is the largest difference between the kinds, multiplied by sqrt(w (1 - w) + 0.02), where w is the
        largest weight of a kind.
        """
        values = np.array(list(self.log_constants.values()))
        of_kinds = [float(self._of_kind(values, kind, text, place)[0]) for kind in self.kinds]
        most = max(shares.values())
        return (max(of_kinds) - min(of_kinds)) * math.sqrt(most * (1.0 - most) + _BETWEEN_KINDS)

    def best_steps(self, text: Text, layer_parameters: float, tokens_of_step: int, fitting: int) -> int:
        """Return the number of steps, at most `fitting`, after which the expected loss is the lowest.

        More steps can raise the loss, because a model memorises a small text.
        """
        grid = {min(fitting, round(2 ** (power / _TRIED_IN_A_DOUBLING))) for power in range(24 * _TRIED_IN_A_DOUBLING)}
        steps = sorted({one for one in grid if one >= fitting / _FEWER} | {fitting})
        losses = self.expected(text, layer_parameters, [one * tokens_of_step for one in steps])
        return steps[int(np.argmin(losses))]

    def most_steps(self, text: Text, tokens_of_step: int) -> int:
        """Return the number of steps after which another pass over the text would hardly count."""
        passes = 1.0 - math.exp(self.log_constants["repeats"]) * math.log(_USEFUL)
        return max(1, int(passes * text.tokens / tokens_of_step))

    def balanced_tokens(self, text: Text, layer_parameters: float) -> float:
        """Return the number of tokens for which a model of this size is the best.

        With the same number of operations, no smaller or larger model gives a lower loss. The result is that of the
        kind whose probe is nearest to the probe of the text.
        """
        shares = self._shares(text)
        kind = max(shares, key=lambda one: shares[one])
        c = {name: math.exp(value) for name, value in self.log_constants.items()}
        alpha, beta = c[f"{kind}.alpha"], c[f"{kind}.beta"]
        of_size = alpha * math.pow(layer_parameters / c[f"{kind}.n0"], -alpha)
        effective = c[f"{kind}.u0"] * math.pow(beta / of_size, 1.0 / beta)
        return effective / text.bytes_per_token

    def extrapolation(self, layer_parameters: float, read: float) -> float:
        """Return the factor by which a run exceeds the largest model or the longest run of the fit; at least 1."""
        places = [run.place for run in self.runs]
        largest, longest = max(one.layer_parameters for one in places), max(one.read for one in places)
        return max(1.0, layer_parameters / largest, read / longest)


def _probe_of(text: Text) -> Place:
    return text.place(PROBE.layer_parameters, PROBE_STEPS * TOKENS_OF_STEP)

"""The scaling law: the validation loss that a model of a size reaches on a text after a number of tokens.

For a kind of text, the loss in nats per byte is

    L = E + G / (1 + z)    with    1 / z = (n / n0)^-alpha + (u / u0)^-beta

n: weights in the layers, without the embedding. u: effective bytes of training text. z has the form of the law of
Kaplan et al. 2020 ("Scaling Laws for Neural Language Models"): the smaller of (n / n0)^alpha and (u / u0)^beta has more
influence. E is the loss that no model can avoid, and E + G is the loss of a model that has learned almost nothing.

The first pass over a text counts fully, and each further pass counts less (Muennighoff et al. 2023, "Scaling
Data-Constrained Language Models"):

    u = U (1 + R (1 - exp(-(passes - 1) / R)))  if passes > 1

R is shared by all kinds of text. The other constants belong to one kind. law.json contains all constants, which
`make scaling-law` fits, and their covariance.

The text of a user is of an unknown kind. A probe, the smallest model after 125 steps, shows how difficult the text is.
The loss of each kind of text is multiplied by a ratio: the loss of the probe, divided by the mean loss of the probes of
this kind. The results for the kinds are interpolated by the loss of the probe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LAW = Path(__file__).with_name("law.json")
KNOWN_PASSES = 4.0  # up to this number of passes, a further pass is almost as good as new text
SHARED = ("repeats",)  # constants that all kinds of text share; "repeats" is the constant R
OF_KIND = ("E", "G", "n0", "u0", "alpha", "beta")
_USEFUL = 0.05  # a further pass is left out if it counts as less than this share of the first pass
_BETWEEN_KINDS = 0.02  # keeps `_spread` above 0, because a text can differ from the kind that its probe fits
_DIFFERENCE = 1e-4  # step of the numerical derivatives


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


class Prediction(NamedTuple):
    """An expected loss. log_loss: the logarithm of the loss in nats per byte. deviation: its standard deviation."""

    log_loss: float
    deviation: float


def effective_bytes(read: float, size: float, repeats: float) -> float:
    """Return the effective bytes of training text. read: bytes that a run reads. size: bytes of the text."""
    passes = read / size
    return read if passes <= 1 else size * (1.0 + repeats * (1.0 - math.exp(-(passes - 1.0) / repeats)))


def log_loss(constants: Mapping[str, float], kind: str, layer_parameters: float, read: float, size: float) -> float:
    """Return the logarithm of the loss in nats per byte. constants: by name, for example "stories.E" and "alpha"."""
    u = effective_bytes(read, size, constants["repeats"])
    limits = (layer_parameters / constants[f"{kind}.n0"]) ** -constants[f"{kind}.alpha"]
    limits += (u / constants[f"{kind}.u0"]) ** -constants[f"{kind}.beta"]
    return math.log(constants[f"{kind}.E"] + constants[f"{kind}.G"] / (1.0 + 1.0 / limits))


@dataclass(frozen=True)
class ScalingLaw:
    """The fitted law.

    log_constants: the logarithm of each constant, by name. covariance: the covariance matrix of these logarithms.
    kinds: the kinds of text. probes: for each kind, the logarithm of the mean loss of its probes in nats per byte.
    residual: standard deviation of the logarithm of a loss around the law.
    largest_parameters, largest_read: weights in the layers of the largest model of the fitted runs, and the most bytes
    that a run has read. vocabulary: number of tokens of the fitted runs.
    """

    log_constants: dict[str, float]
    covariance: npt.NDArray[np.float64]
    kinds: tuple[str, ...]
    probes: tuple[float, ...]
    residual: float
    largest_parameters: int
    largest_read: float
    vocabulary: int

    @classmethod
    def load(cls, path: Path = LAW) -> ScalingLaw:
        """Return the law in a file, by default the law of this package."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            {name: float(value) for name, value in content["log_constants"].items()},
            np.array(content["covariance"], dtype=np.float64),
            tuple(content["probes"]),
            tuple(content["probes"].values()),
            content["residual"],
            content["largest_parameters"],
            content["largest_read"],
            content["vocabulary"],
        )

    def predicted(self, text: Text, layer_parameters: float, tokens: int) -> Prediction:
        """Return the expected loss of a model on a text after a number of tokens."""
        values = np.array(list(self.log_constants.values()))
        middle = self._log_loss(values, text, layer_parameters, tokens)
        gradient = np.empty_like(values)
        for i in range(values.size):
            changed = values.copy()
            changed[i] += _DIFFERENCE
            gradient[i] = (self._log_loss(changed, text, layer_parameters, tokens) - middle) / _DIFFERENCE
        of_constants = float(gradient @ self.covariance @ gradient)
        # the deviation of the run; if the text has a probe, the deviation of the probe too
        of_runs = self.residual**2 * (1 if text.probe is None else 2)
        of_kind = self._spread(text, layer_parameters, tokens) ** 2
        return Prediction(middle, math.sqrt(max(of_constants, 0.0) + of_runs + of_kind))

    def _log_loss(self, log_constants: npt.NDArray[np.float64], text: Text, n: float, tokens: int) -> float:
        of_kinds = self._of_kinds(log_constants, text, n, tokens)
        return float(sum(weight * one for weight, one in zip(self._weights(text), of_kinds, strict=True)))

    def _of_kinds(self, log_constants: npt.NDArray[np.float64], text: Text, n: float, tokens: int) -> list[float]:
        """Return the logarithm of the loss for each kind of text, on the assumption that the text is of this kind."""
        constants = dict(zip(self.log_constants, np.exp(log_constants).tolist(), strict=True))
        per_token = text.bytes_per_token
        losses = [log_loss(constants, kind, n, tokens * per_token, text.nbytes) for kind in self.kinds]
        if text.probe is None:
            return losses
        return [loss + math.log(text.probe) - probe for loss, probe in zip(losses, self.probes, strict=True)]

    def _weights(self, text: Text) -> list[float]:
        """Return the weight of each kind of text for interpolation. The weights add up to 1.

        If the loss of the probe lies between the losses of two kinds, only these kinds have weights. The weights are
        linear in the logarithm of the loss of the probe.
        """
        order = sorted(range(len(self.kinds)), key=lambda i: self.probes[i])
        places = [self.probes[i] for i in order]
        at = places[0] if text.probe is None else math.log(text.probe)
        weights = [0.0] * len(order)
        for k, i in enumerate(order):
            weights[i] = float(np.interp(at, places, np.eye(len(order))[k]))
        return weights

    def _spread(self, text: Text, n: float, tokens: int) -> float:
        """Return the standard deviation of the logarithm of a loss that is due to the unknown kind of the text.

        The deviation is the largest difference between the kinds, multiplied by sqrt(w (1 - w) + 0.02), where w is the
        largest weight of a kind.
        """
        values = np.array(list(self.log_constants.values()))
        of_kinds = self._of_kinds(values, text, n, tokens)
        most = max(self._weights(text))
        return (max(of_kinds) - min(of_kinds)) * math.sqrt(most * (1.0 - most) + _BETWEEN_KINDS)

    def most_steps(self, text: Text, tokens_of_step: int) -> int:
        """Return the number of steps after which another pass over the text would hardly count."""
        passes = 1.0 - math.exp(self.log_constants["repeats"]) * math.log(_USEFUL)
        return max(1, int(passes * text.tokens / tokens_of_step))

    def balanced_tokens(self, text: Text, layer_parameters: float) -> float:
        """Return the number of tokens for which a model of this size is the best.

        With the same number of operations, no smaller or larger model gives a lower loss. The result is that of the
        kind whose probes are nearest to the probe of the text.
        """
        kind = self.kinds[int(np.argmax(self._weights(text)))]
        c = {name: math.exp(value) for name, value in self.log_constants.items()}
        alpha, beta = c[f"{kind}.alpha"], c[f"{kind}.beta"]
        of_size = alpha * math.pow(layer_parameters / c[f"{kind}.n0"], -alpha)
        effective = c[f"{kind}.u0"] * math.pow(beta / of_size, 1.0 / beta)
        return effective / text.bytes_per_token

    def extrapolation(self, layer_parameters: float, read: float) -> float:
        """Return the factor by which a run exceeds the largest model or the longest run of the fit; at least 1."""
        return max(1.0, layer_parameters / self.largest_parameters, read / self.largest_read)

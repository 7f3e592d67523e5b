"""Recognise a run that trains badly by its losses, learning rates and gradient norms, and advise what to change.

docs/diagnosis.md describes each sign. The advice depends only on numbers that the log contains, so the log of a run
gives the same advice as the run itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from toynn.training.events import Event
from toynn.training.run_log import NAMES

PAGE = "docs/diagnosis.md"
MEMORISING, SPIKE, TOO_HIGH, TOO_LOW, SATURATED = SIGNS = (
    "memorising",
    "gradient-spike",
    "learning-rate-too-high",
    "learning-rate-too-low",
    "saturated-activations",
)

_MEAN = 20  # number of steps whose losses are averaged
_LONG_MEAN = 100  # number of steps whose mean loss is compared with the validation loss
_NORMS = 50  # number of earlier gradient norms
_EVERY = 10  # the means and medians are computed after each tenth step
# A gradient norm is a spike if it is above _SPIKE times the median of the earlier norms, and above _SMALL_NORM.
_SPIKE, _SMALL_NORM = 10.0, 1.0
_SMALL_LOSS = 0.2  # below this mean loss, no spike is reported, because each unknown sample has an unusually large norm
_VANISHED = 0.02  # gradients have vanished if the median of their norms is below this share of the largest median
_GAP, _SHARE_OF_GAP = 0.1, 0.2  # validation loss minus training loss: nats per token, and share of the validation loss
_RISE, _SHARE_OF_RISE = 0.3, 0.1  # rise of the mean loss: nats per token, and share of the lowest mean
_ERRORS = 10.0  # the mean loss must also rise by this many standard errors: the lowest of many means is low by chance
_SETTLED = 100  # the loss must have fallen after this number of steps after the warm-up
_LEARNED = 0.85  # a run from random weights has learned if its mean loss is at most this share of its first loss
_UNCHANGED = 0.97  # the mean loss has hardly changed if it is at least this share of the first loss


@dataclass(frozen=True)
class Advice:
    """A sign that a run trains badly.

    step: the step after which the sign was found. sign: one of SIGNS. text: what was found, and what to change.
    """

    step: int
    sign: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} (see {PAGE}#{self.sign})"


class Diagnosis:
    """Reads the events of a run in their order, and reports each sign once.

    Steps and evaluations on preference pairs are ignored, because their loss says little about the model.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._losses: deque[float] = deque(maxlen=_MEAN)
        self._more_losses: deque[float] = deque(maxlen=_LONG_MEAN)
        self._norms: deque[float] = deque(maxlen=_NORMS)
        self._usual_norm = self._largest_usual = 0.0  # the last and the largest median of the norms; 0: no median yet
        self._first: float | None = None  # the first loss of a run from random weights
        self._lowest = math.inf  # the lowest mean loss
        self._rate, self._settled = 0.0, 0  # learning rate of the last step; steps since the rate stopped rising
        self._epoch, self._early_gap = 0.0, 0.0
        self._from_random_weights = False

    def read(self, event: Event) -> tuple[Advice, ...]:
        """Return the signs that are found for the first time after this event."""
        return self.read_fields(NAMES.get(type(event), ""), vars(event))

    def read_fields(self, kind: str, fields: Mapping[str, Any]) -> tuple[Advice, ...]:
        """Return the signs that are found for the first time after an event of the log.

        kind: the name of the event in the log, for example "stepped". fields: its fields.
        """
        found: tuple[Advice | None, ...] = ()
        if kind == "started" and fields["step"] == 0:
            self._from_random_weights = fields["inits"] is None
        elif kind == "stepped" and fields.get("reward_margin") is None:
            found = self._stepped(fields)
        elif kind == "evaluated" and fields.get("reward_margin") is None:
            found = (self._memorising(fields["step"], fields["loss"]),)
        new = tuple(one for one in found if one is not None and one.sign not in self._seen)
        self._seen.update(one.sign for one in new)
        return new

    def _stepped(self, fields: Mapping[str, Any]) -> tuple[Advice | None, ...]:
        step, loss, rate, norm = (fields[name] for name in ("step", "loss", "learning_rate", "gradient_norm"))
        if step == 1 and self._from_random_weights:
            self._first = loss
        self._epoch = fields.get("epoch", 0.0)
        self._settled = 0 if rate > self._rate else self._settled + 1
        self._rate = rate
        spike = self._spike(step, norm)
        self._losses.append(loss)
        self._more_losses.append(loss)
        self._norms.append(norm)
        if step % _EVERY:
            return (spike,)
        of_losses = self._of_losses(step) if len(self._losses) == _MEAN else ()
        if len(self._norms) == _NORMS:
            self._usual_norm = median(self._norms)
            self._largest_usual = max(self._largest_usual, self._usual_norm)
        return (spike, *of_losses)

    def _spike(self, step: int, norm: float) -> Advice | None:
        if self._usual_norm == 0 or self._settled == 0 or norm <= max(_SPIKE * self._usual_norm, _SMALL_NORM):
            return None
        if fmean(self._losses) < _SMALL_LOSS:
            return None
        return Advice(
            step,
            SPIKE,
            f"the gradient norm jumped to {norm:.3g} in step {step}, from about {self._usual_norm:.3g} before; if the "
            "loss rises after such steps, lower optimizer.lr or make schedule.warmup longer",
        )

    def _of_losses(self, step: int) -> tuple[Advice | None, ...]:
        mean = fmean(self._losses)
        longer = fmean(self._more_losses)
        error = math.sqrt(fmean((loss - longer) ** 2 for loss in self._more_losses) / len(self._losses))
        lowest, self._lowest = self._lowest, min(self._lowest, mean)
        if mean - lowest > max(_RISE, _SHARE_OF_RISE * lowest, _ERRORS * error):
            text = f"the mean training loss rose from {lowest:.3g} to {mean:.3g} until step {step}"
            return (self._vanished(step, mean), self._too_high(step, text))
        if self._first is not None and mean - self._first > max(_RISE, _SHARE_OF_RISE * self._first):
            text = f"the mean training loss is {mean:.3g} after step {step}, above the first loss of {self._first:.3g}"
            return (self._vanished(step, mean), self._too_high(step, text))
        return (self._vanished(step, mean), self._stalled(step, mean, falls=mean < lowest - error))

    def _too_high(self, step: int, what: str) -> Advice:
        return Advice(
            step,
            TOO_HIGH,
            f"{what}; optimizer.lr is probably too high (the learning rate of this step is {self._rate:.2g}), and "
            "`toynn lr-find` suggests a lower value",
        )

    def _stalled(self, step: int, mean: float, *, falls: bool) -> Advice | None:
        """Return advice if a run from random weights has learned little when the warm-up is over.

        falls: whether the mean loss is still falling. A learning rate that is too low leaves the loss near its first
        value, or lets it fall slowly. With a rate that is too high, the loss stops at another value.
        """
        if self._first is None or not _SETTLED <= self._settled < _SETTLED + _EVERY or TOO_HIGH in self._seen:
            return None
        if mean <= _LEARNED * self._first:
            return None
        text = f"the training loss fell only from {self._first:.3g} to {mean:.3g} in {step} steps"
        if not falls and mean < _UNCHANGED * self._first:
            return self._too_high(step, f"{text}, and does not fall any more")
        return Advice(
            step,
            TOO_LOW,
            f"{text}; optimizer.lr is probably too low (the learning rate of this step is {self._rate:.2g}), and "
            "`toynn lr-find` suggests a higher value",
        )

    def _vanished(self, step: int, mean: float) -> Advice | None:
        """Return advice if the gradients have vanished although the loss is high: activations have saturated."""
        if self._first is None or self._usual_norm == 0 or mean < _LEARNED / 2 * self._first:
            return None
        if self._usual_norm >= _VANISHED * self._largest_usual:
            return None
        return Advice(
            step,
            SATURATED,
            f"the gradient norm fell from {self._largest_usual:.3g} to {self._usual_norm:.3g} until step {step}, but "
            f"the training loss is still {mean:.3g}, so activations have probably saturated; start again with a lower "
            "optimizer.lr, or use train.z_loss",
        )

    def _memorising(self, step: int, loss: float) -> Advice | None:
        if len(self._more_losses) < _MEAN:
            return None
        training = fmean(self._more_losses)
        gap = loss - training
        if self._epoch <= 1:
            # The model has not seen any text twice, so memorising is not the reason for this gap.
            self._early_gap = max(gap, 0.0)
            return None
        if gap - self._early_gap <= max(_GAP, _SHARE_OF_GAP * loss):
            return None
        return Advice(
            step,
            MEMORISING,
            f"the training loss is {training:.3g}, but the validation loss is {loss:.3g} after {self._epoch:.3g} "
            "epochs, so the model memorises its text; use more text, a smaller model or fewer epochs",
        )


def advice_in_log(events: Iterable[Mapping[str, Any]]) -> list[Advice]:
    """Return the advice for a run, in the order of its steps. events: as `read_log` returns them."""
    diagnosis = Diagnosis()
    return [one for event in events for one in diagnosis.read_fields(event["event"], event)]

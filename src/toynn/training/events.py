"""What a training tells of itself. A callback is a function of one event; log, progress and plots are callbacks too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Started:
    """step: steps taken before, by a run that is resumed. parameters: numbers that are trained.

    batch_tokens: of a step. resumes, inits: the checkpoint this starts from. config: as TOML.
    """

    run: Path
    data: Path
    step: int
    steps: int
    parameters: int
    batch_tokens: int
    train_tokens: int
    validation_tokens: int
    resumes: Path | None
    inits: Path | None
    config: str


@dataclass(frozen=True)
class Stepped:
    """loss: of the step's batch in nats a token, before the weights moved. gradient_norm: before clipping.

    tokens: read so far by the run. seconds: of this step.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    tokens_per_second: float


@dataclass(frozen=True)
class Evaluated:
    """On the validation split. loss: nats a token. bits_per_byte: of its text. best: the lowest loss so far."""

    step: int
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    seconds: float
    best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk."""

    step: int
    path: Path
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Ended:
    """reason: "done", "early stop", "stopped" (by a callback) or "interrupted". checkpoint: the latest.

    loss: of the last step; None where none was taken. best_loss, best_step: of the evaluations; None: there was none.
    """

    step: int
    reason: str
    checkpoint: Path
    loss: float | None
    best_loss: float | None
    best_step: int | None
    seconds: float


Event: TypeAlias = Started | Stepped | Evaluated | Saved | Ended
Callback: TypeAlias = Callable[[Event], None]


class StopTraining(Exception):  # noqa: N818 (no error: a callback's wish)
    """A callback raises it to end the training after this step: it is saved, and ends as "stopped"."""

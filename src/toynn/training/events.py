"""The events of a training run. A callback is a function of one event; the log and the progress bar are callbacks.

Fields with a default are missing in the logs of older versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from toynn.initialised import Initialised


@dataclass(frozen=True)
class Started(Initialised):
    """A run starts or is resumed.

    step: steps taken before. steps: of the whole run. parameters: number of trained parameters. batch_tokens: tokens
    per step. resumes: the checkpoint that the run is resumed from. inits: the checkpoint with the initial weights.
    config: as TOML. epochs: passes over the training tokens in the whole run. notes: sentences for the user about what
    was chosen or changed.
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
    epochs: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stepped(Initialised):
    """A step was taken.

    loss: mean over the batch before the update, in nats per token. gradient_norm: before clipping. tokens: read so far
    by the run. seconds: for this step. epoch: passes over the training tokens so far.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    tokens_per_second: float
    epoch: float = 0.0


@dataclass(frozen=True)
class Evaluated(Initialised):
    """The model was evaluated on the validation split.

    loss: nats per token. bits_per_byte: of the text, NaN if its size is unknown. best: whether it is the best so far.
    """

    step: int
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    seconds: float
    best: bool


@dataclass(frozen=True)
class Saved(Initialised):
    """A checkpoint was written and is on the disk. bytes: the size of its files."""

    step: int
    path: Path
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Ended(Initialised):
    """The run ended.

    reason: "done", "early stop", "stopped" (by a callback) or "interrupted". checkpoint: the latest one. loss: of the
    last step; None if no step was taken. best_loss, best_step: of the best evaluation; None if there was none.
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


class StopTraining(Exception):  # noqa: N818 (not an error: a request)
    """Raised by a callback to end the run after this step. The run is saved and ends with the reason "stopped"."""

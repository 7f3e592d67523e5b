"""The events of a training run. A run calls each of its callbacks, for example the log, with every event.

Fields with a default are missing in logs that older versions of toynn have written.
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

    run, data: the folders of the run and of its data.
    step: number of steps taken before.
    steps: number of steps of the whole run.
    parameters: number of trained parameters.
    batch_tokens: number of tokens per step; if the length of the windows varies, number of tokens of the longest step;
        if the batch grows, number of tokens of the first step.
    train_tokens, validation_tokens: number of tokens in each split.
    resumes: the checkpoint from which the run is resumed, or None.
    inits: the checkpoint with the initial weights, or None.
    config: the configuration as TOML.
    epochs: number of passes over the training tokens in the whole run.
    notes: sentences for the user about settings that were chosen or changed.
    windows_per_epoch: number of windows in one pass over the training tokens.
    filled: share of these windows that is not padding, from 0 to 1; below 1 if windows contain whole samples.
    seconds_used: the seconds of train.seconds that were used before this event; 0 without train.seconds.
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
    windows_per_epoch: int = 0
    filled: float = 1.0
    seconds_used: float = 0.0


@dataclass(frozen=True)
class ReferenceProgress(Initialised):
    """The reference model has computed the log-probabilities of more preference pairs, before the first step.

    This event is not in the log.

    done: number of pairs of both splits that are computed.
    pairs: number of pairs of both splits.
    """

    done: int
    pairs: int


@dataclass(frozen=True)
class PairFigures(Initialised):
    """Means over preference pairs.

    reward_chosen, reward_rejected: beta times the change of the log-probability from the
        reference model to the trained model.
    reward_margin: the difference of both rewards.
    reward_accuracy: the share of pairs whose margin is above 0.
    logp_chosen, logp_rejected: the log-probability of a sequence, in nats.
    """

    reward_chosen: float
    reward_rejected: float
    reward_margin: float
    reward_accuracy: float
    logp_chosen: float
    logp_rejected: float


@dataclass(frozen=True)
class Stepped(Initialised):
    """A step was taken.

    step: the number of the step, from 1.
    loss: mean loss of the step before the update, in nats per token; for preference pairs, the mean loss of a pair.
    gradient_norm: norm of all gradients before clipping.
    tokens: number of tokens that the run has read so far.
    seconds: duration of the step.
    epoch: number of passes over the training tokens so far.
    reward_chosen and the fields after it: as in `PairFigures`; None if the data does not consist of preference pairs.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    tokens_per_second: float
    epoch: float = 0.0
    reward_chosen: float | None = None
    reward_rejected: float | None = None
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    logp_chosen: float | None = None
    logp_rejected: float | None = None


@dataclass(frozen=True)
class Evaluated(Initialised):
    """The model was evaluated on the validation split.

    loss: mean loss in nats per token; for preference pairs, the mean loss of a pair.
    perplexity: the exponential of the loss; NaN for preference pairs.
    bits_per_byte: the loss in bits per byte of text; NaN if the size of the text is unknown, and for preference pairs.
    tokens: number of predicted tokens.
    seconds: duration of the evaluation.
    best: whether this is the best evaluation so far.
    prompts, samples: the texts of evaluation.prompts, and the text with which the model continues each of them.
    sources: for data with several sources, the name of each source.
    source_losses: the mean loss of each source; None if no validation token of the source counts.
    source_tokens: for each source, the number of its training tokens that the run has read so far.
    reward_chosen and the fields after it: as in `Stepped`.
    """

    step: int
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    seconds: float
    best: bool
    prompts: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    source_losses: tuple[float | None, ...] = ()
    source_tokens: tuple[int, ...] = ()
    reward_chosen: float | None = None
    reward_rejected: float | None = None
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    logp_chosen: float | None = None
    logp_rejected: float | None = None


@dataclass(frozen=True)
class Rescheduled(Initialised):
    """A run with train.seconds has decided by the clock at which step it ends.

    step: the step after which the learning rate begins to fall, or falls at another speed.
    steps: the number of steps of the whole run.
    falls: schedule.falls, with this decision as the last entry.
    seconds_used: the seconds of train.seconds that were used so far.
    """

    step: int
    steps: int
    falls: tuple[str, ...]
    seconds_used: float


@dataclass(frozen=True)
class Saved(Initialised):
    """A checkpoint was written and is on the disk.

    path: the folder of the checkpoint.
    bytes: the size of the files in the folder.
    seconds: the duration of writing.
    """

    step: int
    path: Path
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Ended(Initialised):
    """The run ended.

    step: the number of steps of the run so far.
    reason: "done", "early stop", "stopped" (by a callback) or "interrupted".
    checkpoint: the latest checkpoint.
    loss: training loss of the last step; None if no step was taken.
    best_loss, best_step: loss and step of the best evaluation; None if there was none.
    seconds: duration of the run.
    """

    step: int
    reason: str
    checkpoint: Path
    loss: float | None
    best_loss: float | None
    best_step: int | None
    seconds: float


Event: TypeAlias = Started | ReferenceProgress | Stepped | Evaluated | Rescheduled | Saved | Ended
Callback: TypeAlias = Callable[[Event], None]


class StopTraining(Exception):  # noqa: N818 (a request, not an error)
    """An exception that a callback raises to end the run after this step. The run is saved before it ends."""

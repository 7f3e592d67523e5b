"""The sections [optimizer] and [schedule] of the configuration of a training run."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from toynn.arguments import INT31_MAX, integer, not_negative, one_of, positive, real, shown
from toynn.documented_fields import documented
from toynn.errors import ConfigurationError, ConfigurationTypeError
from toynn.llm.options import MOMENT_TYPES
from toynn.model.weights import OPTIMIZERS

SCHEDULES = ("constant", "cosine", "wsd")
_FALL = re.compile(r"([0-9]{1,10})-([0-9]{1,10})", re.ASCII)
_MOST_DOUBLINGS = 16


@dataclass(frozen=True)
class OptimizerArgs:
    """AdamW with bias correction and decoupled weight decay, or Muon. See also `toynn.training.optimizer`.

    kind: "adamw"; "muon": the matrices of the layers are updated by Muon, and all other weights by AdamW. The schedule
    multiplies lr and muon_lr by the same factor. None: the default, which depends on the start of the run.
    """

    lr: float | None = documented(
        None,
        "highest learning rate of the schedule, with muon only for the weights that AdamW updates. Default: "
        "1.28 / model.d_model, at most 0.0133, with muon; 0.4 / model.d_model, at most 0.01, with adamw or for an "
        "adapter; 0.04 / model.d_model, at most 0.001, if all weights of an existing model are trained; for dpo 3e-5, "
        "for dpo with an adapter 1e-5",
    )
    beta1: float = documented(0.9, "decay rate of the running mean of the gradients")
    beta2: float = documented(0.95, "decay rate of the running mean of the squared gradients")
    eps: float = documented(1e-8, "constant added to the denominator of the update")
    weight_decay: float = documented(0.1, "weight decay, applied to matrices but not to norms and biases")
    clip: float = documented(
        1.0, "limit of the global gradient norm; larger gradients are scaled down to this limit; 0: no limit"
    )
    kind: str | None = documented(
        None,
        "optimizer of the matrices in the layers: muon or adamw. Default: muon for random initial weights, adamw for "
        "existing models and adapters",
    )
    muon_lr: float = documented(0.02, "muon: highest learning rate of the matrices in the layers")
    muon_momentum: float = documented(0.95, "muon: decay rate of the running mean of the gradients")
    muon_weight_decay: float = documented(0.01, "muon: weight decay of the matrices in the layers")
    moments: str = documented(
        "f32",
        "type of the stored moments of matrices: f32, or bf16 with stochastic rounding, which needs half the memory",
    )
    ema: float = documented(
        0.0, "decay rate of a running mean of the weights; this mean is evaluated and saved as the model; 0: no mean"
    )

    def __post_init__(self) -> None:
        if self.lr is not None:
            object.__setattr__(self, "lr", not_negative("optimizer.lr", self.lr))
        if self.kind is not None:
            one_of("optimizer.kind", self.kind, OPTIMIZERS)
        one_of("optimizer.moments", self.moments, MOMENT_TYPES)
        for name in ("weight_decay", "clip", "muon_lr", "muon_weight_decay"):
            object.__setattr__(self, name, not_negative(f"optimizer.{name}", getattr(self, name)))
        for name in ("beta1", "beta2", "muon_momentum", "ema"):
            value = real(f"optimizer.{name}", getattr(self, name), lambda x: 0 <= x < 1, "at least 0 and below 1")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "eps", positive("optimizer.eps", self.eps))


@dataclass(frozen=True)
class ScheduleArgs:
    """The learning rate of each step, see `toynn.training.schedule.learning_rate`, and the batches of each step.

    kind: "constant"; "cosine": falls to min_ratio * lr at the last step; "wsd": constant, then falls linearly to
        min_ratio * lr during the last `decay` steps.
    warmup: number of first steps, during which the rate rises. None: 100 steps, or a tenth of all steps if this is
        less.
    falls: the decisions of a run with train.seconds; see `toynn.training.time_budget`. In the last
        entry "a-b", b is the last step of the run.
    double_batch: after each of these steps, the number of batches of a step doubles.
    """

    kind: str = documented("cosine", "shape of the schedule: constant, cosine or wsd")
    warmup: int | None = documented(None, "number of first steps, during which the learning rate rises from 0")
    decay: int = documented(0, "wsd: number of last steps, during which the learning rate falls")
    min_ratio: float = documented(0.1, "cosine, wsd: learning rate of the last step, divided by lr")
    falls: tuple[str, ...] = documented(
        (), 'wsd: written by runs with train.seconds; "a-b" lets the learning rate fall from step a to step b'
    )
    double_batch: tuple[int, ...] = documented(
        (),
        "after each of these steps, the number of batches of a step (train.accumulate) doubles; []: the number "
        "never doubles",
    )

    def __post_init__(self) -> None:
        one_of("schedule.kind", self.kind, SCHEDULES)
        if self.warmup is not None:
            object.__setattr__(self, "warmup", integer("schedule.warmup", self.warmup, 0))
        object.__setattr__(self, "decay", integer("schedule.decay", self.decay, 0))
        ratio = real("schedule.min_ratio", self.min_ratio, lambda x: 0 <= x <= 1, "from 0 to 1")
        object.__setattr__(self, "min_ratio", ratio)
        object.__setattr__(self, "double_batch", self._checked_doublings())
        self._check_falls()

    def _check_falls(self) -> None:
        falls: object = self.falls
        if not isinstance(falls, list | tuple) or not all(isinstance(one, str) for one in falls):
            raise ConfigurationTypeError(f"schedule.falls must be a list of texts, got {shown(falls)}")
        object.__setattr__(self, "falls", tuple(falls))
        after = 0
        for one in falls:
            match = _FALL.fullmatch(one)
            begin, end = (int(match[1]), int(match[2])) if match else (0, 0)
            if not after <= begin < end <= INT31_MAX:
                raise ConfigurationError(
                    'schedule.falls must contain texts like "800-1000" (a first step and a larger last step) with '
                    f"rising first steps, got {one!r:.40}"
                )
            after = begin + 1
        if falls and self.kind != "wsd":
            raise ConfigurationError(f'schedule.falls needs schedule.kind = "wsd", got {self.kind!r}')
        if falls and self.decay:
            raise ConfigurationError(
                f"schedule.falls and schedule.decay = {self.decay} cannot both be given; leave out one of these keys"
            )

    @property
    def steps_of_falls(self) -> list[tuple[int, int]]:
        """The steps (a, b) of each entry of falls."""
        return [(int(begin), int(end)) for begin, _, end in (one.partition("-") for one in self.falls)]

    def _checked_doublings(self) -> tuple[int, ...]:
        given: object = self.double_batch
        if not isinstance(given, list | tuple):
            raise ConfigurationTypeError(f"schedule.double_batch must be a list of steps, got {shown(given)}")
        steps = tuple(integer(f"schedule.double_batch[{i}]", one, 1) for i, one in enumerate(given))
        if list(steps) != sorted(set(steps)):
            raise ConfigurationError(
                f"schedule.double_batch must be a list of steps in rising order, got {list(steps)}"
            )
        if len(steps) > _MOST_DOUBLINGS:
            raise ConfigurationError(
                f"schedule.double_batch must have at most {_MOST_DOUBLINGS} steps, got {len(steps)}"
            )
        return steps

    def growth(self, step: int) -> int:
        """Return the factor by which the number of batches has grown in a step, counted from 1.

        Raises TinyNNValueError or TinyNNTypeError if `step` is not the number of a step.
        """
        step = integer("step", step, 0)
        return 1 << sum(after < step for after in self.double_batch)

    def warmup_of(self, steps: int) -> int:
        """Return the number of warm-up steps in a run of `steps` steps.

        Raises TinyNNValueError or TinyNNTypeError if `steps` is not a number of steps.
        """
        steps = integer("steps", steps, 1)
        return min(100, steps // 10) if self.warmup is None else self.warmup


# The keys that a resumed run can change on request (`TrainArgs.changes`). Four keys cannot be changed: optimizer.kind,
# optimizer.moments and optimizer.ema determine which moments a checkpoint has, and schedule.double_batch determines
# which windows the run has read.
CHANGEABLE = tuple(
    f"{section}.{one.name}"
    for section, kind in (("optimizer", OptimizerArgs), ("schedule", ScheduleArgs))
    for one in fields(kind)
    if f"{section}.{one.name}" not in ("optimizer.kind", "optimizer.moments", "optimizer.ema", "schedule.double_batch")
)

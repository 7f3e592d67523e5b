"""The configuration of a training run. Each section checks its values; errors name the key as in the TOML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path

from toynn.arguments import INT31_MAX, boolean, instance_of, integer, not_negative, one_of, positive, real
from toynn.documented_fields import documented
from toynn.errors import ConfigurationError, TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.model.shape import ModelShape
from toynn.storage.checkpoint import Checkpoint
from toynn.wording import spelled

SCHEDULES = ("constant", "cosine", "wsd")
DEFAULT_STEPS = 1000


@dataclass(frozen=True)
class ModelArgs(ModelShape):
    """The shape of a new model, whose vocabulary is the data's: see `ModelShape` for the fields.

    vocab: only a placeholder; `shape` sets it. head_dim: 0 stays 0 until then.
    init_scale: a factor of the initial weights' standard deviation. It is not part of the shape.
    """

    vocab: int = field(default=1, init=False, repr=False, compare=False)
    d_model: int = 128
    n_heads: int = 4
    n_kv: int = 4
    d_ff: int = 384
    n_layers: int = 4
    ctx: int = 256
    rope_base: float = 10000.0
    rms_eps: float = 1e-5
    init_scale: float = documented(1.0, "factor of the initial weights' standard deviation")

    def __post_init__(self) -> None:
        derived = integer("model.head_dim", self.head_dim, 0) == 0
        object.__setattr__(self, "init_scale", positive("model.init_scale", self.init_scale))
        try:
            super().__post_init__()
        except TinyNNTypeError as error:
            raise TinyNNTypeError(f"model.{error}") from None
        except TinyNNValueError as error:
            raise TinyNNValueError(f"model.{error}") from None
        if derived:
            object.__setattr__(self, "head_dim", 0)

    def shape(self, vocab: int) -> ModelShape:
        """Return the model's shape with that vocabulary."""
        values = {one.name: getattr(self, one.name) for one in fields(ModelShape)}
        return ModelShape(**{**values, "vocab": vocab})

    @classmethod
    def of_shape(cls, shape: ModelShape) -> ModelArgs:
        """Return the arguments that describe an existing model. Raises TinyNNTypeError."""
        instance_of("shape", shape, ModelShape)
        return cls(**{one.name: getattr(shape, one.name) for one in fields(shape) if one.name != "vocab"})

    def first_difference(self, other: ModelArgs) -> str | None:
        """Return the first key in which two shapes differ, or None if they are equal.

        init_scale is not compared, and a head_dim that is derived equals the same one that is given.
        """
        instance_of("other", other, ModelArgs)
        one, two = self.shape(vocab=1), other.shape(vocab=1)
        return next((key.name for key in fields(one) if getattr(one, key.name) != getattr(two, key.name)), None)


@dataclass(frozen=True)
class StepArgs:
    """The number of steps, and the data of a step: batch * accumulate windows of t_seq tokens.

    accumulate: the memory is that of one batch, the gradient is the mean over all of them. epochs: None, or the number
    of passes over the training tokens; `steps` then keeps its default, and is computed when the data is known.
    """

    steps: int = documented(DEFAULT_STEPS, "optimizer steps of the whole run")
    t_seq: int = documented(0, "tokens per window; 0: the context length of the model, with --init at most 1024")
    batch: int = documented(8, "windows computed together")
    accumulate: int = documented(1, "batches per optimizer step")
    seed: int = documented(0, "seed of the initial weights and the data order")
    epochs: float | None = documented(None, "passes over the training tokens, instead of train.steps")

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("t_seq", 0), ("batch", 1), ("accumulate", 1), ("seed", 0)):
            object.__setattr__(self, name, integer(f"train.{name}", getattr(self, name), least))
        if self.epochs is not None:
            object.__setattr__(self, "epochs", positive("train.epochs", self.epochs))
            if self.steps != DEFAULT_STEPS:
                raise ConfigurationError(
                    f"train.steps = {self.steps} and train.epochs = {self.epochs} cannot both be given; leave one out"
                )


@dataclass(frozen=True)
class OptimizerArgs:
    """AdamW with bias correction and decoupled weight decay. `toynn.training.optimizer` applies these settings."""

    lr: float = documented(3e-3, "highest learning rate of the schedule")
    beta1: float = documented(0.9, "decay of the mean of the gradients")
    beta2: float = documented(0.95, "decay of the mean of the squared gradients")
    eps: float = documented(1e-8, "added to the denominator of the update")
    weight_decay: float = documented(0.1, "weight decay of matrices, not of norms and biases")
    clip: float = documented(1.0, "limit of the norm of all gradients; 0: no limit")

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "clip"):
            object.__setattr__(self, name, not_negative(f"optimizer.{name}", getattr(self, name)))
        for name in ("beta1", "beta2"):
            value = real(f"optimizer.{name}", getattr(self, name), lambda x: 0 <= x < 1, "at least 0 and below 1")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "eps", positive("optimizer.eps", self.eps))


@dataclass(frozen=True)
class ScheduleArgs:
    """The learning rate of each step; see `toynn.training.schedule.learning_rate`.

    kind: "constant", "cosine" (falls to min_ratio * lr at the last step) or "wsd" (constant, then falls linearly over
    the last `decay` steps). warmup: the first steps, in which the rate rises; None: 100 steps, or a tenth of all steps
    if that is less.
    """

    kind: str = documented("cosine", "shape of the schedule: constant, cosine or wsd")
    warmup: int | None = documented(None, "first steps, in which the learning rate rises from 0")
    decay: int = documented(0, "wsd: last steps, in which the learning rate falls")
    min_ratio: float = documented(0.1, "cosine, wsd: learning rate of the last step / lr")

    def __post_init__(self) -> None:
        one_of("schedule.kind", self.kind, SCHEDULES)
        if self.warmup is not None:
            object.__setattr__(self, "warmup", integer("schedule.warmup", self.warmup, 0))
        object.__setattr__(self, "decay", integer("schedule.decay", self.decay, 0))
        ratio = real("schedule.min_ratio", self.min_ratio, lambda x: 0 <= x <= 1, "from 0 to 1")
        object.__setattr__(self, "min_ratio", ratio)

    def warmup_of(self, steps: int) -> int:
        """Return the number of warm-up steps in a run of `steps` steps. Raises TinyNNValueError, TinyNNTypeError."""
        steps = integer("steps", steps, 1)
        return min(100, steps // 10) if self.warmup is None else self.warmup


@dataclass(frozen=True)
class EvaluationArgs:
    """Evaluations on the validation split; there is always one at the end.

    An evaluation is an improvement if its loss is lower than the best one by more than min_delta. patience: evaluations
    in a row without improvement that end the run.
    """

    every: int = documented(100, "steps between evaluations; 0: only at the end")
    windows: int = documented(0, "windows of the validation split to evaluate; 0: all")
    patience: int = documented(0, "stop after this many evaluations without improvement; 0: never")
    min_delta: float = documented(0.0, "smallest decrease of the loss that is an improvement")

    def __post_init__(self) -> None:
        for name in ("every", "windows", "patience"):
            object.__setattr__(self, name, integer(f"evaluation.{name}", getattr(self, name), 0))
        object.__setattr__(self, "min_delta", not_negative("evaluation.min_delta", self.min_delta))


@dataclass(frozen=True)
class CheckpointArgs:
    """When checkpoints are written, and which are kept; there is always one at the end.

    keep_best: a checkpoint is also written after each evaluation with the best loss so far.
    """

    every: int = documented(500, "steps between checkpoints; 0: only at the end")
    keep_last: int = documented(2, "number of newest checkpoints to keep")
    keep_best: bool = documented(True, "also keep the best checkpoint (validation loss)")

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", integer("checkpoint.every", self.every, 0))
        object.__setattr__(self, "keep_last", integer("checkpoint.keep_last", self.keep_last, 1))
        object.__setattr__(self, "keep_best", boolean("checkpoint.keep_best", self.keep_best))


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a run: the sections of run.toml.

    With the data and the initial weights it determines every bit of the result. model: None for `ModelArgs()`, or for
    the shape of the checkpoint that training starts from.
    """

    model: ModelArgs | None = None
    train: StepArgs = StepArgs()
    optimizer: OptimizerArgs = OptimizerArgs()
    schedule: ScheduleArgs = ScheduleArgs()
    evaluation: EvaluationArgs = EvaluationArgs()
    checkpoint: CheckpointArgs = CheckpointArgs()

    def __post_init__(self) -> None:
        kinds = {
            "train": StepArgs,
            "optimizer": OptimizerArgs,
            "schedule": ScheduleArgs,
            "evaluation": EvaluationArgs,
            "checkpoint": CheckpointArgs,
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise TinyNNTypeError(f"{name} must be {kind.__name__}, got {type(getattr(self, name)).__name__}")
        if self.model is not None and not isinstance(self.model, ModelArgs):
            raise TinyNNTypeError(f"model must be ModelArgs or None, got {type(self.model).__name__}")
        if self.train.epochs is not None:
            return  # the number of steps is not known yet
        warmup, decay = self.schedule.warmup_of(self.train.steps), self.schedule.decay
        if self.schedule.kind == "wsd" and warmup + decay > self.train.steps:
            raise ConfigurationError(
                f"schedule.warmup + schedule.decay must be at most train.steps = {self.train.steps}, "
                f"got {warmup} + {decay}"
            )

    def explicit(self, model: ModelArgs | None = None) -> TrainConfig:
        """Return a copy with the shape of the model (default: `ModelArgs()`) and the warm-up steps.

        With train.epochs, the warm-up steps are not known before `with_steps`.
        """
        if model is not None:
            instance_of("model", model, ModelArgs)
        schedule = self.schedule
        if self.train.epochs is None:
            schedule = replace(schedule, warmup=schedule.warmup_of(self.train.steps))
        return replace(self, model=self.model or model or ModelArgs(), schedule=schedule)

    def with_steps(self, windows_per_epoch: int) -> TrainConfig:
        """Return a copy with train.steps instead of train.epochs, rounded up to whole steps.

        Raises ConfigurationError if that is more steps than a run can have.
        """
        if self.train.epochs is None:
            return self
        windows = Fraction(repr(self.train.epochs)) * windows_per_epoch
        steps = max(math.ceil(windows / (self.train.batch * self.train.accumulate)), 1)
        if steps > INT31_MAX:
            raise ConfigurationError(
                f"train.epochs = {self.train.epochs} is too large: it is {steps} steps, a run can have {INT31_MAX}"
            )
        return replace(self, train=replace(self.train, steps=steps, epochs=None))

    def check_warmup(self) -> None:
        """Raise ConfigurationError if the warm-up takes all steps, so that the learning rate never decreases.

        This is checked only when a run starts: runs of older versions may have such a configuration and be resumed.
        """
        warmup = self.schedule.warmup_of(self.train.steps)
        if warmup >= self.train.steps:
            raise ConfigurationError(
                f"schedule.warmup must be below train.steps = {self.train.steps}, got {warmup}: the learning rate "
                "would never decrease"
            )


# The keys that a resumed run may change on request: all that decide how a gradient becomes a step.
CHANGEABLE = tuple(
    f"{section}.{one.name}"
    for section, kind in (("optimizer", OptimizerArgs), ("schedule", ScheduleArgs))
    for one in fields(kind)
)


@dataclass(frozen=True)
class TrainArgs(Initialised):
    """The arguments of `toynn.train`.

    data: a data folder made by `toynn prepare`.
    out: the folder of the run; it is made if needed.
    config: None for the defaults, or for the configuration of the run that is resumed.
    init: a run or checkpoint whose weights training starts from, as a path or in memory; None for random weights.
    resume: continue the run in `out` from its latest checkpoint. A given config may differ from that of the run only in
        train.steps, evaluation and checkpoint, and in the keys of `changes`.
    changes: keys of optimizer and schedule, like "optimizer.lr", that a resumed run takes from config. The bytes of the
        run then differ from those of a run that never stopped.
    resume_from: the name of the checkpoint to resume from instead of the latest one ("step-00000070"). It becomes the
        latest; newer checkpoints stay until training reaches their step again.
    n_threads: default: the cores this process may use. The results do not depend on it.
    """

    data: Path
    out: Path
    config: TrainConfig | None = None
    init: Path | Checkpoint | None = None
    resume: bool = False
    n_threads: int | None = None
    resume_from: str | None = None
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("data", "out", "init"):
            value = getattr(self, name)
            if name == "init" and isinstance(value, Checkpoint | None):
                continue
            if not isinstance(value, str | Path):
                raise TinyNNTypeError(f"{name} must be a path, got {type(value).__name__}")
            object.__setattr__(self, name, Path(value))
        if self.config is not None and not isinstance(self.config, TrainConfig):
            raise TinyNNTypeError(f"config must be a TrainConfig or None, got {type(self.config).__name__}")
        object.__setattr__(self, "resume", boolean("resume", self.resume))
        if self.resume and self.init is not None:
            raise TinyNNValueError(
                f"{spelled('init', '--init')} and {spelled('resume', '--resume')} cannot be combined: a resumed run "
                "starts from its own checkpoint"
            )
        if not isinstance(self.resume_from, str | None):
            raise TinyNNTypeError(f"resume_from must be a checkpoint name, got {type(self.resume_from).__name__}")
        if self.resume_from is not None and not self.resume:
            name, needed = spelled("resume_from=", "--from "), spelled("resume=True", "--resume")
            raise TinyNNValueError(f"{name}{self.resume_from!r:.60} needs {needed}")
        object.__setattr__(self, "changes", self._checked_changes())
        if self.n_threads is not None:
            object.__setattr__(self, "n_threads", integer("n_threads", self.n_threads, 1))

    def _checked_changes(self) -> tuple[str, ...]:
        changes: object = self.changes
        if not isinstance(changes, tuple | list):
            raise TinyNNTypeError(f"changes must be a tuple of keys, got {type(changes).__name__}")
        for i, key in enumerate(changes):
            one_of(f"changes[{i}]", key, CHANGEABLE)
        if changes and (self.config is None or not self.resume):
            raise TinyNNValueError(f"changes = {list(changes)!r:.80} needs resume=True and a config with new values")
        return tuple(changes)

"""How a model is trained, as values: each section checks itself, naming the key as the TOML file spells it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from toynn.arguments import boolean, integer, not_negative, one_of, positive, real
from toynn.documented_fields import documented
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.shape import ModelShape
from toynn.storage.checkpoint import Checkpoint

SCHEDULES = ("constant", "cosine", "wsd")


@dataclass(frozen=True)
class ModelArgs(ModelShape):
    """The shape of a new model, whose vocabulary is the data's: see `ModelShape` for the fields.

    vocab: only a placeholder; `shape` sets it. head_dim: 0 stays 0 until then.
    init_scale: a factor of the initial weights' standard deviation. It is no part of the shape.
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
        """Return the arguments that describe an existing model."""
        return cls(**{one.name: getattr(shape, one.name) for one in fields(shape) if one.name != "vocab"})

    def first_difference(self, other: ModelArgs) -> str | None:
        """Return the first key in which two shapes differ, or None if they are equal.

        init_scale is not compared, and a head_dim that is derived equals the same one that is given.
        """
        one, two = self.shape(vocab=1), other.shape(vocab=1)
        return next((key.name for key in fields(one) if getattr(one, key.name) != getattr(two, key.name)), None)


@dataclass(frozen=True)
class StepArgs:
    """What a step reads, and how many there are. A step reads batch * accumulate windows of t_seq tokens.

    accumulate: memory for one batch, the effect of all.
    """

    steps: int = documented(1000, "of the optimizer, in all")
    t_seq: int = documented(0, "tokens of a window; 0: the model's ctx")
    batch: int = documented(8, "windows computed together")
    accumulate: int = documented(1, "batches whose gradients are added for a step")
    seed: int = documented(0, "of the random start and the data's order")

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("t_seq", 0), ("batch", 1), ("accumulate", 1), ("seed", 0)):
            object.__setattr__(self, name, integer(f"train.{name}", getattr(self, name), least))


@dataclass(frozen=True)
class OptimizerArgs:
    """Bias-corrected AdamW; weight_decay is decoupled."""

    lr: float = documented(3e-3, "learning rate, at the schedule's height")
    beta1: float = documented(0.9, "decay of the gradients' mean")
    beta2: float = documented(0.95, "decay of their squares' mean")
    eps: float = documented(1e-8, "added under the fraction")
    weight_decay: float = documented(0.1, "but norms and biases are left alone")
    clip: float = documented(1.0, "largest norm of all gradients; 0: no limit")

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "clip"):
            object.__setattr__(self, name, not_negative(f"optimizer.{name}", getattr(self, name)))
        for name in ("beta1", "beta2"):
            value = real(f"optimizer.{name}", getattr(self, name), lambda x: 0 <= x < 1, "at least 0 and below 1")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "eps", positive("optimizer.eps", self.eps))


@dataclass(frozen=True)
class ScheduleArgs:
    """The learning rate's course; see `toynn.training.schedule.learning_rate`.

    kind: "constant", "cosine" (down to min_ratio of lr at the last step) or "wsd" (stable, then down in a line over the
    last `decay` steps). warmup: in front of any of them; None: 100, or a tenth of the steps where that is less.
    """

    kind: str = documented("cosine", "constant, cosine or wsd")
    warmup: int | None = documented(None, "steps of a line up from 0, at the start")
    decay: int = documented(0, "wsd: steps of the line down, at the end")
    min_ratio: float = documented(0.1, "cosine, wsd: the last step's rate / lr")

    def __post_init__(self) -> None:
        one_of("schedule.kind", self.kind, SCHEDULES)
        if self.warmup is not None:
            object.__setattr__(self, "warmup", integer("schedule.warmup", self.warmup, 0))
        object.__setattr__(self, "decay", integer("schedule.decay", self.decay, 0))
        ratio = real("schedule.min_ratio", self.min_ratio, lambda x: 0 <= x <= 1, "from 0 to 1")
        object.__setattr__(self, "min_ratio", ratio)

    def warmup_of(self, steps: int) -> int:
        """Steps of the line up in a training of so many."""
        return min(100, steps // 10) if self.warmup is None else self.warmup


@dataclass(frozen=True)
class EvaluationArgs:
    """Evaluations on the validation split, one at the end among them.

    patience: evaluations in a row without a loss lower by min_delta than the best, after which training ends.
    """

    every: int = documented(100, "steps between evaluations; 0: at the end only")
    windows: int = documented(0, "windows of the validation text; 0: all")
    patience: int = documented(0, "bad ones in a row that end the run; 0: never")
    min_delta: float = documented(0.0, "how much lower than the best is better")

    def __post_init__(self) -> None:
        for name in ("every", "windows", "patience"):
            object.__setattr__(self, name, integer(f"evaluation.{name}", getattr(self, name), 0))
        object.__setattr__(self, "min_delta", not_negative("evaluation.min_delta", self.min_delta))


@dataclass(frozen=True)
class CheckpointArgs:
    """When a checkpoint is written, one at the end among them, and which stay.

    keep_best: an evaluation that is the best so far is then saved.
    """

    every: int = documented(500, "steps between checkpoints; 0: at the end only")
    keep_last: int = documented(2, "how many of the last stay")
    keep_best: bool = documented(True, "the one with the lowest evaluation stays too")

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", integer("checkpoint.every", self.every, 0))
        object.__setattr__(self, "keep_last", integer("checkpoint.keep_last", self.keep_last, 1))
        object.__setattr__(self, "keep_best", boolean("checkpoint.keep_best", self.keep_best))


@dataclass(frozen=True)
class TrainConfig:
    """All that decides the bits of a run, beside its data and what it starts from. The sections of run.toml.

    model: None takes `ModelArgs()`, or the shape of the checkpoint that training starts from.
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
        warmup, decay = self.schedule.warmup_of(self.train.steps), self.schedule.decay
        if self.schedule.kind == "wsd" and warmup + decay > self.train.steps:
            raise TinyNNValueError(
                f"schedule.warmup + schedule.decay = {warmup + decay} are more than train.steps = {self.train.steps}"
            )

    def explicit(self, model: ModelArgs | None = None) -> TrainConfig:
        """The same with nothing left open: the model's shape (default: `ModelArgs()`), and the steps of warm-up."""
        schedule = replace(self.schedule, warmup=self.schedule.warmup_of(self.train.steps))
        return replace(self, model=self.model or model or ModelArgs(), schedule=schedule)

    def check_warmup(self) -> None:
        """Raises TinyNNValueError where the rate would still rise at the last step, and never reach lr before.

        Not part of the checks above: runs of older versions may say so, and can be read and gone on with.
        """
        warmup = self.schedule.warmup_of(self.train.steps)
        if warmup >= self.train.steps:
            raise TinyNNValueError(
                f"schedule.warmup must be below train.steps = {self.train.steps}, got {warmup}: the learning rate "
                "would never come down"
            )


@dataclass(frozen=True)
class TrainArgs:
    """One call of `toynn.train`.

    data: a data folder of `toynn prepare`. out: the run's folder, made where there is none.
    init: a run or checkpoint whose weights training starts from, instead of at random; or such a model itself.
    resume: go on with the run that `out` holds, from its latest checkpoint. config then may differ from the run's own
    in train.steps, evaluation and checkpoint only; None takes the run's own.
    resume_from: go on from this one of its checkpoints instead, by name ("step-00000070"), where the latest is damaged
    or not wanted. It is the latest from then on; those after it stay until the training comes by them again.
    n_threads: default: the cores this process may use; results never depend on it.
    """

    data: Path
    out: Path
    config: TrainConfig | None = None
    init: Path | Checkpoint | None = None
    resume: bool = False
    n_threads: int | None = None
    resume_from: str | None = None

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
            raise TinyNNValueError("init: a run that is resumed starts from its own checkpoint; drop one of the two")
        if not isinstance(self.resume_from, str | None):
            raise TinyNNTypeError(f"resume_from must be a checkpoint's name, got {type(self.resume_from).__name__}")
        if self.resume_from is not None and not self.resume:
            raise TinyNNValueError(f"resume_from = {self.resume_from!r:.60} needs resume: it says where to go on from")
        if self.n_threads is not None:
            object.__setattr__(self, "n_threads", integer("n_threads", self.n_threads, 1))

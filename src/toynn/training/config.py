"""How a model is trained, as values: each section checks itself, naming the key as the TOML file spells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from toynn._checks import flag, not_negative, one_of, positive, real, whole
from toynn.config import RopeScaling, SmolLM2Config
from toynn.errors import TinyNNTypeError, TinyNNValueError

SCHEDULES = ("constant", "cosine", "wsd")


@dataclass(frozen=True)
class ModelArgs:
    """The shape of a new model; its vocabulary is the data's. For the fields see `SmolLM2Config`.

    untied: a head of its own. qkv_bias: biases on q, k and v. init_scale: factor of the spread of the random start.
    """

    d_model: int = 128
    n_heads: int = 4
    n_kv: int = 4
    d_ff: int = 384
    n_layers: int = 4
    ctx: int = 256
    rope_base: float = 10000.0
    rms_eps: float = 1e-5
    head_dim: int = 0
    donor_d_in: int = 0
    untied: bool = False
    qkv_bias: bool = False
    init_scale: float = 1.0
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)

    def __post_init__(self) -> None:
        object.__setattr__(self, "init_scale", positive("model.init_scale", self.init_scale))
        for name in ("untied", "qkv_bias"):
            object.__setattr__(self, name, flag(f"model.{name}", getattr(self, name)))
        try:
            self.config(vocab=2)  # its checks, early
        except TinyNNTypeError as error:
            raise TinyNNTypeError(f"model.{error}") from None
        except TinyNNValueError as error:
            raise TinyNNValueError(f"model.{error}") from None
        if self.donor_d_in > 0 and not self.untied:
            raise TinyNNValueError(f"model.donor_d_in = {self.donor_d_in} needs model.untied = true")

    def config(self, vocab: int) -> SmolLM2Config:
        """The model's shape with that vocabulary."""
        return SmolLM2Config(
            vocab,
            self.d_model,
            self.n_heads,
            self.n_kv,
            self.d_ff,
            self.n_layers,
            self.ctx,
            self.rope_base,
            self.rms_eps,
            head_dim=self.head_dim,
            donor_d_in=self.donor_d_in,
            rope_scaling=self.rope_scaling,
        )


@dataclass(frozen=True)
class StepArgs:
    """steps: of the optimizer, in all. Each reads batch * accumulate windows of t_seq tokens (0: the model's ctx).

    accumulate: batches whose gradients are added before the weights move: memory for one, the effect of all.
    seed: of the random start and of the order of the data.
    """

    steps: int = 1000
    t_seq: int = 0
    batch: int = 8
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("t_seq", 0), ("batch", 1), ("accumulate", 1), ("seed", 0)):
            object.__setattr__(self, name, whole(f"train.{name}", getattr(self, name), least))


@dataclass(frozen=True)
class OptimizerArgs:
    """Bias-corrected AdamW; weight_decay is decoupled and leaves norms and biases alone.

    clip: the largest norm of all gradients together; 0: no limit.
    """

    lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0

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
    last `decay` steps). warmup: steps of a line up from 0, in front of any of them.
    """

    kind: str = "cosine"
    warmup: int = 100
    decay: int = 0
    min_ratio: float = 0.1

    def __post_init__(self) -> None:
        one_of("schedule.kind", self.kind, SCHEDULES)
        for name in ("warmup", "decay"):
            object.__setattr__(self, name, whole(f"schedule.{name}", getattr(self, name), 0))
        ratio = real("schedule.min_ratio", self.min_ratio, lambda x: 0 <= x <= 1, "from 0 to 1")
        object.__setattr__(self, "min_ratio", ratio)


@dataclass(frozen=True)
class EvaluationArgs:
    """every: steps between evaluations on the validation split, and one at the end; 0: at the end only.

    windows: how many of its windows, from its start; 0: all. patience: evaluations in a row without a loss lower by
    min_delta than the best, after which training ends; 0: never.
    """

    every: int = 100
    windows: int = 0
    patience: int = 0
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        for name in ("every", "windows", "patience"):
            object.__setattr__(self, name, whole(f"evaluation.{name}", getattr(self, name), 0))
        object.__setattr__(self, "min_delta", not_negative("evaluation.min_delta", self.min_delta))


@dataclass(frozen=True)
class CheckpointArgs:
    """every: steps between checkpoints, and one at the end; 0: at the end only. keep_last: how many stay.

    keep_best: the one with the lowest evaluation stays too; an evaluation that is the best so far is then saved.
    """

    every: int = 500
    keep_last: int = 2
    keep_best: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", whole("checkpoint.every", self.every, 0))
        object.__setattr__(self, "keep_last", whole("checkpoint.keep_last", self.keep_last, 1))
        object.__setattr__(self, "keep_best", flag("checkpoint.keep_best", self.keep_best))


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
        if self.schedule.kind == "wsd" and self.schedule.warmup + self.schedule.decay > self.train.steps:
            raise TinyNNValueError(
                f"schedule.warmup + schedule.decay = {self.schedule.warmup + self.schedule.decay} are more than "
                f"train.steps = {self.train.steps}"
            )


@dataclass(frozen=True)
class TrainArgs:
    """One call of `toynn.train`.

    data: a data folder of `toynn prepare`. out: the run's folder, made where there is none.
    init: a run or checkpoint whose weights training starts from, instead of at random.
    resume: go on with the run that `out` holds, from its latest checkpoint. config then may differ from the run's own
    in train.steps, evaluation and checkpoint only; None takes the run's own.
    n_threads: default: the cores this process may use; results never depend on it.
    """

    data: Path
    out: Path
    config: TrainConfig | None = None
    init: Path | None = None
    resume: bool = False
    n_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("data", "out", "init"):
            value = getattr(self, name)
            if name == "init" and value is None:
                continue
            if not isinstance(value, str | Path):
                raise TinyNNTypeError(f"{name} must be a path, got {type(value).__name__}")
            object.__setattr__(self, name, Path(value))
        if self.config is not None and not isinstance(self.config, TrainConfig):
            raise TinyNNTypeError(f"config must be a TrainConfig or None, got {type(self.config).__name__}")
        object.__setattr__(self, "resume", flag("resume", self.resume))
        if self.resume and self.init is not None:
            raise TinyNNValueError("init: a run that is resumed starts from its own checkpoint; drop one of the two")
        if self.n_threads is not None:
            object.__setattr__(self, "n_threads", whole("n_threads", self.n_threads, 1))

"""The configuration of a training run. Each section checks its values; an error names the key as in the TOML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from toynn.arguments import INT31_MAX, boolean, instance_of, integer, label, not_negative, one_of, positive, shown
from toynn.documented_fields import documented
from toynn.errors import ConfigurationError, ConfigurationTypeError, TinyNNTypeError
from toynn.llm.options import PRECISIONS
from toynn.llm.preference import Preference
from toynn.model.spread import EMBEDDING_STD
from toynn.training.adapter_config import AdapterArgs
from toynn.training.data_config import PACKED, DataArgs
from toynn.training.defaults import INIT_SCALE, MUON, learning_rate_of_start, optimizer_of_start
from toynn.training.model_config import ModelArgs
from toynn.training.optimizer_config import OptimizerArgs, ScheduleArgs
from toynn.training.preference_config import DPO, OBJECTIVES, PreferenceArgs

DEFAULT_STEPS = 1000
_MOST_PROMPTS, _LONGEST_PROMPT = 16, 1000  # the log stores the prompts of an evaluation in one line


@dataclass(frozen=True)
class StepArgs:
    """The number of steps, and the data of each step: batch * accumulate windows of t_seq tokens.

    accumulate: number of batches per step. The step uses the mean of their gradients and needs the memory of one batch.
    epochs: None, or the number of passes over the training tokens. `steps` must then have its default; the number of
        steps is computed when the data is known.
    seconds: 0, or the time in seconds after which the run ends. The last step is decided during the run, and then
        replaces `steps`; see `toynn.training.time_budget`.
    """

    steps: int = documented(DEFAULT_STEPS, "optimizer steps of the whole run")
    t_seq: int = documented(0, "tokens per window; 0: the context length of the model, but with --init at most 1024")
    batch: int = documented(8, "windows (for dpo: pairs) per batch, which are computed together")
    accumulate: int = documented(1, "batches per optimizer step")
    seed: int = documented(0, "random seed of the initial weights and of the data order")
    epochs: float | None = documented(None, "passes over the training tokens, instead of train.steps")
    seconds: float = documented(
        0.0, "time for the whole run in seconds; with a time, train.steps is only an estimate; 0: no limit"
    )
    only: tuple[str, ...] = documented(
        (),
        "train only these weights: groups like norms, attention, feed_forward, or names like blk.28.*; []: all weights",
    )
    objective: str = documented("next_token", "training objective: next_token, or dpo for preference pairs")
    recompute: bool = documented(
        False, "compute activations again in the backward pass: less memory, more time, the same results"
    )
    precision: str = documented(
        "f32", "type of the operands in products with weight matrices: f32, or bf16 (operands are rounded to bfloat16)"
    )
    z_loss: float = documented(
        0.0, "coefficient of the z-loss, which keeps the logits small; 1e-4 is usual; 0: no z-loss"
    )

    def __post_init__(self) -> None:
        if not isinstance(self.only, list | tuple) or not all(isinstance(one, str) for one in self.only):
            raise ConfigurationTypeError(f"train.only must be a list of names of weights, got {shown(self.only)}")
        object.__setattr__(self, "only", tuple(self.only))
        for name, least in (("steps", 1), ("t_seq", 0), ("batch", 1), ("accumulate", 1), ("seed", 0)):
            object.__setattr__(self, name, integer(f"train.{name}", getattr(self, name), least))
        object.__setattr__(self, "seconds", not_negative("train.seconds", self.seconds))
        object.__setattr__(self, "recompute", boolean("train.recompute", self.recompute))
        one_of("train.objective", self.objective, OBJECTIVES)
        one_of("train.precision", self.precision, PRECISIONS)
        object.__setattr__(self, "z_loss", not_negative("train.z_loss", self.z_loss))
        if self.epochs is not None:
            object.__setattr__(self, "epochs", positive("train.epochs", self.epochs))
            if self.steps != DEFAULT_STEPS:
                raise ConfigurationError(
                    f"train.steps = {self.steps} and train.epochs = {self.epochs} cannot both be given; leave out "
                    "one of these keys"
                )


@dataclass(frozen=True)
class EvaluationArgs:
    """Settings of evaluation on the validation split. The model is always evaluated after the last step.

    min_delta: an evaluation is an improvement if its loss is lower than the best loss by more than this value.
    patience: the run ends after this many evaluations in a row without an improvement.
    prompts: at each evaluation, the model continues these texts with sample_tokens tokens, sampled with
        sample_temperature and the seed 0.
    """

    every: int = documented(100, "steps between evaluations; 0: only at the end")
    windows: int = documented(0, "windows (for dpo: pairs) of the validation split to evaluate; 0: all")
    patience: int = documented(0, "end the run after this many evaluations in a row without improvement; 0: never")
    min_delta: float = documented(
        0.0, "an evaluation counts as an improvement if it lowers the best loss by more than this value"
    )
    prompts: tuple[str, ...] = documented((), "texts that the model continues at each evaluation, for the report")
    sample_tokens: int = documented(60, "largest number of tokens with which the model continues a prompt")
    sample_temperature: float = documented(0.8, "temperature with which the tokens after a prompt are sampled")

    def __post_init__(self) -> None:
        for name in ("every", "windows", "patience"):
            object.__setattr__(self, name, integer(f"evaluation.{name}", getattr(self, name), 0))
        for name in ("min_delta", "sample_temperature"):
            object.__setattr__(self, name, not_negative(f"evaluation.{name}", getattr(self, name)))
        object.__setattr__(self, "sample_tokens", integer("evaluation.sample_tokens", self.sample_tokens, 1, 1000))
        object.__setattr__(self, "prompts", self._checked_prompts())

    def _checked_prompts(self) -> tuple[str, ...]:
        prompts: object = self.prompts
        if not isinstance(prompts, tuple | list):
            raise TinyNNTypeError(f"evaluation.prompts must be a list of texts, got {type(prompts).__name__}")
        if len(prompts) > _MOST_PROMPTS:
            raise ConfigurationError(
                f"evaluation.prompts must contain at most {_MOST_PROMPTS} texts, got {len(prompts)}"
            )
        for i, prompt in enumerate(prompts):
            label(f"evaluation.prompts[{i}]", prompt)
            if len(prompt) > _LONGEST_PROMPT:
                raise ConfigurationError(
                    f"evaluation.prompts[{i}] must have at most {_LONGEST_PROMPT} characters, got {len(prompt)}"
                )
        return tuple(prompts)


@dataclass(frozen=True)
class CheckpointArgs:
    """Settings of writing and keeping checkpoints. A checkpoint is always written after the last step.

    keep_best: also write a checkpoint after each evaluation with the lowest loss so far, and keep the best one.
    """

    every: int = documented(500, "steps between checkpoints; 0: only at the end")
    keep_last: int = documented(2, "number of newest checkpoints to keep")
    keep_best: bool = documented(True, "also keep the checkpoint with the best validation loss")

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", integer("checkpoint.every", self.every, 0))
        object.__setattr__(self, "keep_last", integer("checkpoint.keep_last", self.keep_last, 1))
        object.__setattr__(self, "keep_best", boolean("checkpoint.keep_best", self.keep_best))


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a run. Its fields are the sections of run.toml.

    Configuration, data and initial weights determine every bit of the result. model: None for the shape of the model
    that training starts from, or for `ModelArgs()` if training starts from random weights.
    """

    model: ModelArgs | None = None
    train: StepArgs = StepArgs()
    optimizer: OptimizerArgs = OptimizerArgs()  # noqa: RUF009
    schedule: ScheduleArgs = ScheduleArgs()  # noqa: RUF009
    evaluation: EvaluationArgs = EvaluationArgs()
    checkpoint: CheckpointArgs = CheckpointArgs()
    adapter: AdapterArgs = AdapterArgs()  # noqa: RUF009 (the dataclass is frozen)
    data: DataArgs = DataArgs()  # noqa: RUF009
    dpo: PreferenceArgs = PreferenceArgs()  # noqa: RUF009 (the dataclass is frozen)

    def __post_init__(self) -> None:
        kinds = {
            "train": StepArgs,
            "optimizer": OptimizerArgs,
            "schedule": ScheduleArgs,
            "evaluation": EvaluationArgs,
            "checkpoint": CheckpointArgs,
            "adapter": AdapterArgs,
            "data": DataArgs,
            "dpo": PreferenceArgs,
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise TinyNNTypeError(f"{name} must be {kind.__name__}, got {type(getattr(self, name)).__name__}")
        if self.model is not None and not isinstance(self.model, ModelArgs):
            raise TinyNNTypeError(f"model must be ModelArgs or None, got {type(self.model).__name__}")
        if self.train.only and self.adapter.rank:
            raise ConfigurationError(
                f"train.only and adapter.rank = {self.adapter.rank} cannot be combined, because the base of an "
                "adapter is frozen; leave out one of these keys"
            )
        if self.train.objective != DPO and self.dpo != PreferenceArgs():
            raise ConfigurationError(
                f'the settings in the section dpo need train.objective = "{DPO}", got "{self.train.objective}"; '
                "leave out these settings"
            )
        if self.train.objective == DPO and self.train.z_loss > 0:
            raise ConfigurationError(
                f'train.z_loss must be 0 with train.objective = "{DPO}", got {self.train.z_loss:g}; leave out '
                "train.z_loss"
            )
        self._check_time()
        self._check_doublings()
        if self.train.epochs is not None or self.schedule.falls:
            return  # with epochs, the number of steps is not known yet; with falls, the rate can fall in the warm-up
        warmup, decay = self.schedule.warmup_of(self.train.steps), self.schedule.decay
        if self.schedule.kind == "wsd" and warmup + decay > self.train.steps:
            raise ConfigurationError(
                f"schedule.warmup + schedule.decay must be at most {self.train.steps} (the number of steps), "
                f"got {warmup} + {decay}"
            )

    def _check_time(self) -> None:
        schedule, steps, seconds = self.schedule, self.train.steps, self.train.seconds
        if schedule.falls and schedule.steps_of_falls[-1][1] != steps:
            raise ConfigurationError(
                f"the last entry of schedule.falls must end at train.steps = {steps}, got {schedule.falls[-1]!r}"
            )
        if not seconds:
            return
        if schedule.kind != "wsd":
            raise ConfigurationError(f'train.seconds needs schedule.kind = "wsd", got {schedule.kind!r}')
        if schedule.decay:
            raise ConfigurationError(
                f"train.seconds = {seconds:g} and schedule.decay = {schedule.decay} cannot both be given, because "
                "the learning rate falls when the time is nearly over; leave out one of these keys"
            )
        if self.train.epochs is not None:
            raise ConfigurationError(
                f"train.seconds = {seconds:g} and train.epochs = {self.train.epochs} cannot both be given; leave "
                "out one of these keys"
            )

    @property
    def last_step(self) -> int:
        """The last step of the run; the largest possible number if train.seconds is set and the last step is not
        decided.
        """
        return INT31_MAX if self.train.seconds and not self.schedule.falls else self.train.steps

    def _check_doublings(self) -> None:
        """Raise ConfigurationError for a key that cannot be used together with schedule.double_batch."""
        batching, doublings = self.data.batching, list(self.schedule.double_batch)
        wrong: dict[str, object] = {"train.epochs": self.train.epochs, "train.seconds": self.train.seconds}
        wrong |= {"data.batching": batching != PACKED and batching, "train.objective": self.preference and DPO}
        if doublings and (key := next((key for key, value in wrong.items() if value), None)):
            both = f"schedule.double_batch = {doublings} cannot be used with {key} = {wrong[key]!r}"
            raise ConfigurationError(f"{both}; leave one of these keys out")

    def explicit(self, model: ModelArgs | None = None) -> TrainConfig:
        """Return a copy with a value for each key that is None.

        model: the shape of the model that training starts from. None: the initial weights are random, and the shape is
        that of the configuration, or `ModelArgs()`. If train.epochs is set, schedule.warmup may still be None, because
        the number of steps is not known before `with_steps`. data.document_attention stays None, because its value
        depends on the data.
        """
        if model is not None:
            instance_of("model", model, ModelArgs)
        shape = self.model or model or ModelArgs()
        if shape.init_scale is None:
            shape = replace(shape, init_scale=INIT_SCALE)
        if shape.embedding_std is None:
            shape = replace(shape, embedding_std=EMBEDDING_STD)
        existing = model is not None
        kind, lr = self._optimizer_kind(existing=existing), self._lr(shape.d_model, existing=existing)
        optimizer = replace(self.optimizer, kind=kind, lr=lr)
        schedule, adapter = self.schedule, self.adapter
        if adapter.init_seed is None:
            adapter = replace(adapter, init_seed=self.train.seed)
        if self.train.epochs is None:
            schedule = replace(schedule, warmup=schedule.warmup_of(self.train.steps))
        return replace(self, model=shape, schedule=schedule, optimizer=optimizer, adapter=adapter)

    @property
    def lr(self) -> float:
        """The highest learning rate of the schedule: optimizer.lr, or its default for random initial weights."""
        return self._lr((self.model or ModelArgs()).d_model, existing=False)

    def _lr(self, d_model: int, *, existing: bool) -> float:
        if self.optimizer.lr is not None:
            return self.optimizer.lr
        return learning_rate_of_start(
            d_model,
            existing=existing,
            adapter=self.adapter.rank > 0,
            preference=self.train.objective == DPO,
            muon=self._optimizer_kind(existing=existing) == MUON,
        )

    @property
    def optimizer_kind(self) -> str:
        """The optimizer of the matrices in the layers: optimizer.kind, or its default for random initial weights."""
        return self._optimizer_kind(existing=False)

    def _optimizer_kind(self, *, existing: bool) -> str:
        return self.optimizer.kind or optimizer_of_start(existing=existing, adapter=self.adapter.rank > 0)

    @property
    def preference(self) -> Preference | None:
        """The loss of preference pairs, or None if the objective is the next token."""
        return self.dpo.preference() if self.train.objective == DPO else None

    @property
    def windows_of_batch(self) -> int:
        """The number of windows that are computed together: a preference pair has two."""
        return self.train.batch * (2 if self.train.objective == DPO else 1)

    @property
    def windows_of_step(self) -> int:
        """The number of windows, or preference pairs, of an optimizer step before the batch has grown."""
        return self.train.batch * self.train.accumulate

    def batches_of(self, step: int) -> int:
        """Return the number of batches of a step, counted from 1.

        Raises TinyNNValueError or TinyNNTypeError if `step` is not the number of a step.
        """
        return self.train.accumulate * self.schedule.growth(step)

    def windows_before(self, steps: int) -> int:
        """Return the number of windows or pairs of the first steps.

        Raises TinyNNValueError or TinyNNTypeError if `steps` is not a number of steps.
        """
        steps, schedule = integer("steps", steps, 0), self.schedule
        growing = sum((steps - after) * schedule.growth(after) for after in schedule.double_batch if after < steps)
        return (steps + growing) * self.windows_of_step

    def with_steps(self, windows_per_epoch: int) -> TrainConfig:
        """Return a copy with train.steps instead of train.epochs. The number of steps is rounded up.

        Raises ConfigurationError if this is more steps than a run can have.
        """
        if self.train.epochs is None:
            return self
        windows = Fraction(repr(self.train.epochs)) * windows_per_epoch
        steps = max(math.ceil(windows / self.windows_of_step), 1)
        if steps > INT31_MAX:
            raise ConfigurationError(
                f"train.epochs = {self.train.epochs} is too large: a run can have at most {INT31_MAX} steps, but these "
                f"epochs would have {steps}"
            )
        return replace(self, train=replace(self.train, steps=steps, epochs=None))

    def check_warmup(self) -> None:
        """Raise ConfigurationError if all steps are warm-up steps, so that the learning rate never decreases.

        This is not checked in `__post_init__`, because it must be possible to resume runs of older versions that have
        such a configuration.
        """
        warmup = self.schedule.warmup_of(self.train.steps)
        if warmup >= self.train.steps and not self.schedule.falls:
            raise ConfigurationError(
                f"schedule.warmup must be below {self.train.steps} (the number of steps), got {warmup}; otherwise the "
                "learning rate would never decrease"
            )

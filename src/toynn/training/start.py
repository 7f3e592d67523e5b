"""Where a run starts: with random weights, with the weights of another model, or at a checkpoint of the run itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toynn.arguments import INT31_MAX
from toynn.data import DataFolder, DataMeta
from toynn.data.windows import windows_per_epoch
from toynn.errors import ConfigurationError, FileFormatError, TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.model.shape import ModelShape
from toynn.storage.checkpoint import Checkpoint, RunFolder, TrainingState, load_checkpoint
from toynn.storage.checkpoint.meta import META, DataIdentity
from toynn.text.encoding_rules import same_encoding
from toynn.training.config import CHANGEABLE, ModelArgs, TrainArgs, TrainConfig
from toynn.training.optimizer import Optimizer
from toynn.training.special_tokens import special_tokens, with_added_tokens
from toynn.training.toml_config import differences, from_toml
from toynn.wording import spelled

# A resumed run may change its length, its evaluations and its checkpoints. The settings of the optimizer and of the
# schedule change only on request (`TrainArgs.changes`). Any other change would make another run.
_MAY_CHANGE = ("train.steps", "evaluation.", "checkpoint.")
LONGEST_CHOSEN_WINDOW = 1024  # tokens


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    step: steps taken before. checkpoint: gives the weights; None for random ones. state: of a resumed run, otherwise
    None. notes: sentences for the user about what was chosen or changed.
    """

    config: TrainConfig
    shape: ModelShape
    step: int
    checkpoint: Checkpoint | None
    state: TrainingState | None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.t_seq > self.shape.ctx:
            raise ConfigurationError(f"train.t_seq must be at most model.ctx = {self.shape.ctx}, got {self.t_seq}")

    @property
    def t_seq(self) -> int:
        """Tokens per window."""
        return self.config.train.t_seq or self.shape.ctx


def data_identity(meta: DataMeta) -> DataIdentity:
    """Return the sha256 of the files that a run depends on."""
    return DataIdentity(
        train=meta.splits["train"].sha256,
        validation=meta.splits["validation"].sha256,
        tokenizer=None if meta.tokenizer is None else meta.tokenizer.sha256,
    )


def find_start(args: TrainArgs, run: RunFolder, data: DataFolder) -> Start:
    """Return where a run starts.

    Raises TinyNNValueError for arguments that do not fit together or to what `args.out` contains, ConfigurationError
    for a key that does not fit, FileFormatError for a damaged checkpoint.
    """
    held = _checkpoint_in(args, run)
    if args.resume:
        if held is None:
            raise TinyNNValueError(
                f"resume: {args.out} has no checkpoint to resume from; start the run without "
                f"{spelled('resume', '--resume')}"
            )
        return _resumed(args, held, data)
    if held is not None and held.training is not None:
        raise TinyNNValueError(
            f"out: {args.out} is a run of {held.step} steps; resume it ({spelled('resume=True', '--resume')}), or use "
            "another folder"
        )
    if held is not None and args.init is not None:
        raise TinyNNValueError(f"out: {args.out} already has a model, so init cannot be used; use a new folder")
    config = args.config or TrainConfig()
    init = args.init if isinstance(args.init, Checkpoint) else load_checkpoint(args.init) if args.init else held
    if init is None:
        shape = (config.model or ModelArgs()).shape(data.meta.vocab_size)
        notes = special_tokens(None, False, data).notes
        return Start(_complete(config, shape, args, data).explicit(), shape, 0, None, None, notes)
    return _initialized(args, config, init, data)


def realize(engine: LlamaSeqEngine, start: Start, n_threads: int | None) -> None:
    """Give the engine the model, with its weights and moments. Raises TinyNNMemoryError."""
    train = start.config.train
    options = RecipeOptions(
        t_seq=start.t_seq,
        t_batch=train.batch,
        seed=train.seed,
        init_scale=1.0 if start.config.model is None else start.config.model.init_scale,
        n_threads=n_threads,
        layout="fused",
    )
    if start.t_seq * train.batch > INT31_MAX:
        raise ConfigurationError(
            f"train.batch = {train.batch} is too large: train.batch * {start.t_seq} tokens must be at most {INT31_MAX}"
        )
    engine.realize(start.shape, options, None if start.checkpoint is None else start.checkpoint.model.weights)
    if start.state is not None:
        for name, values in start.state.moments.items():
            engine.upload_weight(name, values)


def _checkpoint_in(args: TrainArgs, run: RunFolder) -> Checkpoint | None:
    """Return the checkpoint of the folder `args.out`: the latest one, or the one to resume from."""
    if args.resume_from is not None:
        return run.named(args.resume_from)
    try:
        return run.latest()
    except FileFormatError as error:
        before = run.before_latest() if args.resume else None
        option = spelled(f"resume=True, resume_from={before!r}", f"--resume --from {before}")
        hint = "" if before is None else f". To resume from an older one: {option}"
        raise FileFormatError(f"{error}{hint}") from None


def _initialized(args: TrainArgs, config: TrainConfig, init: Checkpoint, data: DataFolder) -> Start:
    """Return the start of a new run with the weights of a checkpoint."""
    init, added = with_added_tokens(init, data)
    model = init.model
    shape = shape_of(init)
    if config.model is not None and (key := config.model.first_difference(shape)) is not None:
        raise ConfigurationError(
            f"model.{key} is {getattr(config.model, key)!r}, but {init.path} has {getattr(shape, key)!r}; "
            "leave out the section [model]"
        )
    if data.tokenizer is not None and not (model.tokenizer and same_encoding(model.tokenizer, data.tokenizer)):
        raise TinyNNValueError(f"data: {args.data} has another tokenizer than {init.path}; {_remedy(init)}")
    if data.meta.vocab_size > model.shape.vocab:
        raise TinyNNValueError(
            f"data: {args.data} has a vocabulary of {data.meta.vocab_size} tokens, {init.path} has only "
            f"{model.shape.vocab}; {_remedy(init)}"
        )
    config, notes = initial_config(config, init)
    tokens = special_tokens(model, False, data)
    return Start(
        _complete(config, model.shape, args, data).explicit(shape),
        model.shape,
        0,
        init,
        None,
        (*notes, *added, *tokens.notes),
    )


def _remedy(init: Checkpoint) -> str:
    """Return how to make data that fits the model that training starts from."""
    command = f"toynn prepare TEXT --tokenizer {init.path} --out DATA"
    python = f"toynn.prepare(texts, data, tokenizer={str(init.path)!r})"
    return f"prepare the texts with the model's tokenizer: {spelled(python, command)}"


def initial_config(config: TrainConfig, init: Checkpoint) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return the configuration of a run that starts from another model, and notes for the user.

    A model that was made for long texts is trained on shorter windows, unless train.t_seq says otherwise: the memory of
    a step grows with the window, and most texts are shorter.
    """
    shape = shape_of(init)
    notes: tuple[str, ...] = ()
    if config.train.t_seq == 0 and shape.ctx > LONGEST_CHOSEN_WINDOW:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, t_seq=LONGEST_CHOSEN_WINDOW))
        note = f"train.t_seq is {LONGEST_CHOSEN_WINDOW} tokens, the context length of the model is {shape.ctx}"
        notes = (f"{note}; set train.t_seq to train on other windows",)
    return config.explicit(shape), notes


def _complete(config: TrainConfig, shape: ModelShape, args: TrainArgs, data: DataFolder) -> TrainConfig:
    """Return the configuration of a new run with the number of steps, after checks that need the model and the data."""
    t_seq, tokens = config.train.t_seq or shape.ctx, len(data.train)
    if tokens < t_seq + 1:
        given = f"train.t_seq = {t_seq}" if config.train.t_seq else f"train.t_seq = 0 (the context length, {t_seq})"
        raise ConfigurationError(
            f"{given} is too large: {args.data} has {tokens} training tokens, a window needs {t_seq + 1}; "
            + (f"set train.t_seq to at most {min(tokens - 1, shape.ctx)}, or add text" if tokens > 1 else "add text")
        )
    config = config.with_steps(windows_per_epoch(tokens, t_seq))
    config.check_warmup()
    return config


def config_source(checkpoint: Path) -> str:
    """Return where the configuration of a checkpoint is, for messages."""
    return f"training.config in {checkpoint / META}"


def own_config(checkpoint: Checkpoint, overrides: Iterable[str] = ()) -> TrainConfig:
    """Return the configuration of the run that wrote a checkpoint, with a value for every key.

    overrides: as for `from_toml`.

    Raises TinyNNValueError if the checkpoint was not written by training, ConfigurationError for an override.
    """
    training = _training(checkpoint)
    own = from_toml(training.progress.config, config_source(checkpoint.path), overrides)
    return own.explicit(shape_of(checkpoint))


def _training(checkpoint: Checkpoint) -> TrainingState:
    if checkpoint.training is None:
        raise TinyNNValueError(
            f"resume: {checkpoint.path} was not written by training; start without {spelled('resume', '--resume')}"
        )
    return checkpoint.training


def _resumed(args: TrainArgs, held: Checkpoint, data: DataFolder) -> Start:
    """Return the start of a run that is resumed from its checkpoint `held`."""
    state, own = _training(held), own_config(held)
    t_seq = own.train.t_seq or held.model.shape.ctx
    config = _resumed_config(args, own, held, windows_per_epoch(len(data.train), t_seq))
    if config.train.steps < held.step:
        raise ConfigurationError(
            f"train.steps must be at least {held.step}, the steps that the run has taken, got {config.train.steps}"
        )
    if config.train.steps != own.train.steps or config.schedule != own.schedule:
        config.check_warmup()
    now, before = data_identity(data.meta), state.progress.data
    for name in (field.name for field in dataclasses.fields(DataIdentity)):
        if getattr(now, name) != getattr(before, name):
            raise TinyNNValueError(
                f"data: {args.data} differs from the data that {held.path} was trained on, in its {name}; resume with "
                f"the same data, or start a new run from this model ({spelled('init', '--init')} {args.out})"
            )
    windows = held.step * config.train.batch * config.train.accumulate
    if state.progress.windows != windows:
        raise FileFormatError(
            f"{held.path} is damaged: training.windows must be {windows} after {held.step} steps, "
            f"got {state.progress.windows}"
        )
    return Start(config, held.model.shape, held.step, held, state, changes_of_course(own, config, held.step))


def _resumed_config(args: TrainArgs, own: TrainConfig, held: Checkpoint, epoch: int) -> TrainConfig:
    """Return the configuration of a resumed run. epoch: windows of an epoch.

    Raises ConfigurationError for a change that is not allowed.
    """
    shape = own.model or shape_of(held)
    config = own if args.config is None else args.config.with_steps(epoch)
    if config.schedule.warmup is None:
        schedule = dataclasses.replace(config.schedule, warmup=own.schedule.warmup)
        config = dataclasses.replace(config, schedule=schedule)
    config = config.explicit(shape)
    if config.model is not None and config.model.first_difference(shape) is None:  # head_dim may be derived or given
        model = dataclasses.replace(config.model, head_dim=shape.head_dim)
        config = dataclasses.replace(config, model=model)
    for key, (was, now) in differences(own, config).items():
        if key.startswith(_MAY_CHANGE) or key in args.changes:
            continue
        last = key.rpartition(".")[2]
        request = spelled(f"train(..., {last}={now!r}) or TrainArgs(changes=({key!r},))", f"--set {key}={now}")
        hint = f"; to change it on purpose: {request}" if key in CHANGEABLE else ""
        raise ConfigurationError(
            f"{key} is {now!r}, but the run has {was!r}; a resumed run may change only train.steps, evaluation and "
            f"checkpoint{hint}"
        )
    return config


def changes_of_course(own: TrainConfig, config: TrainConfig, step: int) -> tuple[str, ...]:
    """Return notes for the user: what a resumed run computes differently from the run that never stopped."""
    changed = {key: pair for key, pair in differences(own, config).items() if key in CHANGEABLE}
    notes = [f"{key} changes from {was!r} to {now!r} after step {step}" for key, (was, now) in changed.items()]
    if changed:
        notes[-1] += ": the run no longer has the bytes of a run that never stopped"
    if not 0 < step < config.train.steps:
        return tuple(notes)
    before, expected = (Optimizer(own).learning_rate(at) for at in (step, step + 1))
    after = Optimizer(config).learning_rate(step + 1)
    if after != expected:
        longer = f"with {config.train.steps} steps instead of {own.train.steps}, "
        why = longer if config.train.steps != own.train.steps else ""
        notes.append(f"{why}the learning rate is {before:.3g} in step {step} and {after:.3g} in step {step + 1}")
    return tuple(notes)


def shape_of(checkpoint: Checkpoint) -> ModelArgs:
    """Return the shape of a checkpoint's model as a section of the configuration."""
    return ModelArgs.of_shape(checkpoint.model.shape)

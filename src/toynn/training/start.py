"""Find the start of a run: random weights, the weights of another model, or a checkpoint of the run itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toynn.data import DataFolder
from toynn.errors import ConfigurationError, FileFormatError, TinyNNValueError
from toynn.llm.adapters.model_on_base import ModelOnBase, adapter_of, without_weights
from toynn.llm.adapters.open_base import OpenBase
from toynn.model.shape import ModelShape
from toynn.model.weight_patterns import matching_names
from toynn.storage.checkpoint import Checkpoint, RunReader, TrainingState, load_checkpoint
from toynn.storage.checkpoint.meta import META, OVER_WINDOWS, DataIdentity
from toynn.text.encoding_rules import same_encoding
from toynn.training.adapter_start import base_to_resume, checkpoint_on_base, continued, opened_base
from toynn.training.config import DEFAULT_STEPS, TrainConfig
from toynn.training.data_config import windows_of
from toynn.training.data_identity import data_identity
from toynn.training.defaults import ADAMW
from toynn.training.model_config import ModelArgs
from toynn.training.optimizer import Optimizer
from toynn.training.optimizer_config import CHANGEABLE, OptimizerArgs
from toynn.training.pairs_start import check_length, for_data, refuse_random_weights
from toynn.training.special_tokens import special_tokens, with_added_tokens
from toynn.training.toml_config import differences, from_toml
from toynn.training.train_args import TrainArgs
from toynn.wording import spelled

# A resumed run can change its length, its evaluations and its checkpoints. The run can change the settings of the
# optimizer and of the schedule only on request (`TrainArgs.changes`). With any other change, the run would not be the
# same run.
_MAY_CHANGE = ("train.steps", "train.seconds", "train.recompute", "evaluation.", "checkpoint.")
_FILES = {"train": "training tokens", "validation": "validation tokens", "tokenizer": "rules of the tokenizer"}
LONGEST_CHOSEN_WINDOW = 1024  # tokens


@dataclass(frozen=True)
class Start:
    """The start of a run.

    config: the configuration with every key set.
    step: number of steps taken before.
    checkpoint: the checkpoint with the weights, or None for random weights.
    state: the state of training of a resumed run, or None for a new run.
    notes: sentences for the user about settings that were chosen or changed.
    base: the base of an adapter, or None.
    """

    config: TrainConfig
    shape: ModelShape
    step: int
    checkpoint: Checkpoint | None
    state: TrainingState | None
    notes: tuple[str, ...] = ()
    base: OpenBase | None = None

    def __post_init__(self) -> None:
        if self.t_seq > self.shape.ctx:
            raise ConfigurationError(f"train.t_seq must be at most model.ctx = {self.shape.ctx}, got {self.t_seq}")

    def without_tensors(self) -> Start:
        """Return the start without weights and moments, which the engine has copied."""
        held = self.checkpoint
        state = None if self.state is None else TrainingState(self.state.progress, {})
        if held is not None:
            held = dataclasses.replace(held, contents=without_weights(held.contents), training=state)
        return dataclasses.replace(self, checkpoint=held, state=state)

    @property
    def t_seq(self) -> int:
        """Tokens per window."""
        return self.config.train.t_seq or self.shape.ctx


def find_start(args: TrainArgs, run: RunReader, data: DataFolder) -> Start:
    """Return the start of the run that `args` describes.

    Raises TinyNNValueError if the arguments do not fit together or do not fit the content of `args.out`;
    ConfigurationError if a key of the configuration does not fit; or FileFormatError if a checkpoint is damaged.
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
            f"{spelled('out', '--out')}: {args.out} is already a run of {held.step} steps; resume the run "
            f"({spelled('resume=True', '--resume')}), or use another folder"
        )
    if held is not None and args.init is not None:
        raise TinyNNValueError(
            f"{spelled('out', '--out')}: {args.out} already contains a model, so {spelled('init', '--init')} cannot be "
            "used; use a new folder"
        )
    config = for_data(args.config or TrainConfig(), data, args.data)
    if args.init is None and args.base is not None:
        base = opened_base(args.base)
        start = _initialized(args, config, checkpoint_on_base(base, config, args.out, held), data)
        return dataclasses.replace(start, base=base)
    init = args.init if isinstance(args.init, Checkpoint) else load_checkpoint(args.init) if args.init else held
    if init is not None and isinstance(init.contents, ModelOnBase):
        if init is held:
            raise TinyNNValueError(
                f"{spelled('out', '--out')}: {args.out} already contains an adapter; give this adapter with "
                f"{spelled('init=', '--init')}, and use a new folder"
            )
        init, base = continued(args.base, init)
        return dataclasses.replace(_initialized(args, config, init, data), base=base)
    if config.adapter.rank:
        raise ConfigurationError(
            f"adapter.rank = {config.adapter.rank} needs a base, the model that the adapter is trained on; give "
            f"the base with {spelled('base=', '--base')}"
        )
    if init is None:
        refuse_random_weights(config)
        shape = (config.model or ModelArgs()).shape(data.meta.vocab_size)
        notes = (*special_tokens(None, False, data).notes, *_notes_on_learning_rate(config))
        start = Start(_complete(config, shape, args, data).explicit(), shape, 0, None, None, notes)
    else:
        start = _initialized(args, config, init, data)
    trained_names(start)
    return start


def _notes_on_learning_rate(config: TrainConfig) -> tuple[str, ...]:
    """Return a note if the user of a new model set a learning rate, but did not choose between AdamW and Muon."""
    given = config.optimizer
    if given.lr is None or given.kind is not None or given.muon_lr != OptimizerArgs().muon_lr:
        return ()
    note = f"optimizer.lr = {given.lr:g} does not apply to the matrices of the layers"
    muon = f"Muon, the default optimizer of a new model, uses optimizer.muon_lr = {given.muon_lr:g} for these matrices"
    return (f'{note}: {muon}; to train all weights with AdamW, set optimizer.kind to "adamw"',)


def trained_names(start: Start) -> frozenset[str] | None:
    """Return the names of the weights that train.only selects, or None if all weights are trained."""
    if not start.config.train.only:
        return None
    try:
        return matching_names(start.shape, start.config.train.only)
    except TinyNNValueError as error:
        raise ConfigurationError(f"train.only: {error}") from None


def _checkpoint_in(args: TrainArgs, run: RunReader) -> Checkpoint | None:
    """Return the checkpoint in the folder `args.out`: the one called args.resume_from, or the latest one, or None."""
    if args.resume_from is not None:
        return run.named(args.resume_from)
    try:
        return run.latest()
    except FileFormatError as error:
        before = run.before_latest() if args.resume else None
        option = spelled(f"resume=True, resume_from={before!r}", f"--resume --from {before}")
        hint = "" if before is None else f". To resume from an older checkpoint, use {option}"
        raise FileFormatError(f"{error}{hint}") from None


def _initialized(args: TrainArgs, config: TrainConfig, init: Checkpoint, data: DataFolder) -> Start:
    """Return the start of a new run with the weights of a checkpoint."""
    init, added = with_added_tokens(init, data)
    model = init.contents
    shape = shape_of(init)
    if config.model is not None and (key := config.model.first_difference(shape)) is not None:
        raise ConfigurationError(
            f"model.{key} = {getattr(config.model, key)!r} differs from the model in {init.path}, which has "
            f"{getattr(shape, key)!r}; leave out the keys of model, because training keeps the shape of that model"
        )
    if data.tokenizer is not None and not (model.tokenizer and same_encoding(model.tokenizer, data.tokenizer)):
        raise TinyNNValueError(f"data: {args.data} was not prepared with the tokenizer of {init.path}; {_remedy(init)}")
    if data.meta.vocab_size > model.shape.vocab:
        raise TinyNNValueError(
            f"data: {args.data} has a vocabulary of {data.meta.vocab_size} tokens, but {init.path} has only "
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
    """Return the end of an error message: how to prepare data for the model that training starts from."""
    command = f"toynn prepare TEXT --tokenizer {init.path} --out DATA"
    python = f"toynn.prepare(texts, data, tokenizer={str(init.path)!r})"
    return f"prepare the texts with the model's tokenizer: {spelled(python, command)}"


def initial_config(config: TrainConfig, init: Checkpoint) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return the configuration of a run that starts from another model, with every key set, and notes for the user.

    If train.t_seq is 0 and the model has a long context, training uses shorter windows, because the memory of a step
    grows with the length of a window.
    """
    shape = shape_of(init)
    if (adapter := adapter_of(init.contents)) is not None:
        config = dataclasses.replace(config, adapter=config.adapter.continuing(adapter.spec, init.path))
    notes: tuple[str, ...] = ()
    if config.train.t_seq == 0 and shape.ctx > LONGEST_CHOSEN_WINDOW:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, t_seq=LONGEST_CHOSEN_WINDOW))
        note = f"windows have {LONGEST_CHOSEN_WINDOW} tokens, although the context length of the model is {shape.ctx}"
        notes = (f"{note}; set train.t_seq to use longer windows, which need more memory",)
    return config.explicit(shape), notes


def _complete(config: TrainConfig, shape: ModelShape, args: TrainArgs, data: DataFolder) -> TrainConfig:
    """Check the configuration of a new run against the model and the data, and return it with the number of steps."""
    t_seq = config.train.t_seq or shape.ctx
    samples = data.train.starts is not None and not data.meta.pairs
    config = dataclasses.replace(config, data=config.data.explicit(samples))
    check_length(config, data, shape.ctx, args.data)
    config = config.with_steps(_windows_per_epoch(config, data, t_seq))
    config.check_warmup()
    return config


def _windows_per_epoch(config: TrainConfig, data: DataFolder, t_seq: int) -> int:
    return windows_of(data.train, t_seq, config.train.seed, config.data, config.windows_of_step).windows_per_epoch


def config_source(checkpoint: Path) -> str:
    """Return the place of the configuration in a checkpoint, for error messages."""
    return f"training.config in {checkpoint / META}"


def own_config(checkpoint: Checkpoint, overrides: Iterable[str] = ()) -> TrainConfig:
    """Return the configuration of the run that wrote a checkpoint, with every key set.

    overrides: as for `from_toml`.

    Raises TinyNNValueError if the checkpoint was not written by training, or ConfigurationError for a wrong override.
    """
    training = _training(checkpoint)
    own = from_toml(training.progress.config, config_source(checkpoint.path), overrides)
    # Older versions of toynn had no section [data], and AdamW was their only optimizer.
    optimizer = dataclasses.replace(own.optimizer, kind=own.optimizer.kind or ADAMW)
    own = dataclasses.replace(own, optimizer=optimizer, data=own.data.explicit(False))
    return own.explicit(shape_of(checkpoint))


def _training(checkpoint: Checkpoint) -> TrainingState:
    if checkpoint.training is None:
        raise TinyNNValueError(
            f"resume: {checkpoint.path} was not written by training, so it cannot be resumed; start the training "
            f"without {spelled('resume', '--resume')}"
        )
    return checkpoint.training


def _resumed(args: TrainArgs, held: Checkpoint, data: DataFolder) -> Start:
    """Return the start of a run that is resumed from its checkpoint `held`."""
    state, own = _training(held), own_config(held)
    if args.config is not None:
        args = dataclasses.replace(args, config=for_data(args.config, data, args.data))
    t_seq = own.train.t_seq or held.contents.shape.ctx
    epoch = _windows_per_epoch(own, data, t_seq)
    config = _resumed_config(args, own, held, epoch)
    if config.last_step < held.step:
        epochs = None if args.config is None else args.config.train.epochs
        wrong = f"train.steps = {config.train.steps} is too small"
        if epochs is not None:
            wrong = f"train.epochs = {epochs} is too small: it is {_steps(config.train.steps)}"
        raise ConfigurationError(f"{wrong}, but the run has already taken {_steps(held.step)}")
    if config.train.steps != own.train.steps or config.schedule != own.schedule:
        config.check_warmup()
    if config.train.seconds > own.train.seconds and held.step == config.last_step:
        raise ConfigurationError(
            f"train.seconds = {config.train.seconds:g} has no effect, because the run has ended and its learning rate "
            f"has fallen; start a new run from this model ({spelled(f'init={str(args.out)!r}', f'--init {args.out}')})"
        )
    now, before = data_identity(data.meta), state.progress.data
    for name in (field.name for field in dataclasses.fields(DataIdentity)):
        if getattr(now, name) != getattr(before, name):
            raise TinyNNValueError(
                f"data: the {_FILES[name]} of {args.data} differ from those that {held.path} was trained on; resume "
                f"with the same data, or start a new run from this model "
                f"({spelled(f'init={str(args.out)!r}', f'--init {args.out}')})"
            )
    windows = config.windows_before(held.step)
    if state.progress.windows != windows:
        raise FileFormatError(
            f"{held.path} is damaged: training.windows must be {windows} after {held.step} steps, "
            f"got {state.progress.windows}"
        )
    notes = (*changes_of_course(own, config, held.step), *_changes_of_order(state, config, held.step))
    base = base_to_resume(args.base, held)
    return Start(config, held.contents.shape, held.step, held, state, notes, base)


def _changes_of_order(state: TrainingState, config: TrainConfig, step: int) -> tuple[str, ...]:
    """Return a note if an older version took the last step and added up its windows in another order."""
    several = config.train.batch * config.train.accumulate > 1
    if not several or step == 0 or state.progress.order_of_sums == OVER_WINDOWS:
        return ()
    note = f"an older version of toynn, which added up the gradients of a step in another order, took {_steps(step)}"
    return (
        f"{note}; from here on, the weights differ by rounding errors from those that the older version would reach",
    )


def _steps(n: int) -> str:
    return "1 step" if n == 1 else f"{n} steps"


def _resumed_config(args: TrainArgs, own: TrainConfig, held: Checkpoint, epoch: int) -> TrainConfig:
    """Return the configuration of a resumed run. own: its configuration so far. epoch: number of windows in an epoch.

    Raises ConfigurationError for a change that is not allowed.
    """
    shape = own.model or shape_of(held)
    config = own if args.config is None else args.config.with_steps(epoch)
    lr, kind = config.optimizer.lr, config.optimizer.kind
    optimizer = dataclasses.replace(
        config.optimizer,
        lr=own.optimizer.lr if lr is None else lr,
        kind=own.optimizer.kind if kind is None else kind,
    )
    config = dataclasses.replace(config, optimizer=optimizer)
    if config.model is not None:
        spread = {
            key: getattr(shape, key) for key in ("init_scale", "embedding_std") if getattr(config.model, key) is None
        }
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, **spread))
    if config.train.seconds and not config.schedule.falls:  # the run keeps the falls that it has already decided
        if config.train.steps not in (own.train.steps, DEFAULT_STEPS):
            raise ConfigurationError(
                f"train.steps = {config.train.steps} has no effect, because the run ends after train.seconds = "
                f"{config.train.seconds:g}; leave out train.steps, or also set train.seconds to 0"
            )
        train = dataclasses.replace(config.train, steps=own.train.steps)
        schedule = dataclasses.replace(config.schedule, falls=own.schedule.falls)
        config = dataclasses.replace(config, train=train, schedule=schedule)
    if config.schedule.warmup is None:
        schedule = dataclasses.replace(config.schedule, warmup=own.schedule.warmup)
        config = dataclasses.replace(config, schedule=schedule)
    config = dataclasses.replace(config.explicit(shape), data=config.data.explicit(bool(own.data.document_attention)))
    # The shapes are equal, but head_dim may be 0 in one configuration and d_model // n_heads in the other.
    if config.model is not None and config.model.first_difference(shape) is None:
        model = dataclasses.replace(config.model, head_dim=shape.head_dim)
        config = dataclasses.replace(config, model=model)
    for key, (was, now) in differences(own, config).items():
        if key.startswith(_MAY_CHANGE) or key in args.changes:
            continue
        last = key.rpartition(".")[2]
        request = spelled(f"train(..., {last}={now!r}) or TrainArgs(changes=({key!r},))", f"--set {key}={now}")
        remedy = (
            f"to change it on purpose, use {request}"
            if key in CHANGEABLE
            else "a resumed run can change only train.steps, train.epochs, train.seconds, train.recompute, "
            "evaluation.*, checkpoint.*, schedule.* without double_batch, and optimizer.* without kind, moments and "
            "ema; leave out this key, or start a new run"
        )
        raise ConfigurationError(f"{key} is {now!r}, but the run has {was!r}; {remedy}")
    return config


def changes_of_course(own: TrainConfig, config: TrainConfig, step: int) -> tuple[str, ...]:
    """Return notes for the user about changed settings, and about a jump of the learning rate, in a resumed run."""
    changed = {key: pair for key, pair in differences(own, config).items() if key in CHANGEABLE}
    notes = [f"{key} changes from {was!r} to {now!r} after step {step}" for key, (was, now) in changed.items()]
    if changed:
        notes[-1] += ", so the result will differ from the result of a run without interruption"
    if not 0 < step < config.last_step:
        return tuple(notes)
    before, expected = (Optimizer(own).learning_rate(at) for at in (step, step + 1))
    after = Optimizer(config).learning_rate(step + 1)
    if after != expected:
        longer = f"with {config.train.steps} steps instead of {own.train.steps}, "
        why = longer if config.train.steps != own.train.steps else ""
        notes.append(f"{why}the learning rate is {before:.3g} in step {step} and {after:.3g} in step {step + 1}")
    return tuple(notes)


def shape_of(checkpoint: Checkpoint) -> ModelArgs:
    """Return the shape of the model in a checkpoint as the section `model` of a configuration."""
    return ModelArgs.of_shape(checkpoint.contents.shape)

"""Where a training begins: at random, from another model's weights, or where the run was left."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toynn.data import DataMeta
from toynn.errors import TinyNNValueError
from toynn.model.shape import ModelShape
from toynn.storage.checkpoint import Checkpoint, RunFolder, TrainingState, load_checkpoint
from toynn.training.config import ModelArgs, TrainArgs, TrainConfig
from toynn.training.toml_config import differences, from_toml

# What a resumed run may change: how long, and what is looked at or kept on the way. All else would make another run.
_MAY_CHANGE = ("train.steps", "evaluation.", "checkpoint.")


@dataclass(frozen=True)
class Start:
    """model: None for a random start. state: None but for a run that is resumed."""

    config: TrainConfig
    shape: ModelShape
    step: int
    checkpoint: Checkpoint | None
    state: TrainingState | None


def data_identity(meta: DataMeta) -> dict[str, str]:
    """What tells data apart: sha256 of token files and tokenizer."""
    return {**{name: split.sha256 for name, split in meta.splits.items()}, "tokenizer": meta.tokenizer_sha256}


def find_start(args: TrainArgs, run: RunFolder, meta: DataMeta, tokenizer: bytes) -> Start:
    """Raises TinyNNValueError for what does not fit together, by name."""
    held = _held(args, run)
    if args.resume:
        if held is None:
            raise TinyNNValueError(f"resume: {args.out} holds no checkpoint to go on from; start it without resume")
        return _resumed(args, held, meta)
    if held is not None and held.training is not None:
        raise TinyNNValueError(
            f"out: {args.out} holds a run of {held.step} steps; resume it (--resume), or name another folder"
        )
    if held is not None and args.init is not None:
        raise TinyNNValueError(f"out: {args.out} holds a model already, so init would be a second; name a new folder")
    config = args.config or TrainConfig()
    config.check_warmup()
    init = held if args.init is None else args.init if isinstance(args.init, Checkpoint) else load_checkpoint(args.init)
    if init is None:
        config, model = config.explicit(), config.model or ModelArgs()
        return Start(config, model.shape(meta.vocab_size), 0, None, None)
    one = init.model
    shape = shape_of(init)
    if config.model is not None and (key := config.model.first_difference(shape)) is not None:
        raise TinyNNValueError(
            f"model.{key}: {init.path} has {getattr(shape, key)!r}, the configuration {getattr(config.model, key)!r}; "
            "leave the section [model] out"
        )
    if one.tokenizer is None or not same_tokenizer(one.tokenizer, tokenizer):
        raise TinyNNValueError(
            f"data: {args.data} has another tokenizer than {init.path}; prepare it with the tokenizer of {init.path} "
            "(--tokenizer)"
        )
    if meta.vocab_size > one.shape.vocab:
        raise TinyNNValueError(
            f"data: {args.data} has a vocabulary of {meta.vocab_size}, {init.path} one of {one.shape.vocab}"
        )
    return Start(config.explicit(shape), one.shape, 0, init, None)


def _held(args: TrainArgs, run: RunFolder) -> Checkpoint | None:
    """The checkpoint that the folder holds: the latest, or the one to go on from."""
    if args.resume_from is not None:
        return run.named(args.resume_from)
    try:
        return run.latest()
    except TinyNNValueError as error:
        before = run.before_latest() if args.resume else None
        hint = "" if before is None else f". To go on from an older one: --resume --from {before} (resume_from)"
        raise TinyNNValueError(f"{error}{hint}") from None


def own_config(checkpoint: Checkpoint, overrides: Iterable[str] = ()) -> TrainConfig:
    """The configuration that a checkpoint was trained with, nothing left open. overrides: as for `from_toml`.

    Raises TinyNNValueError where it was not made by training, or for an override.
    """
    training = _training(checkpoint)
    own = from_toml(training.progress.config, f"the configuration in {checkpoint.path}", overrides)
    return own.explicit(shape_of(checkpoint))


def _training(checkpoint: Checkpoint) -> TrainingState:
    if checkpoint.training is None:
        raise TinyNNValueError(f"resume: {checkpoint.path} was not made by training; start without resume")
    return checkpoint.training


def _resumed(args: TrainArgs, held: Checkpoint, meta: DataMeta) -> Start:
    state, own = _training(held), own_config(held)
    shape = own.model or shape_of(held)
    config = own if args.config is None else args.config
    if config.schedule.warmup is None:
        schedule = dataclasses.replace(config.schedule, warmup=own.schedule.warmup)
        config = dataclasses.replace(config, schedule=schedule)
    config = config.explicit(shape)
    if config.model is not None and config.model.first_difference(shape) is None:  # head_dim may be derived or given
        model = dataclasses.replace(config.model, head_dim=shape.head_dim)
        config = dataclasses.replace(config, model=model)
    changed = [key for key in differences(own, config) if not key.startswith(_MAY_CHANGE)]
    if changed:
        was, now = differences(own, config)[changed[0]]
        raise TinyNNValueError(
            f"{changed[0]}: the run has {was!r}, the configuration {now!r}; a run that is resumed keeps all but "
            "train.steps, evaluation and checkpoint"
        )
    if config.train.steps < held.step:
        raise TinyNNValueError(
            f"train.steps must be at least {held.step}, the steps that the run has taken, got {config.train.steps}"
        )
    if config.train.steps != own.train.steps:
        config.check_warmup()
    identity = data_identity(meta)
    if identity != state.progress.data:
        what = next(name for name in identity if identity[name] != state.progress.data.get(name))
        raise TinyNNValueError(f"data: {args.data} is not what {held.path} was trained on: its {what} differs")
    per_step = config.train.batch * config.train.accumulate
    if state.progress.windows != held.step * per_step:
        raise TinyNNValueError(
            f"{held.path} is damaged: {held.step} steps of {per_step} windows are not {state.progress.windows} windows"
        )
    return Start(config, held.model.shape, held.step, held, state)


def shape_of(checkpoint: Checkpoint) -> ModelArgs:
    """The shape of a checkpoint's model."""
    return ModelArgs.of_shape(checkpoint.model.shape)


def same_tokenizer(a: bytes, b: bytes) -> bool:
    """Whether two tokenizer.json mean the same, however they are spaced."""
    return a == b or _normal(a) == _normal(b)


def _normal(tokenizer: bytes) -> Any:
    from toynn.text.tokenizer_json import load_tokenizer

    return json.loads(load_tokenizer(tokenizer, "a checkpoint").to_str())


def path_of(checkpoint: Checkpoint | None) -> Path | None:
    return None if checkpoint is None else checkpoint.path

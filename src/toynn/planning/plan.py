"""Choose a model and its training for a given time, number of parameters or memory size, and predict the loss."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toynn.data import DataFolder
from toynn.errors import ConfigurationError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.initialised import Initialised
from toynn.planning.amounts import parameters_in_words, time_in_words
from toynn.planning.choice import OVERHEAD, Choice, Option, best_training, chosen, options_of, with_steps
from toynn.planning.law import KNOWN_PASSES, ScalingLaw, Text
from toynn.planning.recipe import BATCH, CONTEXT, EVALUATED, FEWEST_STEPS, SIZES, Size
from toynn.planning.speed import TIMED, config_of, measured, probe

with naming_the_extra():
    from toynn.training.model_config import ModelArgs
    from toynn.training.toml_config import flat, key_set, to_plain

BYTES_PER_TOKEN = 4.0  # assumed if the data does not record the size of the text
_FEWEST_EVALUATIONS, _MOST_EVALUATIONS = 2, 10  # number of evaluations and of checkpoints in a run
_SHARE_OF_EVALUATIONS = 0.025  # evaluations take at most this share of the time of a run, if the run is not short
_FEWEST_EVALUATED = 32  # smallest number of windows of an evaluation; the largest number is that of the probe
_SHARE_OF_MEASURING = 0.02  # the speed of the chosen model is measured during this share of the time
_MOST_MEASURING = 10.0  # the speed of the chosen model is measured for at most this number of seconds
_CHOSEN_BY_PLAN = ("train.steps", "train.epochs", "train.seconds", "schedule.decay", "schedule.falls")
_NOT_PLANNED = ("adapter.", "dpo.", "train.objective", "train.only")
# Settings that do not change what the law predicts.
_WITHOUT_EFFECT = ("evaluation.", "checkpoint.", "train.seed", "train.recompute", "model.d_model", "model.n_layers")


@dataclass(frozen=True)
class Candidate(Initialised):
    """A model that a plan considered, with the best training of this model in the given time.

    name: the width and the number of layers, for example "96x4". parameters: number of weights.
    seconds_per_step: measured on this machine. steps: number of optimizer steps. memory: bytes of the model and its
    training graph. loss: expected validation loss in nats per token.
    """

    name: str
    parameters: int
    seconds_per_step: float
    memory: int
    steps: int
    loss: float


@dataclass(frozen=True, repr=False)
class Plan(Initialised):
    """What to train: the result of `toynn.plan`.

    data: the data folder. seconds: the expected time of training. limit: the given time in seconds, or None.
    uses_whole_time: whether the run takes all steps that fit into the time. If not, the text is too small.
    settings: the settings of the run as keys of a configuration: `toynn.train(data, run, **plan.settings)`.
    parameters: number of weights. steps, tokens, epochs: length of the run. seconds_per_step: measured on this machine.
    memory: bytes of the model and its training graph.
    loss, loss_low, loss_high: expected validation loss in nats per token, and the limits between which the loss is
        expected with a probability of 95 %. bits_per_byte: the same loss in bits per byte; None if the data does not
        record the size of the text.
    candidates: all models that were considered, from the smallest to the largest.
    notes: sentences for the user, for example that the text is too small for the time.
    """

    data: Path
    limit: float | None
    seconds: float
    uses_whole_time: bool
    settings: dict[str, Any]
    parameters: int
    steps: int
    tokens: int
    epochs: float
    seconds_per_step: float
    memory: int
    loss: float
    loss_low: float
    loss_high: float
    bits_per_byte: float | None
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"<toynn.Plan for {str(self.data)!r}: {self.parameters / 1e6:.2f} M parameters, {self.steps} steps, "
            f"{time_in_words(self.seconds)}, expected loss {self.loss:.3f} ({self.loss_low:.3f} to "
            f"{self.loss_high:.3f})>"
        )


def make_plan(
    folder: Path,
    seconds: float | None = None,
    parameters: int | None = None,
    memory: int | None = None,
    overrides: tuple[str, ...] = (),
    n_threads: int | None = None,
    law: ScalingLaw | None = None,
    reserved: float = 0.0,
) -> Plan:
    """Return a plan for the data in a folder.

    seconds: the time. None: the time for which a model with this number of parameters is the best.
    parameters: approximate number of weights of the model. None: the plan chooses the model.
    memory: limit in bytes. None: the available memory.
    overrides: settings "section.key=VALUE".
    law: None: the law of this package.
    reserved: the part of `seconds` that is needed for other work than planning and training.

    Raises TinyNNValueError if the data or the limits do not allow a plan, or ConfigurationError if an override is
    wrong.
    """
    began = clock.perf_counter()
    for key in map(key_set, overrides):
        if key in _CHOSEN_BY_PLAN:
            raise ConfigurationError(
                f"{key} cannot be set together with a plan, because the plan chooses this key; leave out the key"
            )
        if key.startswith(_NOT_PLANNED):
            raise ConfigurationError(
                f"{key} cannot be set together with a plan, because a plan trains all weights of a new model on plain "
                "text; leave out the key, or train without a plan"
            )
    data = DataFolder.open(folder)
    text = _text_of(data, n_threads)
    law = law or ScalingLaw.load()
    sizes = SIZES if parameters is None else (_nearest(parameters, data.meta.vocab_size),)
    options = options_of(data, overrides, n_threads, sizes, memory=memory)
    if seconds is None:
        best, choices = _balanced(options, law, text), list[Choice]()
    else:
        ends = began + seconds - reserved
        best, choices = chosen(options, ends - clock.perf_counter(), law, text, _most_measuring(seconds))
        if best is not None:
            option = _measured_longer(best.option, data, n_threads, min(_SHARE_OF_MEASURING * seconds, _MOST_MEASURING))
            again = best_training(option, ends - clock.perf_counter(), law, text) or replace(best, option=option)
            choices, best = [again if one is best else one for one in choices], again
    if best is None:
        raise TinyNNValueError(_no_plan(seconds, memory, parameters))
    plan = _described(folder, data, seconds, best, choices, law, text, overrides)
    if parameters is not None and not parameters / 2 <= plan.parameters <= parameters * 2:
        note = (
            f"{parameters_in_words(parameters)} parameters were requested; the nearest size that a plan considers has "
            f"{parameters_in_words(plan.parameters)}"
        )
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def _measured_longer(option: Option, data: DataFolder, n_threads: int | None, seconds: float) -> Option:
    """Return an option with the mean duration of a step during some seconds, if the first measurement was shorter."""
    if seconds <= TIMED * option.speed.seconds:
        return option
    return replace(option, speed=measured(data, option.config, n_threads, seconds))


def _text_of(data: DataFolder, n_threads: int | None) -> Text:
    meta = data.meta
    if meta.pairs or data.train.starts is not None:
        kind = "preference pairs" if meta.pairs else "samples"
        raise TinyNNValueError(
            f"a plan needs data of plain text, but this data consists of {kind}; set train.steps instead"
        )
    split = meta.splits["train"]
    if split.tokens <= CONTEXT * BATCH:
        raise TinyNNValueError(
            f"a plan needs more than {CONTEXT * BATCH} training tokens, but this data has {split.tokens}; prepare more "
            "text"
        )
    nats = probe(data, n_threads)
    nbytes = float(split.bytes or BYTES_PER_TOKEN * split.tokens)
    return Text(split.tokens, nbytes, None if nats is None else nats / _bytes_per_validation_token(data))


def _bytes_per_validation_token(data: DataFolder) -> float:
    split = data.meta.splits["validation"]
    return split.bytes / split.tokens if split.bytes and split.tokens else BYTES_PER_TOKEN


def _most_measuring(seconds: float) -> float:
    """Return the seconds of measuring after which a plan measures no larger model.

    seconds: the time for the training.
    """
    return min(max(1.0, 0.03 * seconds), 30.0)


def _nearest(parameters: int, vocab: int) -> Size:
    """Return the size for which the ratio between its number of weights and `parameters` is nearest to 1."""
    return min(SIZES, key=lambda size: abs(math.log((size.layer_parameters + vocab * size.d_model) / parameters)))


def _balanced(options: Iterable[Option], law: ScalingLaw, text: Text) -> Choice | None:
    """Return the first option, with the number of steps for which a model of this size is the best."""
    for option in options:
        tokens = law.balanced_tokens(text, option.layer_parameters)
        steps = max(FEWEST_STEPS, round(tokens / option.tokens))
        steps = min(steps, law.most_steps(text, option.tokens))
        return with_steps(option, steps, law, text, is_limited_by_time=False)
    return None


def _no_plan(seconds: float | None, memory: int | None, parameters: int | None) -> str:
    """Return the message for a plan that is not possible."""
    if seconds is None or memory is not None:
        limit = "the available memory" if memory is None else f"{memory / 1e6:.0f} MB"
        return f"no model that a plan considers fits into {limit}; give more memory or fewer parameters"
    model = "the smallest model" if parameters is None else f"a model of about {parameters} parameters"
    return (
        f"the time {time_in_words(seconds)} or the memory is too small for a plan: {model} must fit into the available "
        f"memory and take at least {FEWEST_STEPS} steps; give more time, or a smaller train.batch"
    )


def _described(
    folder: Path,
    data: DataFolder,
    limit: float | None,
    best: Choice,
    choices: Sequence[Choice],
    law: ScalingLaw,
    text: Text,
    overrides: tuple[str, ...],
) -> Plan:
    """Return the plan for a choice."""
    option, per_token = best.option, _bytes_per_validation_token(data)
    tokens = best.steps * option.tokens
    config = config_of(option.size, best.steps, (*overrides, *_logging(option, best.steps, overrides)))
    prediction = law.predicted(text, option.layer_parameters, tokens)
    low, middle, high = (
        per_token * math.exp(prediction.log_loss + sign * 1.96 * prediction.deviation) for sign in (-1, 0, 1)
    )
    seconds = best.steps * option.speed.seconds * OVERHEAD
    return Plan(
        folder,
        limit,
        seconds,
        best.is_limited_by_time,
        flat(to_plain(config)),
        option.speed.parameters,
        best.steps,
        tokens,
        tokens / text.tokens,
        option.speed.seconds,
        option.speed.nbytes,
        middle,
        low,
        high,
        math.exp(prediction.log_loss) / math.log(2) if data.meta.splits["validation"].bytes else None,
        tuple(
            Candidate(
                one.option.size.name,
                one.option.speed.parameters,
                one.option.speed.seconds,
                one.option.speed.nbytes,
                one.steps,
                per_token * math.exp(one.log_loss),
            )
            for one in choices
        ),
        _notes(best, limit, seconds, law, text, overrides, data.meta.vocab_size),
    )


def _logging(option: Option, steps: int, overrides: tuple[str, ...]) -> list[str]:
    """Return settings for evaluations and checkpoints that take a small share of the time, without the settings that
    the user chose.

    If the run is long enough, each evaluation reads the same windows as the probe. The losses of other windows would
    differ from the expected loss.
    """
    t_seq = option.config.train.t_seq or (option.config.model or ModelArgs()).ctx
    # an evaluation has no backward pass and so reads three times as many tokens per second as training
    windows_of_run = 3 * _SHARE_OF_EVALUATIONS * steps * option.tokens / t_seq
    evaluations = min(max(round(windows_of_run / EVALUATED), _FEWEST_EVALUATIONS), _MOST_EVALUATIONS)
    windows = min(max(round(windows_of_run / evaluations), _FEWEST_EVALUATED), EVALUATED)
    every = -(-steps // evaluations)
    chosen = {"evaluation.every": every, "evaluation.windows": windows, "checkpoint.every": every}
    given = {key_set(override) for override in overrides}
    return [f"{key}={value}" for key, value in chosen.items() if key not in given]


def _notes(
    best: Choice,
    limit: float | None,
    seconds: float,
    law: ScalingLaw,
    text: Text,
    overrides: tuple[str, ...],
    vocab: int,
) -> tuple[str, ...]:
    """Return sentences for the user about the limits of the plan."""
    notes = []
    passes = best.steps * best.option.tokens / text.tokens
    if limit is not None and not best.is_limited_by_time:
        notes.append(
            f"the text is too small for the time: training reads it {passes:.0f} times and ends after "
            f"{time_in_words(seconds)} of {time_in_words(limit)}, because more steps would hardly lower the loss"
        )
    elif passes > KNOWN_PASSES:
        notes.append(
            f"the text is small for this model: training reads it {passes:.1f} times, and a larger text would give a "
            "lower loss"
        )
    if text.probe is None:
        notes.append("the data has no validation tokens, so the expected loss is that of a text like the stories")
    wider = law.extrapolation(best.option.layer_parameters, best.steps * best.option.tokens * text.bytes_per_token)
    if wider > 2:
        notes.append(
            f"the plan is {wider:.0f} times beyond the largest runs of the scaling law, so the expected loss is less "
            "certain"
        )
    if not law.vocabulary / 2 <= vocab <= law.vocabulary * 2:
        notes.append(
            f"the scaling law was fitted with a vocabulary of {law.vocabulary} tokens, and this data has {vocab}, so "
            "the expected loss is less certain"
        )
    others = sorted({key_set(one) for one in overrides if not key_set(one).startswith(_WITHOUT_EFFECT)})
    if others:
        notes.append(f"the expected loss is for the plan's own values, not for your values, of {', '.join(others)}")
    return tuple(notes)

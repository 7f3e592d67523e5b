"""Choose the model and the number of steps with the lowest expected loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from toynn.data import DataFolder
from toynn.errors import ConfigurationError, TinyNNMemoryError
from toynn.extras import naming_the_extra
from toynn.planning.law import ScalingLaw, Text
from toynn.planning.recipe import FEWEST_STEPS, SIZES, Size
from toynn.planning.speed import Speed, config_of, measured
from toynn.tinynn import tnn_available_memory

with naming_the_extra():
    from toynn.training.config import TrainConfig
    from toynn.training.model_config import ModelArgs

OVERHEAD = 1.03  # duration of a run with evaluations and checkpoints, divided by the duration of its steps
_STEPS = 1_000_000  # number of steps in the configuration of a measurement; large enough for any usual warm-up
_MARGIN = 0.9  # share of the available memory that a plan uses


@dataclass(frozen=True)
class Option:
    """A model with its cost, for which no number of steps is chosen yet. tokens: number of tokens in a step."""

    size: Size
    config: TrainConfig
    speed: Speed
    layer_parameters: int
    tokens: int


@dataclass(frozen=True)
class Choice:
    """An option with the best number of steps for it. log_loss: the logarithm of the expected loss.

    is_limited_by_time: whether more steps would be better, if they fitted into the time.
    """

    option: Option
    steps: int
    log_loss: float
    is_limited_by_time: bool


def best_training(option: Option, seconds: float, law: ScalingLaw, text: Text) -> Choice | None:
    """Return the option with the best number of steps that fits into the time, or None if too few steps fit."""
    fitting = int(seconds / (OVERHEAD * option.speed.seconds))
    if fitting < FEWEST_STEPS:
        return None
    most = min(fitting, law.most_steps(text, option.tokens))
    steps = law.best_steps(text, option.layer_parameters, option.tokens, most)
    return with_steps(option, steps, law, text, is_limited_by_time=steps == fitting)


def with_steps(option: Option, steps: int, law: ScalingLaw, text: Text, *, is_limited_by_time: bool) -> Choice:
    """Return an option with a number of steps, and the loss that the law predicts."""
    log_loss = float(law.expected(text, option.layer_parameters, [steps * option.tokens])[0])
    return Choice(option, steps, log_loss, is_limited_by_time)


def options_of(
    data: DataFolder,
    overrides: tuple[str, ...],
    n_threads: int | None,
    sizes: Sequence[Size] = SIZES,
    measure: Callable[[DataFolder, TrainConfig, int | None], Speed] = measured,
    memory: int | None = None,
) -> Iterator[Option]:
    """Yield the models from the smallest to the largest, each measured when it is needed.

    overrides: settings of the user. memory: limit in bytes; None: most of the available memory. The iteration ends at
    the first model that needs more memory than the limit.

    Raises ConfigurationError if a setting is wrong for every size, and the errors of `measure` for the smallest model.
    """
    seen: list[TrainConfig] = []
    measured_any = False
    error: ConfigurationError | None = None
    for size in sizes:
        try:
            config = config_of(size, _STEPS, overrides)
        except ConfigurationError as found:
            error = found
            continue
        if config in seen:
            continue
        seen.append(config)
        try:
            speed = measure(data, config, n_threads)
        except (TinyNNMemoryError, ConfigurationError):
            if measured_any:
                return
            raise
        measured_any = True
        if speed.nbytes > (_MARGIN * (tnn_available_memory() + speed.nbytes) if memory is None else memory):
            return
        shape = (config.model or ModelArgs()).shape(data.meta.vocab_size)
        embedding = shape.vocab * shape.d_model * (2 if shape.untied else 1)
        tokens = config.windows_of_step * (config.train.t_seq or shape.ctx)
        yield Option(size, config, speed, max(speed.parameters - embedding, 1), tokens)
    if error is not None and not seen:
        raise error


def chosen(
    options: Iterable[Option], seconds: float, law: ScalingLaw, text: Text, most_measuring: float = math.inf
) -> tuple[Choice | None, list[Choice]]:
    """Return the best choice for a given time, and the best training of each option that was considered.

    No larger model is considered after two consecutive models that are worse than the best smaller model, or when
    measuring the options has taken more than `most_measuring` seconds. The first result is None if too few steps of the
    smallest model fit.
    """
    choices: list[Choice] = []
    best: Choice | None = None
    began, worse = time.perf_counter(), 0
    for option in options:
        choice = best_training(option, seconds, law, text)
        if choice is None:
            break
        choices.append(choice)
        if best is None or choice.log_loss < best.log_loss:
            best, worse = choice, 0
        else:
            worse += 1
        if worse == 2 or time.perf_counter() - began > most_measuring:
            break
    return best, choices

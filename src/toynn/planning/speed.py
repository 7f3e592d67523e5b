"""Measure the seconds of a training step on this machine, its memory, and how well a very small model learns a text."""

from __future__ import annotations

import itertools
import math
import re
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from toynn.data import DataFolder
from toynn.errors import ConfigurationError, TinyNNMemoryError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.llm.engine import LlamaSeqEngine
from toynn.planning.recipe import EVALUATED, PROBE, PROBE_STEPS, Size, settings_of
from toynn.tinynn import tnn_session_compute_nbytes, tnn_session_weights_nbytes

with naming_the_extra():
    import tomli_w

    from toynn.training.config import TrainConfig
    from toynn.training.data_config import windows_of
    from toynn.training.divergence import DivergedError
    from toynn.training.memory_need import naming_the_batch
    from toynn.training.model_config import ModelArgs
    from toynn.training.packed_validation import validation_of
    from toynn.training.start import Start
    from toynn.training.start_model import declare_model, realize
    from toynn.training.step import TrainingSteps
    from toynn.training.toml_config import from_toml

TIMED = 3  # smallest number of timed steps; the first step is not timed
_SHORTEST = 0.1  # the timed steps take at least this number of seconds


@dataclass(frozen=True)
class Speed:
    """The cost of training a model. seconds: duration of a step. nbytes: memory of the model and its training graph.

    parameters: number of trained weights.
    """

    seconds: float
    nbytes: int
    parameters: int


def config_of(size: Size, steps: int, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Return the configuration of a run on plain text, with every key set.

    overrides: settings "section.key=VALUE" of the user. If they change d_model or n_layers, the other sizes of the
    model follow. Raises ConfigurationError, which names the key.
    """
    settings = [override.partition("=") for override in overrides]
    given = {key: int(value) for key, _, value in settings if re.fullmatch(r"\s*[1-9][0-9]{0,8}\s*", value)}
    wanted = Size(given.get("model.d_model", size.d_model), given.get("model.n_layers", size.n_layers))
    config = _config(settings_of(wanted, steps), overrides)
    shape = config.model or ModelArgs()
    if (shape.d_model, shape.n_layers) != wanted:
        config = _config(settings_of(Size(shape.d_model, shape.n_layers), steps), overrides)
    config = config.explicit()
    return replace(config, data=config.data.explicit(False))


def _config(settings: Mapping[str, object], overrides: tuple[str, ...]) -> TrainConfig:
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return from_toml(tomli_w.dumps(sections), "the plan", overrides)


@contextmanager
def _training(
    data: DataFolder, config: TrainConfig, n_threads: int | None
) -> Iterator[tuple[LlamaSeqEngine, TrainingSteps, Start]]:
    """Create a model with random weights, and its training graph."""
    shape = (config.model or ModelArgs()).shape(data.meta.vocab_size)
    start = Start(config, shape, 0, None, None)
    windows = windows_of(data.train, start.t_seq, config.train.seed, config.data, config.windows_of_step)
    with LlamaSeqEngine() as engine:
        steps = TrainingSteps(engine, windows, config, lambda: False)
        naming = partial(naming_the_batch, engine, partial(declare_model, start, 1), windows.longest, config)
        with naming((TinyNNMemoryError, ConfigurationError)):
            realize(engine, start, n_threads, config.train.batch)
        with naming():
            steps.build_graph()
        yield engine, steps, start


def measured(data: DataFolder, config: TrainConfig, n_threads: int | None, seconds: float | None = None) -> Speed:
    """Return the cost of training with a configuration.

    seconds: how long to measure, for the mean duration of a step. None: measure the median of a few steps.

    Raises TinyNNMemoryError if a step does not fit into memory, and ConfigurationError if a batch exceeds a limit of
    ggml, or if a loss or gradient is NaN or infinite.
    """
    with _training(data, config, n_threads) as (engine, steps, _):
        nbytes = tnn_session_weights_nbytes(engine.sess) + tnn_session_compute_nbytes(engine.sess)
        parameters = sum(math.prod(tensor.ne) for tensor in engine.params().values())
        times: list[float] = []
        for step in itertools.count(1):
            if len(times) > TIMED and sum(times[1:]) >= (_SHORTEST if seconds is None else seconds):
                break
            began = time.perf_counter()
            try:
                steps.take(step)
            except DivergedError:
                raise ConfigurationError(
                    f"a plan with these settings is not possible, because the loss or a gradient is NaN or infinite in "
                    f"step {step}; use a lower optimizer.lr (now {config.lr:g})"
                ) from None
            times.append(time.perf_counter() - began)
    of_step = statistics.median(times[1:]) if seconds is None else statistics.fmean(times[1:])
    return Speed(of_step, nbytes, parameters)


def probe(data: DataFolder, n_threads: int | None) -> float | None:
    """Train the smallest model for 125 steps, and return its validation loss in nats per token.

    The loss has the same bits on each machine. Returns None if the data has no validation tokens.
    """
    config = config_of(PROBE, PROBE_STEPS)
    with _training(data, config, n_threads) as (engine, steps, start):
        validation = validation_of(data.validation, start.t_seq, config.train.batch, EVALUATED, config.data)
        if validation.tokens == 0:
            return None
        for step in range(1, 1 + PROBE_STEPS):
            if steps.take(step) is None:
                raise TinyNNValueError(f"the probe was interrupted at step {step}; start the plan again")
        return validation.loss(engine).mean

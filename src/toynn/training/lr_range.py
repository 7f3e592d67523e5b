"""The range test: raise the learning rate from step to step, and see at which rates the loss falls and rises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from toynn.arguments import integer, positive
from toynn.data import DataFolder
from toynn.data.pairs import PairBatcher
from toynn.data.windows import Windows
from toynn.errors import ConfigurationError, TinyNNMemoryError, TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.storage.checkpoint import RunReader
from toynn.training.config import TrainConfig
from toynn.training.data_config import windows_of
from toynn.training.defaults import MUON
from toynn.training.divergence import DivergedError
from toynn.training.memory_need import naming_the_batch
from toynn.training.optimizer import Optimizer
from toynn.training.optimizer_config import ScheduleArgs
from toynn.training.start import Start, find_start
from toynn.training.start_model import declare_model, realize
from toynn.training.step import TrainingSteps
from toynn.training.train_args import TrainArgs
from toynn.wording import spelled

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 120
_SMOOTHING = 0.8  # decay rate of the running mean of the changes
_RISEN = 0.3  # the test ends if the mean change exceeds its lowest value by this share of the first loss
_BELOW_LOWEST_LOSS = 4.0  # the suggestion is the learning rate of the lowest mean change, divided by this number


@dataclass(frozen=True)
class RangeTest:
    """The result of a range test. Losses are in nats per token.

    learning_rates: the learning rate of each step.
    losses: the training loss of each step, before its update.
    changes: after each step, the running mean of the changes of the loss. The change of a step is its loss minus the
        loss of the initial weights on the same tokens, so it does not depend on how difficult these tokens are.
    diverged: whether the test ended because the loss or a gradient was NaN or infinite. The lists do not contain this
        step.
    lr: the suggestion for optimizer.lr.
    muon_lr: the suggestion for optimizer.muon_lr; None without Muon.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    changes: tuple[float, ...]
    diverged: bool
    lr: float
    muon_lr: float | None


@dataclass(frozen=True)
class RangeProgress:
    """The progress of a range test, which first computes the losses of the initial weights, and then trains.

    step: number of steps whose loss was computed so far. steps: largest number of steps.
    loss: the loss of the last of these steps. learning_rate: of this step; None for a loss of the initial weights.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float | None


Report: TypeAlias = Callable[[RangeProgress], None]


class _RisingOptimizer(Optimizer):
    """The optimizer of a run, with a learning rate that rises exponentially from `lowest` to `highest`."""

    def __init__(self, config: TrainConfig, lowest: float, highest: float, steps: int) -> None:
        super().__init__(config)
        self._lowest, self._growth = lowest, math.log(highest / lowest) / (steps - 1)

    def _scheduled(self, lr: float, step: int) -> float:
        """Return the learning rate of a step. lr: optimizer.lr, or optimizer.muon_lr, which rises in proportion."""
        return lr / self._config.lr * self._lowest * math.exp(self._growth * (step - 1))


def range_test(
    args: TrainArgs,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    report: Report | None = None,
) -> RangeTest:
    """Train with a learning rate that rises from `lowest` to `highest`, and suggest a value for optimizer.lr.

    The test ends early if the loss rises clearly. Nothing is written. The result depends only on
    the data, the initial weights, the configuration and the range. train.steps and [schedule] have no effect.

    args.out: a path that does not exist. report: a function that is called after each computed loss.

    Raises TinyNNValueError if the range is empty or the loss did not fall; ConfigurationError for preference pairs and
    for optimizer.lr = 0; or the errors of `toynn.training.train`.
    """
    tell = report or (lambda _: None)
    lowest = positive(spelled("lowest", "--lowest"), lowest)
    highest = positive(spelled("highest", "--highest"), highest)
    steps = integer("steps", steps, 10)
    if lowest >= highest:
        raise TinyNNValueError(
            f"{spelled('lowest', '--lowest')} must be below {spelled('highest', '--highest')} = {highest:g}, "
            f"got {lowest:g}"
        )
    data = DataFolder.open(args.data)
    config = args.config or TrainConfig()
    train = dataclasses.replace(config.train, steps=steps, epochs=None, seconds=0.0)
    config = dataclasses.replace(config, train=train, schedule=ScheduleArgs(warmup=0))
    start = find_start(dataclasses.replace(args, config=config), RunReader(args.out), data)
    config = start.config
    windows = windows_of(data.train, start.t_seq, config.train.seed, config.data, config.windows_of_step)
    if isinstance(windows, PairBatcher):
        raise ConfigurationError(
            "train.objective must be next_token, got dpo; choose optimizer.lr by hand, because the loss of preference "
            "pairs does not show whether a learning rate is too high"
        )
    if config.lr == 0:
        raise ConfigurationError("optimizer.lr must be above 0, got 0; leave out optimizer.lr")
    with LlamaSeqEngine() as engine:
        taker = TrainingSteps(engine, windows, config, lambda: False, _RisingOptimizer(config, lowest, highest, steps))
        _realize(engine, taker, start, args.n_threads, windows.longest)
        before: list[float] = []
        for step in range(1, steps + 1):
            before.append(_loss_of_step(engine, windows, config, step))
            tell(RangeProgress(step, steps, before[-1], None))
        taker.graph_dropped()
        return _rising(taker, config, before, tell)


def _realize(engine: LlamaSeqEngine, taker: TrainingSteps, start: Start, n_threads: int | None, longest: int) -> None:
    """Create the model and its training graph.

    Raises TinyNNMemoryError if they do not fit into memory, and ConfigurationError if they exceed a limit of ggml. The
    message names the configuration key that is too large.
    """
    naming = partial(naming_the_batch, engine, partial(declare_model, start, 1), longest, start.config)
    with naming((TinyNNMemoryError, ConfigurationError)):
        realize(engine, start, n_threads, start.config.train.batch)
    with naming():
        taker.build_graph()


def _loss_of_step(engine: LlamaSeqEngine, windows: Windows, config: TrainConfig, step: int) -> float:
    """Return the loss of the current weights on the tokens of a step, counted from 1."""
    nats, counted, size = 0.0, 0, config.train.batch
    for first in range((step - 1) * config.windows_of_step, step * config.windows_of_step, size):
        batch = windows.read(first, size)
        n = int(np.count_nonzero(batch.targets != IGNORED))
        if n > 0:
            engine.use_sequence_length(windows.length(first))
            nats += n * engine.mean_loss(batch.ids, batch.targets, starts=batch.starts)
            counted += n
    return nats / max(counted, 1)


def _rising(taker: TrainingSteps, config: TrainConfig, before: list[float], tell: Report) -> RangeTest:
    """Take the steps of the test until the loss rises. before: the loss of the initial weights on the tokens of each
    step.
    """
    rates: list[float] = []
    losses: list[float] = []
    changes: list[float] = []
    total, diverged = 0.0, False
    for step, untrained in enumerate(before, 1):
        try:
            result = taker.take(step)
        except DivergedError:
            diverged = True
            break
        if result is None:
            raise AssertionError("bug in toynn: a step without interruptions was interrupted; please report it")
        rates.append(result.learning_rate)
        losses.append(result.loss)
        tell(RangeProgress(step, len(before), result.loss, result.learning_rate))
        total = _SMOOTHING * total + (1 - _SMOOTHING) * (result.loss - untrained)
        changes.append(total / (1 - _SMOOTHING**step))  # the divisor removes the bias of the first means towards 0
        if changes[-1] - min(changes) > _RISEN * before[0]:
            break
    if not changes:
        raise TinyNNValueError(
            "no learning rate can be suggested, because the loss or a gradient of the initial weights is NaN or "
            "infinite; use other initial weights"
        )
    best = min(range(len(changes)), key=changes.__getitem__)
    if best == 0:
        raise TinyNNValueError(
            "no learning rate can be suggested, because the loss did not fall at any learning rate up to "
            f"{rates[-1]:.2g}; use a smaller value of {spelled('lowest', '--lowest')}, or more steps"
        )
    lr = _rounded(rates[best] / _BELOW_LOWEST_LOSS)
    muon = config.optimizer_kind == MUON
    muon_lr = _rounded(config.optimizer.muon_lr * lr / config.lr) if muon else None
    return RangeTest(tuple(rates), tuple(losses), tuple(changes), diverged, lr, muon_lr)


def _rounded(lr: float) -> float:
    """Return a learning rate with two digits."""
    return float(f"{lr:.1e}")

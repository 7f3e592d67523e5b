"""Suggest a learning rate for a run, by a range test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from toynn.api.base_model import described_base, open_base
from toynn.api.text_model import TextModel
from toynn.api.train_model import PathLike, initial_checkpoint, with_open_base
from toynn.api.train_settings import config_of, overrides_of
from toynn.extras import naming_the_extra
from toynn.llm.adapters.open_base import OpenBase
from toynn.storage.checkpoint import Checkpoint
from toynn.storage.regular_files import path_of

with naming_the_extra():
    from toynn.training.config import TrainConfig
    from toynn.training.lr_range import HIGHEST, LOWEST, STEPS, RangeTest, Report, range_test
    from toynn.training.train_args import TrainArgs


def lr_find(
    data: PathLike,
    *,
    init: PathLike | TextModel | Checkpoint | None = None,
    base: PathLike | None = None,
    config: PathLike | TrainConfig | None = None,
    steps: int = STEPS,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    n_threads: int | None = None,
    **settings: object,
) -> RangeTest:
    """Suggest a learning rate for `toynn.train` with the same data, initial weights and settings.

    The model is trained for a few steps, each with a higher learning rate. The suggestion is a quarter of the rate at
    which the loss has fallen most. Nothing is written. The result is the same each time, at any number of threads.

    Args:
        data, init, base, config, n_threads: as for `toynn.train`.
        steps: largest number of steps of the test, at least 10.
        lowest, highest: learning rates of the first and the last step.
        settings: single settings, as for `toynn.train`. train.steps, train.epochs and schedule.* have no effect.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument is wrong, or the loss did not fall at any learning rate.
        ConfigurationError: a setting is unknown or has a wrong value, or the data consists of preference pairs.
        FileFormatError: the data or a model is damaged.
        TinyNNMemoryError: the model or a step does not fit into memory. OSError: a file cannot be read.
    """
    if config is not None and not isinstance(config, TrainConfig):
        config = path_of("config", config)
    place = None if base is None else path_of("base", base)
    start, overrides = initial_checkpoint(init), overrides_of(settings)
    return tested_range(
        path_of("data", data), config, overrides, start, place, n_threads, (lowest, highest, steps), None
    )


def tested_range(
    data: Path,
    config: TrainConfig | Path | None,
    overrides: Iterable[str],
    init: Checkpoint | None,
    base: Path | None,
    n_threads: int | None,
    test: tuple[float, float, int],
    report: Report | None,
) -> RangeTest:
    """Return the range test of a run.

    overrides: as for `config_of`. test: lowest and highest rate, number of steps. report: as for `range_test`.
    """
    opened = None if base is None or init is not None else open_base(base)
    settings = config_of(config, overrides, init=init if opened is None else described_base(opened))
    with tempfile.TemporaryDirectory() as empty:
        args = TrainArgs(data, Path(empty) / "run", settings, init, n_threads=n_threads, base=opened or base)
        args = with_open_base(args)
        try:
            return range_test(args, *test, report)
        finally:
            if isinstance(args.base, OpenBase):
                args.base.close()

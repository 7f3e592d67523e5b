"""Plan the training of a model: what to train in a given time, and the loss to expect."""

from __future__ import annotations

import dataclasses
import os
import time as clock
from collections.abc import Iterable
from pathlib import Path

from toynn.api.train_settings import config_of, overrides_of, settings_in
from toynn.arguments import integer
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.parallel.launch import launched_processes
from toynn.planning.amounts import bytes_of, parameters_of, seconds_of
from toynn.storage.regular_files import path_of
from toynn.wording import spelled

with naming_the_extra():
    from toynn.planning.plan import Plan, make_plan
    from toynn.training.config import TrainConfig


def plan(
    data: str | os.PathLike[str],
    *,
    time: float | str | None = None,
    params: float | str | None = None,
    memory: float | str | None = None,
    config: str | os.PathLike[str] | None = None,
    n_threads: int | None = None,
    **settings: object,
) -> Plan:
    """Return which model to train on a text in a given time, how to train it, and the loss to expect.

    The plan measures the speed of a few models on this machine for a few seconds, and predicts the losses of these
    models by a scaling law; see docs/planning.md. `toynn.train(data, run, time=time)` trains by the plan and ends
    within the time. `toynn.train(data, run, **plan.settings)` trains for the number of steps of the plan instead.

    Args:
        data: a data folder that `toynn.prepare` made of plain text.
        time: the time of training: seconds, or a text like "90s", "20m" or "1h30m". Default: the time for which
            `params` is the best number of parameters.
        params: approximate number of parameters, as a number or a text like "2M". Default: chosen by the plan.
        memory: limit of the memory of training, in bytes or as a text like "4GB". Default: the available memory.
        config: the path of a TOML file with settings, which the plan keeps.
        n_threads: number of threads. Default: the number of cores that this process may use.
        settings: single settings, which the plan keeps, with names as in `toynn.train`: batch=8.

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument is wrong, the data is not plain text, or no model fits.
        ConfigurationError: a setting is unknown or has a wrong value.
        FileFormatError: the data is damaged. OSError: a file cannot be read.
    """
    overrides = overrides_of(settings)
    return plan_of(path_of("data", data), time, params, memory, config, overrides, n_threads)


def plan_of(
    data: Path,
    time: object,
    params: object,
    memory: object,
    config: object,
    overrides: Iterable[str],
    n_threads: int | None,
    reserved: float = 0.0,
) -> Plan:
    """Return the plan for the arguments of `plan`.

    overrides: settings "section.key=VALUE". reserved: seconds of `time` for other work than planning and training.
    """
    if n_threads is not None:
        n_threads = integer("n_threads", n_threads, 1)
    if time is None and params is None:
        needed, example = spelled("time or params", "--time or --params"), spelled('time="1h"', "--time 1h")
        raise TinyNNValueError(f"a plan needs {needed}, for example {example}")
    from_file = [] if config is None else settings_in(path_of("config", config))
    return make_plan(
        data,
        None if time is None else seconds_of(spelled("time", "--time"), time),
        None if params is None else parameters_of(spelled("params", "--params"), params),
        None if memory is None else bytes_of(spelled("memory", "--memory"), memory),
        (*from_file, *overrides),
        n_threads,
        reserved=reserved,
    )


@dataclasses.dataclass(frozen=True)
class TimedStart:
    """The start of a run that must end in a given time.

    config: the configuration of the run.
    seconds_used: the duration of the planning, plus the seconds that were reserved.
    plan: None for a resumed run, which keeps its plan.
    """

    config: TrainConfig
    seconds_used: float
    plan: Plan | None


def timed_start(
    data: Path,
    time: object,
    config: object,
    overrides: Iterable[str],
    n_threads: int | None,
    *,
    resumed: Path | None,
    resume_from: str | None,
    other_start: bool,
    reserved: float = 0.0,
) -> TimedStart:
    """Return the start of a run that must end in a given time.

    time: the time of the whole run, also if the run is resumed.
    config: the path of a TOML file, or None.
    overrides: settings "section.key=VALUE".
    resumed: the run to resume, or None.
    other_start: whether training starts from an existing model.
    reserved: seconds of `time` for other work than planning and training.

    Raises the errors of `plan`.
    """
    began = clock.perf_counter()
    seconds = seconds_of(spelled("time", "--time"), time)
    name = spelled("time", "--time")
    if launched_processes() > 1:
        raise TinyNNValueError(
            f"{name} needs a run in one process, but mpiexec started {launched_processes()} processes; start "
            "the command without mpiexec"
        )
    if other_start:
        raise TinyNNValueError(
            f"{name} cannot be combined with {spelled('init or base', '--init or --base')}, because a plan trains "
            'from random weights; set train.seconds and schedule.kind = "wsd" instead'
        )
    if config is not None and not isinstance(config, Path):
        raise TinyNNTypeError(f"{name} cannot be combined with a TrainConfig; give a TOML file or single settings")
    overrides = tuple(overrides)
    if resumed is not None:
        longer = (*overrides, f"train.seconds={seconds!r}")
        return TimedStart(_given(config_of(config, longer, resumed=resumed, resume_from=resume_from)), reserved, None)
    if config is not None:
        overrides = (*settings_in(config), *overrides)
    planned = make_plan(data, seconds, overrides=overrides, n_threads=n_threads, reserved=reserved)
    used = clock.perf_counter() - began + reserved
    whole = seconds if planned.uses_whole_time else min(seconds, used + planned.seconds)
    chosen = config_of(None, overrides_of({**planned.settings, "train.seconds": whole, "schedule.decay": 0}))
    return TimedStart(_given(chosen), used, planned)


def _given(config: TrainConfig | None) -> TrainConfig:
    if config is None:
        raise AssertionError("bug in toynn: a configuration with a time is empty; please report it")
    return config

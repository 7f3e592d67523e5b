"""Runs with train.seconds: when the learning rate begins to fall, and when the run ends. The clock is simulated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toynn.errors import ConfigurationError
from toynn.training import Evaluated, Saved, ScheduleArgs, Started, StepArgs, Stepped, TrainConfig
from toynn.training.optimizer import Optimizer
from toynn.training.schedule import learning_rate
from toynn.training.time_budget import TimeBudget, seconds_in_log

pytestmark = pytest.mark.quick


def timed(seconds: float) -> TrainConfig:
    return TrainConfig(
        train=StepArgs(seconds=seconds), schedule=ScheduleArgs("wsd", warmup=3, min_ratio=0.0)
    ).explicit()


class SimulatedRun:
    """A run that only counts steps. seconds: returns the duration of a step. `now` is the simulated time."""

    def __init__(self, config: TrainConfig, seconds: Callable[[int], float], used: float = 0.0, step: int = 0) -> None:
        self.config, self.now, self.step, self._seconds = config, 0.0, step, seconds
        self.budget = TimeBudget(config, used, step, lambda: self.now)

    def run(self, evaluation: float = 0.0, most: int = 10**6) -> None:
        """Take steps until the run ends. If `evaluation` (seconds) is not 0, evaluate as configured and at the end."""
        for _ in range(most):
            if self.step == self.config.last_step:
                break
            self.step += 1
            self.now += self._seconds(self.step)
            self.budget(Stepped(self.step, 1.0, 1.0, 1.0, 1, 1.0, 1.0))
            self.config = self.budget.decide(self.step, self.config) or self.config
            last = self.step == self.config.last_step
            if evaluation and (last or self.step % self.config.evaluation.every == 0):
                self.now += evaluation
                self.budget(Evaluated(self.step, 1.0, 1.0, 1.0, 1, evaluation, False))


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("constant", lambda _: 0.1),
        ("twice as slow after 300 steps", lambda step: 0.1 if step < 300 else 0.2),
        ("four times as fast after 300 steps", lambda step: 0.1 if step < 300 else 0.025),
        ("twice as slow near the end of the fall", lambda step: 0.1 if step < 900 else 0.2),
        ("a slow first step", lambda step: 3.0 if step == 1 else 0.1),
        ("other programs from time to time", lambda step: 0.1 + 0.2 * (step // 40 % 3 == 0)),
    ],
)
@pytest.mark.parametrize("evaluation", [0.0, 1.5])
def test_a_run_ends_within_two_percent_of_its_time(
    name: str, seconds: Callable[[int], float], evaluation: float
) -> None:
    run = SimulatedRun(timed(100.0), seconds)
    run.run(evaluation)
    assert abs(run.now - 100.0) <= 2.0, name
    first, last = run.config.schedule.steps_of_falls[0][0], run.step
    assert 0.05 <= (last - first) / last <= 0.45


def test_at_a_constant_speed_there_is_one_fall_of_a_fifth_of_all_steps() -> None:
    run = SimulatedRun(timed(100.0), lambda _: 0.1)
    run.run()
    assert run.config.schedule.falls == ("800-1000",)
    wsd = ScheduleArgs("wsd", warmup=3, decay=200, min_ratio=0.0)
    rates = [Optimizer(run.config).learning_rate(step) for step in range(1, 1001)]
    assert rates == [learning_rate(wsd, run.config.lr, step, 1000) for step in range(1, 1001)]


def test_used_time_counts_and_a_run_without_time_ends_at_once() -> None:
    run = SimulatedRun(timed(100.0), lambda _: 0.1, used=60.0, step=600)
    run.run()
    assert abs(run.now - 40.0) < 2.0
    over = SimulatedRun(timed(100.0), lambda _: 0.1, used=200.0, step=600)
    over.run()
    assert over.step <= 602


def test_a_slow_run_ends_in_its_time_even_before_the_end_of_the_warm_up() -> None:
    config = timed(10.0)
    run = SimulatedRun(replace(config, schedule=replace(config.schedule, warmup=100)), lambda _: 0.5)
    run.run()
    assert run.step == 20
    run.config.check_warmup()
    rates = [Optimizer(run.config).learning_rate(step) for step in range(1, 21)]
    ((begin, end),) = run.config.schedule.steps_of_falls
    assert (begin, end) in ((15, 20), (16, 20))
    assert rates[:begin] == [run.config.lr * step / 100 for step in range(1, begin + 1)]
    falling = [rates[begin - 1] * (20 - step) / (20 - begin) for step in range(begin + 1, 21)]
    assert rates[begin:] == pytest.approx(falling)


def test_a_run_that_is_resumed_during_the_fall_keeps_its_end() -> None:
    config = timed(100.0)
    config = replace(
        config, train=replace(config.train, steps=1000), schedule=replace(config.schedule, falls=("800-1000",))
    )
    run = SimulatedRun(config, lambda _: 0.1, used=90.0, step=900)
    run.run()
    assert (run.step, run.config.schedule.falls) == (1000, ("800-1000",))
    late = SimulatedRun(config, lambda _: 0.2, used=90.0, step=900)
    late.run()
    assert abs(late.now - 10.0) < 1.0
    assert late.step < 960


def test_time_for_the_last_evaluation_and_checkpoint_is_kept_free() -> None:
    run = SimulatedRun(timed(100.0), lambda _: 0.1)
    started = Started(Path(), Path(), 0, 1000, 1, 1000, 10_000, 30_000, None, None, "")
    run.budget(started)
    run.now += 2.0
    run.budget(Saved(0, Path(), 1, 2.0))
    run.run()
    # an evaluation of 30,000 tokens takes as long as 10 steps, and a checkpoint takes 2 seconds
    assert abs(run.now - (100.0 - 2.0 - 10 * 0.1)) < 1.0


@given(
    begin=st.integers(1, 50),
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=6),
    warmup=st.integers(0, 60),
    min_ratio=st.sampled_from([0.0, 0.25]),
)
def test_the_learning_rate_never_jumps_and_never_rises_after_the_first_fall(
    begin: int, lengths: list[tuple[int, int]], warmup: int, min_ratio: float
) -> None:
    falls, at = [], begin
    for i, (until_next, length) in enumerate(lengths):
        falls.append((at, at + (length if i + 1 == len(lengths) else max(length, until_next))))
        at += until_next
    schedule = ScheduleArgs("wsd", warmup, 0, min_ratio, tuple(f"{a}-{b}" for a, b in falls))
    last = falls[-1][1]
    rates = [learning_rate(schedule, 1.0, step, last) for step in range(1, last + 1)]
    before = rates[begin - 1]
    assert before == (1.0 if warmup <= begin else begin / warmup)
    after = rates[begin - 1 :]
    assert all(b <= a for a, b in pairwise(after))
    assert rates[-1] == pytest.approx(min_ratio * before)
    left = 1.0  # the part of the fall that is still ahead, computed step by step from the definition of the falls
    for step in range(begin + 1, last + 1):
        end = next(b for a, b in reversed(falls) if a < step)
        left -= left / (end - (step - 1)) if end >= step else left
        assert rates[step - 1] == pytest.approx(before * (min_ratio + (1 - min_ratio) * left), abs=1e-9)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ({"falls": ("800",)}, "schedule.falls must contain texts"),
        ({"falls": ("800-800",)}, "schedule.falls must contain texts"),
        ({"falls": ("800-1000", "700-1000")}, "schedule.falls must contain texts"),
        ({"falls": ("-1-1000",)}, "schedule.falls must contain texts"),
        ({"falls": ("1-99999999999",)}, "schedule.falls must contain texts"),
        ({"falls": (8,)}, "schedule.falls must be a list of texts"),
        ({"falls": "8-9"}, "schedule.falls must be a list of texts"),
        ({"kind": "cosine", "falls": ("800-1000",)}, 'schedule.falls needs schedule.kind = "wsd"'),
        ({"decay": 5, "falls": ("800-1000",)}, "cannot both be given"),
    ],
)
def test_wrong_falls_are_refused(schedule: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ScheduleArgs(**{"kind": "wsd", **schedule})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("train", "schedule", "says"),
    [
        ({"seconds": 10}, {"kind": "cosine"}, 'train.seconds needs schedule.kind = "wsd"'),
        ({"seconds": 10}, {"decay": 5}, "cannot both be given"),
        ({"seconds": 10, "epochs": 2}, {}, "train.seconds = 10 and train.epochs = 2"),
        ({"seconds": 10}, {"falls": ("5-10",)}, "must end at train.steps = 1000"),
    ],
)
def test_a_time_that_does_not_fit_the_other_keys_is_refused(
    train: dict[str, object], schedule: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        TrainConfig(train=StepArgs(**train), schedule=ScheduleArgs(**{"kind": "wsd", **schedule}))  # type: ignore[arg-type]


def test_the_used_time_is_the_sum_over_all_starts_also_with_damaged_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert seconds_in_log(log) == 0.0
    lines = [
        {"event": "started", "seconds_used": 2.0},
        {"event": "saved", "seconds": 0.5},
        {"event": "stepped", "seconds": 1.0},
        {"event": "rescheduled", "seconds_used": 99.0},
        {"event": "ended", "seconds": 50.0},
        {"event": "started", "seconds_used": 4.0},
        {"event": "stepped", "seconds": 1.0},
        {"event": "evaluated", "seconds": 0.25},
        {"event": "stepped", "seconds": "x"},
        {"event": 3, "seconds": True},
        ["event"],
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "stepped", "sec', encoding="utf-8")
    assert seconds_in_log(log) == 5.25

"""End a run in a given time (train.seconds): decide by the clock when the learning rate begins to fall.

The learning rate stays constant until the remaining time is just enough for its fall, which takes a fifth of all steps.
If steps take more or less time during the fall, the end of the fall is moved. Each decision becomes an entry of
schedule.falls. These entries and train.steps determine the bits of the run. The clock influences the bits in no other
way.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from toynn.errors import ConfigurationError
from toynn.parallel.processes import Processes
from toynn.storage.checkpoint.names import LOG
from toynn.storage.regular_files import open_regular
from toynn.training.config import TrainConfig
from toynn.training.events import Evaluated, Event, Saved, Started, Stepped
from toynn.training.schedule import FALL
from toynn.training.start import Start
from toynn.training.train_args import TrainArgs

_LOOK_BACK = 0.25  # the speed is computed from the last steps: this share of all steps so far
_FEWEST = 8  # the speed is computed from at least this number of steps, if the run has that many
_TOLERATED = 0.005  # the end is moved only if the expected duration differs from train.seconds by more than this share
_MOST_FALLS = 40  # largest number of entries of schedule.falls


def now() -> float:
    """Return the time in seconds since a fixed moment, by the clock that all decisions use. Tests replace this
    function.
    """
    return time.perf_counter()


class TimeBudget:
    """The time of a run, and the steps that fit into it.

    As a callback, it measures how long an evaluation and a checkpoint take.

    config: the configuration of the run.
    used: the seconds that the run has used before.
    step: number of steps taken before.
    clock: returns the time in seconds.
    """

    def __init__(self, config: TrainConfig, used: float, step: int, clock: Callable[[], float]) -> None:
        self._config, self._clock, self._zero = config, clock, clock() - used
        # total seconds of the steps of this process, at the start and after each step
        self._first, self._seconds = step, [0.0]
        self._next_check: int | None = None
        self._steps_of_evaluation = 0.0  # estimated duration of an evaluation, as a number of steps
        # duration of the last evaluation in seconds; None: there was no evaluation yet
        self._evaluating: float | None = None
        self._saving = 0.0  # duration of the last checkpoint in seconds
        self._last_event = self.used

    @property
    def used(self) -> float:
        """The seconds that the run has used so far."""
        return self._clock() - self._zero

    def __call__(self, event: Event) -> None:
        used = self.used
        if isinstance(event, Started):
            tokens, windows = event.validation_tokens, self._config.evaluation.windows
            if windows and self._config.train.t_seq:
                tokens = min(tokens, windows * self._config.train.t_seq)
            # a step takes three times as long as an evaluation of its tokens, because of the backward pass
            self._steps_of_evaluation = tokens / (3 * max(event.batch_tokens, 1))
        elif isinstance(event, Stepped):
            self._seconds.append(self._seconds[-1] + used - self._last_event)
        elif isinstance(event, Evaluated):
            self._evaluating = used - self._last_event
        elif isinstance(event, Saved):
            self._saving = used - self._last_event
        self._last_event = used

    def decide(self, step: int, config: TrainConfig) -> TrainConfig | None:
        """Return the configuration with a new last step, or None if the last step does not change.

        step: the step that was just taken. Call this method after each step, and after this object has received the
            event `Stepped`.
        """
        seconds, left = self._seconds_of_a_step(), self._config.train.seconds - self.used
        falls, last = config.schedule.falls, config.train.steps
        if not falls:
            full = step + max(1, round(step * FALL / (1.0 - FALL)))
            if self._duration(step, full, seconds) < left - seconds:
                return None
            # The rounding of `full` may leave time for one more step.
            return _ending_at(config, step, self._fitting(step, full + 1, seconds, left))
        if self._next_check is None:
            self._next_check = step + max(1, (last - step) // 4)
        if step < self._next_check or step >= last or len(falls) >= _MOST_FALLS:
            return None
        moved = abs(left - self._duration(step, last, seconds)) > _TOLERATED * self._config.train.seconds
        fitting = self._fitting(step, step + 2 * (last - step), seconds, left) if moved else last
        self._next_check = step + max(1, (fitting - step) // 2)
        return None if fitting == last else _ending_at(config, step, fitting)

    def _fitting(self, step: int, most: int, seconds: float, left: float) -> int:
        """Return the largest last step, from step + 1 to most, with which the run would end in the remaining time."""
        return (
            step
            + 1
            + bisect_right(range(step + 2, most + 1), left, key=lambda last: self._duration(step, last, seconds))
        )

    def _duration(self, step: int, last: int, seconds: float) -> float:
        """Return the expected seconds from a step to the end of the run, if the run ends after step `last`."""
        evaluation, checkpoint = self._config.evaluation.every, self._config.checkpoint
        evaluations = 1 + (_multiples(evaluation, step, last - 1) if evaluation else 0)
        saves = 1 + (_multiples(checkpoint.every, step, last - 1) if checkpoint.every else 0)
        if checkpoint.keep_best and evaluation != checkpoint.every:
            saves += evaluations - 1  # each evaluation may be the best so far, and then saves a checkpoint
        evaluating = self._steps_of_evaluation * seconds if self._evaluating is None else self._evaluating
        return (last - step) * seconds + evaluations * evaluating + saves * self._saving

    def _seconds_of_a_step(self) -> float:
        """Return the mean seconds of the last steps."""
        taken = len(self._seconds) - 1
        n = min(taken, max(_FEWEST, round(_LOOK_BACK * (self._first + taken))))
        return max((self._seconds[-1] - self._seconds[-1 - n]) / n, 1e-9)


def _multiples(of: int, begin: int, end: int) -> int:
    """Return how many multiples of the number `of` are above `begin` and at most `end`."""
    return end // of - begin // of


def budget_of(args: TrainArgs, start: Start, began: float, processes: Processes | None) -> TimeBudget | None:
    """Return the time budget of a run, or None if the run has no train.seconds.

    began: the time (`now`) at which this process began with the run.

    Raises ConfigurationError for several processes, or OSError if the log of the run cannot be read.
    """
    seconds = start.config.train.seconds
    if not seconds:
        return None
    if processes is not None:
        raise ConfigurationError(
            f"train.seconds = {seconds:g} needs a run in one process, but mpiexec started {processes.n} processes; "
            "set train.steps instead"
        )
    used = args.seconds_used + (seconds_in_log(args.out / LOG) if args.resume else 0.0)
    return TimeBudget(start.config, used + now() - began, start.step, now)


def _ending_at(config: TrainConfig, step: int, last: int) -> TrainConfig:
    """Return the configuration with a learning rate that falls after `step` and ends at `last`."""
    schedule = replace(config.schedule, falls=(*config.schedule.falls, f"{step}-{last}"))
    return replace(config, train=replace(config.train, steps=last), schedule=schedule)


def seconds_in_log(log: Path) -> float:
    """Return the seconds that a run has used so far, from its log. Steps that were taken twice count twice.

    A line that is not an event is skipped, because `read_log` reports it. Returns 0 if there is no log. Raises
    FileFormatError if the path is not a regular file, or OSError if the log cannot be read.
    """
    used = 0.0
    try:
        with open_regular(log) as file:
            for line in file:
                try:
                    event = json.loads(line)
                    kind = event["event"]
                    seconds = event.get("seconds_used" if kind == "started" else "seconds")
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue
                if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < 1e12:
                    continue
                if kind == "started":
                    used = float(seconds)  # this number includes the time of all earlier starts
                # the event "ended" has the seconds of the whole process, which are already counted
                elif kind != "ended":
                    used += seconds
    except FileNotFoundError:
        return 0.0
    return used

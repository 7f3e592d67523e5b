"""The learning rate of each step."""

from __future__ import annotations

import math

from toynn.arguments import instance_of, integer, not_negative
from toynn.training.optimizer_config import ScheduleArgs

FALL = 0.2  # with train.seconds, the learning rate falls during this share of all steps


def learning_rate(schedule: ScheduleArgs, lr: float, step: int, steps: int) -> float:
    """Return the learning rate of step `step`, counted from 1, in a run of `steps` steps.

    During the first schedule.warmup steps, the learning rate rises linearly and reaches lr at the last of them. Then it
    depends on schedule.kind:

    - constant: it stays lr.
    - cosine: it falls along half a cosine to min_ratio * lr at the last step (Loshchilov and Hutter 2017).
    - wsd: it stays lr until schedule.decay steps are left. Then it falls linearly to min_ratio * lr at the last step
      (Hu et al. 2024). With schedule.falls, each entry "a-b" makes the learning rate fall linearly after step a, so
      that it would be min_ratio * lr at step b. The next entry can change this.

    Raises TinyNNValueError or TinyNNTypeError with the name of the argument.
    """
    instance_of("schedule", schedule, ScheduleArgs)
    lr, step, steps = not_negative("lr", lr), integer("step", step, 1), integer("steps", steps, 1)
    warmup = schedule.warmup_of(steps)
    if schedule.falls:
        return _with_falls(schedule, lr, step, warmup)
    if step <= warmup:
        return lr * step / warmup
    if schedule.kind == "cosine":
        done = (step - warmup) / max(steps - warmup, 1)
        return lr * (schedule.min_ratio + (1.0 - schedule.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))
    if schedule.kind == "wsd" and schedule.decay > 0 and step > steps - schedule.decay:
        left = max(steps - step, 0) / schedule.decay
        return lr * (schedule.min_ratio + (1.0 - schedule.min_ratio) * left)
    return lr


def _with_falls(schedule: ScheduleArgs, lr: float, step: int, warmup: int) -> float:
    """Return the learning rate of a step of a schedule with falls."""
    falls = schedule.steps_of_falls
    first = falls[0][0]
    peak = lr * min(step, first) / warmup if min(step, first) <= warmup and warmup else lr
    if step <= first:
        return peak
    left = 1.0  # the part of the fall that is still ahead: 1 at the start of the fall, 0 at its end
    for i, (begin, end) in enumerate(falls):
        if step <= begin:
            break
        until = step if i + 1 == len(falls) else min(step, falls[i + 1][0])
        left *= max(end - until, 0) / (end - begin)
    return peak * (schedule.min_ratio + (1.0 - schedule.min_ratio) * left)

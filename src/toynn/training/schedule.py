"""The learning rate of each step."""

from __future__ import annotations

import math

from toynn.arguments import instance_of, integer, not_negative
from toynn.training.config import ScheduleArgs


def learning_rate(schedule: ScheduleArgs, lr: float, step: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 1) in a run of `steps` steps.

    During the first `warmup` steps it rises linearly, to lr at the last of them. After that it is:

    - constant: lr;
    - cosine: half a cosine, from lr to min_ratio * lr at the last step (Loshchilov and Hutter 2017);
    - wsd: lr until `decay` steps are left, then linear to min_ratio * lr at the last step (Hu et al. 2024).

    Raises TinyNNValueError or TinyNNTypeError with the name of the argument.
    """
    instance_of("schedule", schedule, ScheduleArgs)
    lr, step, steps = not_negative("lr", lr), integer("step", step, 1), integer("steps", steps, 1)
    warmup = schedule.warmup_of(steps)
    if step <= warmup:
        return lr * step / warmup
    if schedule.kind == "cosine":
        done = (step - warmup) / max(steps - warmup, 1)
        return lr * (schedule.min_ratio + (1.0 - schedule.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))
    if schedule.kind == "wsd" and schedule.decay > 0 and step > steps - schedule.decay:
        left = max(steps - step, 0) / schedule.decay
        return lr * (schedule.min_ratio + (1.0 - schedule.min_ratio) * left)
    return lr

"""The learning rate of each step."""

from __future__ import annotations

import math

from toynn.training.config import ScheduleArgs


def learning_rate(schedule: ScheduleArgs, lr: float, step: int, steps: int) -> float:
    """The rate of a step, counted from 1, of `steps` in all.

    A line up to lr over `warmup` steps, reaching it at the last of them. Then

    - constant: lr;
    - cosine: half a cosine, from lr down to min_ratio * lr at the last step (Loshchilov and Hutter 2017);
    - wsd: lr until `decay` steps are left, then a line down to min_ratio * lr at the last step (Hu et al. 2024).
    """
    warmup = schedule.warmup_of(steps)
    if step <= warmup:
        return lr * step / warmup
    if schedule.kind == "cosine":
        done = (step - warmup) / (steps - warmup)
        return lr * (schedule.min_ratio + (1.0 - schedule.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))
    if schedule.kind == "wsd" and schedule.decay > 0 and step > steps - schedule.decay:
        left = max(steps - step, 0) / schedule.decay
        return lr * (schedule.min_ratio + (1.0 - schedule.min_ratio) * left)
    return lr

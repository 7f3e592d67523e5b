"""ToyLR, the learning rate schedules of the Ruby project toy. `toynn train` uses `toynn.training.schedule` instead."""

from __future__ import annotations

import math

from toynn.arguments import integer, not_negative, real


class ToyLR:
    """The schedules of the Ruby project toy. All methods are static."""

    @staticmethod
    def cosine(step: int, n_steps: int, lr_max: float, lr_min: float, warmup_steps: int) -> float:
        """Return the learning rate of a step, counted from 0.

        The learning rate rises linearly to lr_max during the first warmup_steps steps, then falls as half a cosine to
        lr_min at step n_steps, and stays there.

        Raises TinyNNValueError or TinyNNTypeError with the name of the argument.
        """
        step, n_steps = integer("step", step, 0), integer("n_steps", n_steps, 0)
        lr_max, lr_min = not_negative("lr_max", lr_max), not_negative("lr_min", lr_min)
        warmup = integer("warmup_steps", warmup_steps, 0)
        if step < warmup:
            return lr_max * float(step + 1) / float(warmup)
        decay = float(n_steps - warmup)
        if decay <= 0.0:
            return lr_min
        progress = min(float(step - warmup) / decay, 1.0)
        return lr_min + 0.5 * (lr_max - lr_min) * (1.0 + math.cos(math.pi * progress))

    @staticmethod
    def constant(step: int, lr: float) -> float:
        """Return lr at every step."""
        integer("step", step, 0)
        return not_negative("lr", lr)

    @staticmethod
    def radam_rect(step: int, beta2: float) -> float:
        """Return the rectification factor of RAdam (Liu et al. 2019) at a step, counted from 1.

        The factor multiplies AdamW's lr.

        The factor is 0 in the first steps, while the variance is unknown (rho_t <= 4). In these steps RAdam uses only
        momentum.

        Raises TinyNNValueError or TinyNNTypeError with the name of the argument.
        """
        step = integer("step", step, 1)
        beta2 = real("beta2", beta2, lambda x: 0 <= x < 1, "at least 0 and below 1")
        rho_inf = 2.0 / (1.0 - beta2) - 1.0
        power = beta2 ** float(step)
        rho = rho_inf - 2.0 * step * power / (1.0 - power)
        if rho <= 4.0:
            return 0.0
        return math.sqrt((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho))

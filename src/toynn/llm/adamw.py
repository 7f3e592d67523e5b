"""The hyperparameters of AdamW, and the row of seven numbers that an optimizer step reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, boolean, integer, not_negative, positive, real
from toynn.initialised import Initialised


@dataclass(slots=True)
class AdamW(Initialised):
    """The hyperparameters of AdamW. A schedule, for example, can assign new values between steps. `hp` checks the
    values again.

    A step multiplies the first moment by s5 and the second by s6, then divides the first by the root of the second:

    - bias_correct False: s5 = beta1 and s6 = beta2. The recipe `FromScratch` of the Ruby project toy uses these
      constants, and toy's published curves were recorded with them.
    - bias_correct True: s5 = 1/(1-beta1^step), s6 = 1/(1-beta2^step), the usual AdamW.

    `toynn.llm.optimizer` says which weights weight_decay applies to.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    bias_correct: bool = False

    def __post_init__(self) -> None:
        self._check_each()

    @classmethod
    def for_from_scratch(cls, lr: float = 0.001) -> AdamW:
        """Return the settings of `FromScratch` in the Ruby project toy: beta2 0.95, without bias correction."""
        return cls(lr=lr)

    @classmethod
    def for_lora(cls, lr: float = 0.001) -> AdamW:
        """Return the settings of `LoRA` in the Ruby project toy: beta2 0.999, with bias correction."""
        return cls(lr=lr, beta2=0.999, bias_correct=True)

    def hp(self, step: int) -> npt.NDArray[np.float32]:
        """Return [[lr, beta1, beta2, eps, weight_decay, s5, s6]] for this step: float32 (1, 7).

        step: counted from 1. Without bias correction, step has no effect and may be 0, as in the Ruby
        project toy.
        """
        self._check_each()
        step = integer("step", step, int(self.bias_correct), INT31_MAX)
        s5, s6 = self.beta1, self.beta2
        if self.bias_correct:
            s5, s6 = 1.0 / (1.0 - self.beta1**step), 1.0 / (1.0 - self.beta2**step)
        row = [self.lr, self.beta1, self.beta2, self.eps, self.weight_decay, s5, s6]
        return np.array([row], dtype=np.float32)  # (1, 7)

    def hp_for_step(self, step_index: int) -> npt.NDArray[np.float32]:
        """Return `hp` for a step that is counted from 0: hp(step_index + 1)."""
        return self.hp(integer("step_index", step_index, 0, INT31_MAX - 1) + 1)

    def _check_each(self) -> None:
        self.lr = not_negative("lr", self.lr)
        for name in ("beta1", "beta2"):
            setattr(self, name, real(name, getattr(self, name), lambda x: 0 <= x < 1, "at least 0 and below 1"))
        self.eps = positive("eps", self.eps)
        self.weight_decay = not_negative("weight_decay", self.weight_decay)
        self.bias_correct = boolean("bias_correct", self.bias_correct)

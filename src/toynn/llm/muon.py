"""The hyperparameters of Muon, and the row of three numbers that an optimizer step reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import not_negative, real
from toynn.initialised import Initialised


@dataclass(slots=True)
class Muon(Initialised):
    """The hyperparameters of Muon. A schedule, for example, can assign new values between steps. `hp` checks the values
    again.

    Muon updates the matrices of the layers, and AdamW updates all other weights. The update of a matrix W (rows,
    columns) is lr sqrt(max(1, rows / columns)) times a matrix whose singular values are about 1, computed from the
    momentum of the gradient. Before the update, W is multiplied by 1 - lr * weight_decay. The defaults are those of
    Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024), except that the article uses no
    weight decay.
    """

    lr: float = 0.02
    momentum: float = 0.95
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        self._check_each()

    def hp(self) -> npt.NDArray[np.float32]:
        """Return [[lr, momentum, weight_decay]]: float32 (1, 3)."""
        self._check_each()
        return np.array([[self.lr, self.momentum, self.weight_decay]], dtype=np.float32)

    def _check_each(self) -> None:
        self.lr = not_negative("lr", self.lr)
        self.momentum = real("momentum", self.momentum, lambda x: 0 <= x < 1, "at least 0 and below 1")
        self.weight_decay = not_negative("weight_decay", self.weight_decay)

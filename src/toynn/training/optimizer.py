"""The optimizer settings of a run, as the values that a step takes.

setting                                 takes effect
optimizer.lr, schedule.*                as the learning rate of each step (`toynn.training.schedule`), in `values`
optimizer.beta1, beta2, eps             in `values`, which the AdamW kernel reads in each step
optimizer.weight_decay                  in `values`; the graph is built with DECAY_VECTORS = False, so only matrices
                                        decay, not the weights of norms and biases
optimizer.clip                          as `max_norm` of `LlamaSeqEngine.train_step`
"""

from __future__ import annotations

from toynn.arguments import FloatArray
from toynn.llm.adamw import AdamW
from toynn.training.config import TrainConfig
from toynn.training.schedule import learning_rate

DECAY_VECTORS = False


class Optimizer:
    """AdamW with the settings of a configuration."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        settings = config.optimizer
        self.max_norm = settings.clip
        self._adamw = AdamW(
            lr=settings.lr,
            beta1=settings.beta1,
            beta2=settings.beta2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            bias_correct=True,
        )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return learning_rate(self._config.schedule, self._config.optimizer.lr, step, self._config.train.steps)

    def values(self, step: int) -> FloatArray:
        """Return the hyperparameters of a step for `LlamaSeqEngine.train_step`."""
        self._adamw.lr = self.learning_rate(step)
        return self._adamw.hp(step)

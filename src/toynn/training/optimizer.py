"""Convert the optimizer settings of a run into the arguments of a step.

setting                        where it takes effect
optimizer.lr, schedule.*       `toynn.training.schedule` computes the learning rate of a step, which is part of `values`
optimizer.beta1, beta2, eps    part of `values`, which the AdamW kernel reads in each step
optimizer.weight_decay         part of `values`. The graph is built with DECAY_VECTORS = False, so that weight decay
                               applies to matrices, but not to the weights of norms and to biases
optimizer.clip                 the argument `max_norm` of `LlamaSeqEngine.train_step`
"""

from __future__ import annotations

from toynn.arguments import FloatArray
from toynn.llm.adamw import AdamW
from toynn.training.config import TrainConfig
from toynn.training.schedule import learning_rate

DECAY_VECTORS = False


class Optimizer:
    """Computes the hyperparameters of AdamW for each step from a configuration."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        settings = config.optimizer
        self.max_norm = settings.clip
        self._adamw = AdamW(
            lr=config.lr,
            beta1=settings.beta1,
            beta2=settings.beta2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            bias_correct=True,
        )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return learning_rate(self._config.schedule, self._config.lr, step, self._config.train.steps)

    def values(self, step: int) -> FloatArray:
        """Return the hyperparameters of a step for `LlamaSeqEngine.train_step`."""
        self._adamw.lr = self.learning_rate(step)
        return self._adamw.hp(step)

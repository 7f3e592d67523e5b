"""Convert the optimizer settings of a run into the arguments of a step.

setting                        where it takes effect
optimizer.lr, schedule.*       `toynn.training.schedule` computes the learning rate of a step, which is part of `values`
optimizer.beta1, beta2, eps    part of `values`, which the AdamW kernel reads in each step
optimizer.kind                 the argument `optimizer` of `RecipeOptions`: which weights Muon updates
optimizer.moments              the argument `moments` of `RecipeOptions`: the type in which moments are stored
optimizer.muon_*               part of `values`, which the kernel of Muon reads in each step
optimizer.weight_decay         part of `values`. The graph is built with DECAY_VECTORS = False, so that weight decay
                               applies to matrices, but not to the weights of norms and to biases
optimizer.clip                 the argument `max_norm` of `LlamaSeqEngine.train_step`
"""

from __future__ import annotations

from dataclasses import dataclass

from toynn.arguments import FloatArray
from toynn.llm.adamw import AdamW
from toynn.llm.muon import Muon
from toynn.training.config import TrainConfig
from toynn.training.defaults import MUON
from toynn.training.schedule import learning_rate

DECAY_VECTORS = False


@dataclass(frozen=True)
class StepValues:
    """The hyperparameters of a step: the arguments hp, muon_hp and step of `LlamaSeqEngine.train_step`."""

    hp: FloatArray
    muon_hp: FloatArray | None
    step: int | None = None


class Optimizer:
    """Computes the hyperparameters of each step from a configuration."""

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
        self._muon = Muon(settings.muon_lr, settings.muon_momentum, settings.muon_weight_decay)

    def use_schedule(self, config: TrainConfig) -> None:
        """Use the schedule and the number of steps of `config` from now on. All other keys must be as before."""
        self._config = config

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of AdamW in a step, counted from 1."""
        return self._scheduled(self._config.lr, step)

    def _scheduled(self, lr: float, step: int) -> float:
        return learning_rate(self._config.schedule, lr, step, self._config.train.steps)

    def values(self, step: int) -> StepValues:
        """Return the hyperparameters of a step, counted from 1."""
        settings = self._config.optimizer
        self._adamw.lr = self.learning_rate(step)
        self._muon.lr = self._scheduled(settings.muon_lr, step)
        return StepValues(
            self._adamw.hp(step),
            self._muon.hp() if self._config.optimizer_kind == MUON else None,
            step if settings.moments == "bf16" else None,
        )

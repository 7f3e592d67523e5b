"""Tuning: which weights of a model are trained, and which adapters it has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from toynn.llm.adapters.spec import AdapterSpec
from toynn.model.shape import ModelShape
from toynn.model.weights import Weight, with_q_adapters


@dataclass(frozen=True)
class Tuning:
    """The weights that are trained. All others are frozen: they have neither gradients nor moments.

    layers: the weights of the layers.
    globals_too: the weights outside the layers: embedding, output norm, and output of an untied model. A frozen
        embedding before a projection lens stays frozen.
    q_rank: rank of the adapters, one for each query head; 0: no adapters. trains_adapters: True if the adapters are
    trained.
    only: the names of the weights that are trained, instead of `layers` and `globals_too`. None: not restricted.
    spec: the adapter of the fused layout, or None.
    """

    layers: bool = False
    globals_too: bool = False
    q_rank: int = 0
    trains_adapters: bool = False
    only: frozenset[str] | None = None
    spec: AdapterSpec | None = None

    def with_adapters(self, shape: ModelShape, weights: Iterable[Weight]) -> list[Weight]:
        """Return the weights of a model, and those of its adapters. Raises the errors of `AdapterSpec.weights`."""
        if self.spec is not None:
            return [*weights, *self.spec.weights(shape)]
        return with_q_adapters(weights, self.q_rank) if self.q_rank else list(weights)

    def trains(self, weight: Weight) -> bool:
        """Return whether a weight is trained."""
        if weight.adapter:
            return self.trains_adapters
        if self.only is not None:
            return weight.trainable and weight.name in self.only
        return weight.trainable and (self.globals_too if weight.layer is None else self.layers)


EVERYTHING = Tuning(layers=True, globals_too=True)
NOTHING = Tuning()

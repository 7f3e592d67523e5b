"""Which tensor stopped being a number first: asked when a loss or a gradient norm is not finite."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from toynn.arguments import FloatArray, IntArray
from toynn.errors import TinyNNError
from toynn.llm.engine import LlamaSeqEngine


class DivergedError(TinyNNError, ArithmeticError):
    """A loss or gradient that is NaN or infinite: its step, and the first tensor that is not finite.

    The run's latest checkpoint is whole, and from before it.
    """

    def __init__(self, step: int, what: str, tensor: str) -> None:
        super().__init__(
            f"step {step}: the {what}; the first tensor that is not finite is {tensor}. The latest checkpoint is "
            "whole; a lower optimizer.lr, a longer schedule.warmup or a lower optimizer.clip may help"
        )
        self.step = step
        self.tensor = tensor


SQUARES = "none: each gradient is finite, the sum of their squares is not"


def weight_not_finite(engine: LlamaSeqEngine) -> str | None:
    """The first weight, in the order of declaration, that holds NaN or infinity."""
    return name_not_finite((name, engine.download_weight(name)) for name in engine.weights)


def name_not_finite(weights: Iterable[tuple[str, FloatArray]]) -> str | None:
    """The same, of weights that are at hand."""
    return next((f"the weight {name}" for name, values in weights if not _finite(values)), None)


def first_not_finite(engine: LlamaSeqEngine, ids: IntArray, targets: IntArray, hp: FloatArray) -> str | None:
    """The name of the first tensor that holds NaN or infinity: weights, then activations in the order of the graph,
    then gradients from the head down.

    Computes the batch again, with a graph that keeps all it makes; the weights stay. ids, targets, hp: as for
    `LlamaSeqEngine.train_step`.
    """
    if (weight := weight_not_finite(engine)) is not None:
        return weight
    engine.build_training_step(taps=True, keep_gradients=True, clip=True)
    loss, _ = engine.train_step(ids, targets, hp, update=False)
    for name in engine.taps:
        if not _finite(engine.download_tap(name)):
            return f"the activation {name}"
    if not np.isfinite(loss):
        return "the loss"
    for name in reversed(engine.param_names()):
        if not _finite(engine.gradient(name)):
            return f"the gradient of {name}"
    return None


def _finite(values: FloatArray) -> bool:
    return bool(np.isfinite(values).all())

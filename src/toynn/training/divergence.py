"""Find the first tensor that contains NaN or infinity, after a loss or a gradient norm was not finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from toynn.arguments import FloatArray, not_finite
from toynn.data.windows import Batch
from toynn.errors import TinyNNError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.preference import Preference
from toynn.training.config import TrainConfig
from toynn.training.defaults import MUON
from toynn.training.optimizer import StepValues


class DivergedError(TinyNNError, ArithmeticError):
    """A loss, gradient or weight is NaN or infinite. The latest checkpoint was written before the divergence and is
    complete.

    step: the step in which this happened.
    tensor: the first tensor that contains NaN or infinity.
    config: the configuration of the run, from which the message takes its advice.
    """

    def __init__(self, step: int, what: str, tensor: str, config: TrainConfig) -> None:
        super().__init__(
            f"training diverged in step {step}: the {what}; the first tensor with NaN or infinity is {tensor}. Resume "
            f"from the latest checkpoint, which is complete, with {_advice(config)}"
        )
        self.step = step
        self.tensor = tensor


def _advice(config: TrainConfig) -> str:
    """Return the changes of settings that may prevent a divergence, with the current values."""
    optimizer, steps = config.optimizer, config.train.steps
    changes = [f"a lower optimizer.lr (now {config.lr:g})"]
    if config.optimizer_kind == MUON:
        changes.append(f"a lower optimizer.muon_lr (now {optimizer.muon_lr:g})")
    warmup = config.schedule.warmup_of(steps)
    if warmup < steps // 2:
        changes.append(f"a longer schedule.warmup (now {warmup})")
    if optimizer.clip == 0:
        changes.append("clipping (optimizer.clip = 1.0; now it is off, 0)")
    else:
        changes.append(f"a lower optimizer.clip (now {optimizer.clip:g})")
    return f"{', '.join(changes[:-1])} or {changes[-1]}"


SQUARES = "none: all gradients are finite, but the sum of their squares is not"


def weight_not_finite(engine: LlamaSeqEngine) -> str | None:
    """Return the description of the first weight that contains NaN or infinity, or None if all weights are finite."""
    return name_not_finite((name, engine.download_weight(name)) for name in engine.weights)


def name_not_finite(weights: Iterable[tuple[str, FloatArray]]) -> str | None:
    """Return the description of the first of these arrays that contains NaN or infinity, or None."""
    return next((f"the weight {name}" for name, values in weights if not _finite(values)), None)


def first_not_finite(
    engine: LlamaSeqEngine,
    batch: Batch,
    values: StepValues | None,
    divisor: float,
    preference: Preference | None = None,
    **inputs: Any,
) -> str | None:
    """Return the description of the first tensor that contains NaN or infinity, or None.

    The order is: weights, activations in the order of the graph, loss, gradients from the output to the input. To find
    the tensor, the batch is computed again with a graph that keeps all activations and gradients. The weights do not
    change.

    values, divisor, inputs: arguments of `LlamaSeqEngine.train_step`, or of `add_gradients`. values: None for a model
        without an optimizer.
    preference: the loss of preference pairs, or None.
    """
    if (weight := weight_not_finite(engine)) is not None:
        return weight
    packed = batch.starts is not None
    engine.build_training_step(
        taps=True, keep_gradients=True, clip=values is not None, packed=packed, preference=preference
    )
    if values is None:
        loss = engine.add_gradients(batch.ids, batch.targets, divisor, starts=batch.starts, **inputs)
    else:
        loss, _ = engine.train_step(
            batch.ids,
            batch.targets,
            values.hp,
            muon_hp=values.muon_hp,
            step=values.step,
            update=False,
            loss_divisor=divisor,
            starts=batch.starts,
            **inputs,
        )
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
    return not_finite(values) is None

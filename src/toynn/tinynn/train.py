"""Run a training step in one C call, or run a graph and measure the time of each node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.arguments import boolean, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.tinynn.arrays import float_array, int_array
from toynn.tinynn.calls.introspection import tnn_graph_n_nodes
from toynn.tinynn.data import size_of
from toynn.tinynn.native import ffi, lib
from toynn.tinynn.session import Session, Tensor, handle, optional_handle, status

__all__ = ["TrainStep", "tnn_begin_step", "tnn_compute_profiled", "tnn_train_step"]


@dataclass(frozen=True, slots=True)
class TrainStep(Initialised):
    """The tensors of a training graph whose values `tnn_train_step` uploads or downloads.

    ids and targets are i32 [n], hp holds the hyperparameters, loss is [1], and norm is a result of
    `tnn_fused_grad_norm` or None.
    """

    ids: Tensor
    targets: Tensor
    hp: Tensor
    loss: Tensor
    norm: Tensor | None = None


def tnn_train_step(
    s: Session,
    step: TrainStep,
    ids: npt.ArrayLike,
    targets: npt.ArrayLike,
    hp: npt.ArrayLike,
    *,
    reset_moments: bool = False,
    accumulate: bool = False,
    update: bool = True,
) -> tuple[float, float | None]:
    """Reset, upload, and run forward, backward and optimizer in one C call. Return the loss, and the norm or None.

    Args:
        step: the tensors of the training graph.
        ids: integers, as many as the tensor holds.
        targets: integers, as many as ids.
        hp: real numbers, as many as the tensor holds.
        reset_moments: set the optimizers' moments to zero first.
        accumulate: compute the next batch of a step. The earlier calls of this step had update=False. Each gradient
            must be flagged with `tnn_set_output`.
        update: False leaves weights and moments as they are (`tnn_fused_adamw` steps do nothing).

    Raises:
        TinyNNValueError, TinyNNTypeError: an argument is wrong (the message names it), or an id or target is out of
            range.
        SessionError: no training graph is realized, or accumulate is True in the first call of a step.
    """
    given = _arguments(s, step, ids, targets, hp)
    mode = lib.TNN_STEP_RESET_MOMENTS if boolean("reset_moments", reset_moments) else 0
    mode |= lib.TNN_STEP_ACCUMULATE if boolean("accumulate", accumulate) else 0
    mode |= 0 if boolean("update", update) else lib.TNN_STEP_NO_UPDATE
    out = ffi.new("float[]", 2)
    status(s, lib.tnn_train_step, *given, mode, out, out + 1)
    return out[0], None if step.norm is None else out[1]


def tnn_begin_step(
    s: Session,
    step: TrainStep,
    ids: npt.ArrayLike,
    targets: npt.ArrayLike,
    hp: npt.ArrayLike,
    *,
    accumulate: bool = False,
) -> None:
    """Begin a batch as `tnn_train_step` does with update=False. `tnn_continue_step` computes the batch.

    Each call of `tnn_train_step`, `tnn_begin_step` and `tnn_graph_reset` abandons a batch that is not complete, and the
    earlier batches of its step.

    Args:
        step, ids, targets, hp, accumulate: as for `tnn_train_step`.

    Raises:
        TinyNNValueError, TinyNNTypeError: as for `tnn_train_step`.
        SessionError: no training graph is realized, the gradients are not flagged with `tnn_set_output`, or accumulate
            is True in the first batch of a step.
    """
    given = _arguments(s, step, ids, targets, hp)
    status(s, lib.tnn_begin_step, *given, int(boolean("accumulate", accumulate)))


def _arguments(
    s: Session, step: TrainStep, ids: npt.ArrayLike, targets: npt.ArrayLike, hp: npt.ArrayLike
) -> tuple[Any, Any, Any, int, Any, int]:
    """Check the arguments of a step. Return the arguments that the C functions `tnn_train_step` and `tnn_begin_step`
    have in common.
    """
    if not isinstance(step, TrainStep):
        raise TinyNNTypeError(f"step must be a TrainStep, got {kind_of(step)}")
    c_step = ffi.new(
        "tnn_step *",
        [
            handle(s, "step.ids", step.ids),
            handle(s, "step.targets", step.targets),
            handle(s, "step.hp", step.hp),
            handle(s, "step.loss", step.loss),
            optional_handle(s, "step.norm", step.norm),
        ],
    )
    # Take the sizes from the buffers, because the __array__ method of one argument may change the size of another
    # argument.
    c_ids = ffi.from_buffer("int32_t[]", int_array("ids", ids, size_of(step.ids)))
    c_targets = ffi.from_buffer("int32_t[]", int_array("targets", targets, size_of(step.targets)))
    c_hp = ffi.from_buffer("float[]", float_array("hp", hp, size_of(step.hp)))
    if len(c_targets) != len(c_ids):
        raise TinyNNValueError(f"targets must hold {len(c_ids)} numbers, as many as ids, got {len(c_targets)}")
    return c_step, c_ids, c_targets, len(c_ids), c_hp, len(c_hp)


def tnn_compute_profiled(s: Session) -> npt.NDArray[np.float64]:
    """Run the realized graph node by node. Return the seconds of each node, float64 (n,), in the order of
    `tnn_graph_node`.

    The results are those of `tnn_compute`, or for a training graph those of `tnn_compute_backward`. A training graph
    must be reset before the call. Because of the measurement, this call is slower.
    """
    seconds = np.empty(tnn_graph_n_nodes(s), dtype=np.float64)
    status(s, lib.tnn_compute_profiled, ffi.from_buffer("double[]", seconds, require_writable=True), seconds.size)
    return seconds

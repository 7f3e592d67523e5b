"""The optimizer in a training graph: which weights it updates, in which order, and which weights decay.

Each trained weight gets one step of AdamW, or of Muon if the weight has only one moment. The steps of the weights of
the layers come first. Weight decay always applies to matrices. With decay_vectors=True, as in the Ruby project toy, it
applies to norms and biases too; `toynn.train` uses False.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from toynn.arguments import INT31_MAX, FloatArray
from toynn.errors import SessionError
from toynn.llm.parameters import Parameter
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_extend_backward_graph,
    tnn_fused_grad_norm,
    tnn_input_1d_f32,
    tnn_input_1d_i32,
    tnn_set_output,
    tnn_tensor_grad,
    tnn_tensor_set_name,
    tnn_view_1d,
    upload_int_array,
    upload_row_major,
)


@dataclass(frozen=True)
class Rounding:
    """How an optimizer step rounds the moments of a weight to bfloat16.

    t_step: the number of the step, an input i32 (1,). seed: the seed of the random bits of this weight.
    """

    t_step: Tensor
    seed: int


# A function that builds the step of one weight from its tensor, gradient, moments m and v, hp, the norm if gradients
# are clipped, and the rounding of bfloat16 moments.
AdamWStep: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Rounding | None], Tensor]

# A function that builds Muon's step of one matrix from its tensor, gradient, momentum, hp, the norm if gradients are
# clipped, and the rounding of a bfloat16 momentum.
MuonStep: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, Rounding | None], Tensor]

HP = 7  # the length of a row of `AdamW.hp`: lr, beta1, beta2, eps, weight_decay, s5, s6
MUON_HP = 3  # the length of a row of `Muon.hp`: lr, momentum, weight_decay
_WEIGHT_DECAY = 4  # the index of weight_decay in a row


@dataclass(frozen=True)
class OptimizerOptions:
    """Options of the optimizer steps in a training graph.

    keep_gradients: keep the gradients, to read them or to add to them.
    clip: clip the gradients to a norm.
    decay_vectors: apply weight decay to norms and biases too.
    muon: the matrices of the layers are updated by Muon.
    updates: False leaves out all optimizer steps, so the graph computes only gradients.
    bf16_moments: the moments of matrices are bfloat16.
    """

    keep_gradients: bool = False
    clip: bool = False
    decay_vectors: bool = True
    muon: bool = False
    updates: bool = True
    bf16_moments: bool = False


@dataclass(frozen=True)
class Optimizer:
    """The tensors of the optimizer.

    t_hp: f32 (7,), or (14,) if decay_vectors is False; if muon is True, 3 numbers more. t_clip, t_norm: f32 (2,), or
        None if clip is False. t_step: the number of the step, i32 (1,), or None if bf16_moments is False.
    """

    options: OptimizerOptions
    t_hp: Tensor
    t_clip: Tensor | None
    t_norm: Tensor | None
    t_step: Tensor | None = None

    def values_of_hp(self, row: FloatArray, muon_row: FloatArray | None = None) -> FloatArray:
        """Return the values of t_hp. row: (1, 7), from `AdamW.hp`. muon_row: (1, 3), from `Muon.hp`, if Muon is used.

        If decay_vectors is False, the row of AdamW is followed by the same row with weight decay 0. The row of Muon is
        last. Raises SessionError for a graph without optimizer steps.
        """
        if not self.options.updates:
            raise SessionError(
                "train_step needs a model with an optimizer, but this model has optimizer='none'; call "
                "add_gradients instead"
            )
        rows = [row]
        if not self.options.decay_vectors:
            rows.append(row.copy())
            rows[1][0, _WEIGHT_DECAY] = 0.0
        if muon_row is not None:
            rows.append(muon_row)
        return np.concatenate(rows, axis=1)

    def upload(self, s: Session, clip: FloatArray, step: int | None) -> None:
        """Upload the values of t_clip, float32 (1, 2), and of t_step, if the graph has these inputs."""
        if self.t_clip is not None:
            upload_row_major(s, self.t_clip, clip)
        if self.t_step is not None and step is not None:
            upload_int_array(s, self.t_step, [step])


def hp_input(s: Session, options: OptimizerOptions) -> Tensor:
    """Declare the hyperparameters as an input of the graph."""
    t_hp = tnn_input_1d_f32(s, _muon_at(options) + (MUON_HP if options.muon else 0))
    tnn_tensor_set_name(t_hp, "hp")
    return t_hp


def _muon_at(options: OptimizerOptions) -> int:
    """Return the position of Muon's row in t_hp: after the rows of AdamW."""
    return HP if options.decay_vectors else 2 * HP


def gradients_only(s: Session, trained: Iterable[Parameter], t_hp: Tensor, options: OptimizerOptions) -> Optimizer:
    """Keep the gradients of a graph with a backward pass, without any optimizer step.

    t_hp: the input of the graph to which `tnn_train_step` uploads its argument hp. No optimizer step reads this input.
    """
    for one in trained:
        tnn_set_output(tnn_tensor_grad(s, one.tensor))
    return Optimizer(options, t_hp, None, None)


def append_optimizer(
    s: Session,
    trained: Iterable[Parameter],
    adamw_step: AdamWStep,
    muon_step: MuonStep,
    *,
    t_hp: Tensor,
    options: OptimizerOptions,
) -> Optimizer:
    """Append one optimizer step for each trained weight, in the given order, to a graph with a backward pass."""
    trained = list(trained)
    grads = [tnn_tensor_grad(s, one.tensor) for one in trained]
    if options.keep_gradients:
        for grad in grads:
            tnn_set_output(grad)
    t_clip = t_norm = None
    if options.clip:
        t_clip = tnn_input_1d_f32(s, 2)
        tnn_tensor_set_name(t_clip, "clip")
        t_norm = tnn_fused_grad_norm(s, grads, t_clip)
        tnn_tensor_set_name(t_norm, "gradient norm")
        tnn_set_output(t_norm)
    t_hp_decay = t_hp_no_decay = t_muon_hp = t_hp
    if not options.decay_vectors or options.muon:
        t_hp_decay = t_hp_no_decay = tnn_view_1d(s, t_hp, HP, 0)
    if not options.decay_vectors:
        t_hp_no_decay = tnn_view_1d(s, t_hp, HP, HP * 4)
    if options.muon:
        t_muon_hp = tnn_view_1d(s, t_hp, MUON_HP, _muon_at(options) * 4)
    t_step = _step_input(s) if options.bf16_moments else None
    for one, grad in zip(trained, grads, strict=True):
        if one.m is None:
            raise SessionError(f"the weight {one.weight.name} is frozen, so it must not get an optimizer step")
        rounding = _rounding(one, t_step)
        if one.v is None:
            step = muon_step(one.tensor, grad, one.m, t_muon_hp, t_norm, rounding)
        else:
            t_hp_of_one = t_hp_decay if one.weight.decays else t_hp_no_decay
            step = adamw_step(one.tensor, grad, one.m, one.v, t_hp_of_one, t_norm, rounding)
        tnn_extend_backward_graph(s, step)
    return Optimizer(options, t_hp, t_clip, t_norm, t_step)


def _step_input(s: Session) -> Tensor:
    """Declare the number of the step as an input of the graph."""
    t_step = tnn_input_1d_i32(s, 1)
    tnn_tensor_set_name(t_step, "step")
    return t_step


def _rounding(one: Parameter, t_step: Tensor | None) -> Rounding | None:
    """Return the rounding of the moments of a weight, or None if they are f32."""
    if t_step is None or not one.bf16_moments:
        return None
    return Rounding(t_step, rounding_seed(one.weight.name))


def rounding_seed(name: str) -> int:
    """Return the seed of the random bits for the moments of the weight with this name."""
    return zlib.crc32(name.encode()) & INT31_MAX

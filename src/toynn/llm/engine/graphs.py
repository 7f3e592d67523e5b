"""The graphs of a model over whole sequences: logits, the loss alone, and a training step.

A session holds one graph at a time: each function here drops the one before, handles included. Callers hold the
session (`Session.exclusive`).
"""

from __future__ import annotations

from dataclasses import dataclass

from toynn.errors import SessionError
from toynn.llm.blocks import Sequences
from toynn.llm.engine.model import Model
from toynn.llm.labels import IGNORE_ID
from toynn.llm.primitives import Rope
from toynn.llm.weights import Weight
from toynn.tinynn import (
    Session,
    Tensor,
    TrainStep,
    tnn_build_backward,
    tnn_build_forward_only,
    tnn_cross_entropy_loss,
    tnn_extend_backward_graph,
    tnn_fused_adamw,
    tnn_fused_cross_entropy,
    tnn_fused_grad_norm,
    tnn_input_1d_f32,
    tnn_input_1d_i32,
    tnn_input_2d_f32,
    tnn_opt_step_adamw,
    tnn_pin_all_graph_b_nodes,
    tnn_realize,
    tnn_realize_backward,
    tnn_reset_for_rebuild,
    tnn_set_loss,
    tnn_set_output,
    tnn_tensor_grad,
    tnn_tensor_ne0,
    tnn_tensor_set_name,
    tnn_view_1d,
    upload_row_major,
)

HP = 7  # numbers of AdamW.hp, ...
WEIGHT_DECAY = 4  # ... and where the decay stands


@dataclass
class ForwardGraph:
    """Logits and, where keep_taps, the activations, as outputs. taps holds both by name."""

    positions: Tensor
    taps: dict[str, Tensor]
    keep_taps: bool


@dataclass
class LossGraph(ForwardGraph):
    """The loss on targets, without a backward; fused layout only."""

    t_targets: Tensor
    t_loss: Tensor


@dataclass
class TrainingGraph(ForwardGraph):
    """Forward, loss, backward and one AdamW step for each trainable weight."""

    t_loss: Tensor
    t_labels: Tensor
    t_hp: Tensor
    gradients_kept: bool
    decay_vectors: bool
    step: TrainStep | None  # of the fused layout
    t_clip: Tensor | None


def forward_graph(model: Model, keep_taps: bool) -> ForwardGraph:
    """Drops the current graph and builds one for `tnn_compute`."""
    graph = _rebuilt(model, keep_taps)
    tnn_realize(model.session, graph.taps["logits"])
    return graph


def loss_graph(model: Model) -> LossGraph:
    """Drops the current graph and builds one for `tnn_compute`."""
    s, graph = model.session, _rebuilt(model, keep_taps=False)
    t_targets = tnn_input_1d_i32(s, model.rows)  # ne=[T*B]
    t_loss = tnn_fused_cross_entropy(s, graph.taps["logits"], t_targets, IGNORE_ID)  # ne=[1]
    tnn_set_output(s, t_loss)
    tnn_realize(s, t_loss)
    return LossGraph(graph.positions, graph.taps, False, t_targets, t_loss)


def training_graph(
    model: Model, *, pin: bool, keep_taps: bool, keep_gradients: bool, clip: bool, decay_vectors: bool
) -> TrainingGraph:
    """Drops the current graph and builds the one that trains; see `LlamaSeqEngine.build_training_step`."""
    s, graph = model.session, _rebuilt(model, keep_taps)
    logits = graph.taps["logits"]  # ne=[vocab, T*B]
    if model.fused:
        t_labels = tnn_input_1d_i32(s, model.rows)  # ne=[T*B]
        t_loss = tnn_fused_cross_entropy(s, logits, t_labels, IGNORE_ID)  # ne=[1]
    else:
        t_labels = tnn_input_2d_f32(s, model.cfg.vocab, model.rows)  # ne=[vocab, T*B]
        t_loss = tnn_cross_entropy_loss(s, logits, t_labels)  # ne=[1]
    t_hp = tnn_input_1d_f32(s, HP if decay_vectors else 2 * HP)
    for name, tensor in (("targets" if model.fused else "labels", t_labels), ("hp", t_hp), ("loss", t_loss)):
        tnn_tensor_set_name(s, tensor, name)
    tnn_set_output(s, t_loss)
    tnn_set_loss(s, t_loss)
    tnn_build_forward_only(s, t_loss)
    tnn_build_backward(s)
    step = t_clip = None
    if model.fused:
        t_clip, t_norm = _fused_steps(model, t_hp, clip, keep_gradients)
        step = TrainStep(model.token_ids, t_labels, t_hp, t_loss, t_norm)
    else:
        for weight in model.arch.trainable():
            tnn_extend_backward_graph(s, _adamw_step(s, weight, t_hp))
    if pin:
        tnn_pin_all_graph_b_nodes(s)
    tnn_realize_backward(s)
    if t_clip is not None:
        upload_row_major(s, t_clip, [[0.0, 1.0]])
    return TrainingGraph(
        graph.positions,
        graph.taps,
        keep_taps,
        t_loss,
        t_labels,
        t_hp,
        gradients_kept=pin or keep_gradients,
        decay_vectors=decay_vectors,
        step=step,
        t_clip=t_clip,
    )


def _rebuilt(model: Model, keep_taps: bool) -> ForwardGraph:
    """Drops the current graph and builds the forward part of the next, activations marked as outputs if wanted."""
    s = model.session
    tnn_reset_for_rebuild(s)
    positions = tnn_input_1d_i32(s, model.rows)
    tnn_tensor_set_name(s, positions, "positions")
    rope = Rope(positions, model.cfg.head_dim, model.cfg.rope_base, model.cfg.rope_scaling, model.freq_factors)
    if model.fused:
        t_seq = model.options.t_seq
        taps = model.arch.build_fused(s, model.token_ids, rope, lambda table: Sequences(table, t_seq))
    else:
        taps = model.arch.build(s, model.token_ids, rope, model.mask)
    for name, tensor in taps.items():
        tnn_tensor_set_name(s, tensor, name)
        if keep_taps:
            tnn_set_output(s, tensor)
    return ForwardGraph(positions, taps, keep_taps)


def _fused_steps(model: Model, t_hp: Tensor, clip: bool, keep_gradients: bool) -> tuple[Tensor | None, Tensor | None]:
    """Appends the optimizer of the fused layout. Returns what clips, ne=[2], and the norm, ne=[2], where asked."""
    s, weights = model.session, model.arch.trainable()
    grads = {weight.name: tnn_tensor_grad(s, weight.tensor) for weight in weights}
    t_clip = t_norm = None
    if keep_gradients:
        for grad in grads.values():
            tnn_set_output(s, grad)
    if clip:
        t_clip = tnn_input_1d_f32(s, 2)
        tnn_tensor_set_name(s, t_clip, "clip")
        t_norm = tnn_fused_grad_norm(s, list(grads.values()), t_clip)
        tnn_tensor_set_name(s, t_norm, "gradient norm")
        tnn_set_output(s, t_norm)
    rows = tnn_tensor_ne0(s, t_hp) // HP
    hp = [t_hp] * 2 if rows == 1 else [tnn_view_1d(s, t_hp, HP, 0), tnn_view_1d(s, t_hp, HP, HP * 4)]
    for weight in weights:
        m, v = _moments(weight)
        t_hp_of = hp[1] if len(weight.shape) == 1 else hp[0]
        step = tnn_fused_adamw(s, weight.tensor, grads[weight.name], m, v, t_hp_of, t_norm)
        tnn_extend_backward_graph(s, step)
    return t_clip, t_norm


def _adamw_step(s: Session, weight: Weight, t_hp: Tensor) -> Tensor:
    """The optimizer's node for one trainable weight of the per_head layout."""
    m, v = _moments(weight)
    return tnn_opt_step_adamw(s, weight.tensor, tnn_tensor_grad(s, weight.tensor), m, v, t_hp)


def _moments(weight: Weight) -> tuple[Tensor, Tensor]:
    if weight.m is None or weight.v is None:
        raise SessionError(f"{weight.name} is frozen")
    return weight.m, weight.v

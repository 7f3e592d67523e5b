"""Layout: a model declared on a session. Each layout is a subclass, and other code works with any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray
from toynn.errors import SessionError, TinyNNValueError
from toynn.llm.base import StoredWeights
from toynn.llm.graphs import ForwardGraph, LossGraph, TrainingGraph
from toynn.llm.optimizer import OptimizerOptions, Rounding, append_optimizer, gradients_only, hp_input
from toynn.llm.options import RecipeOptions
from toynn.llm.parameters import Parameters
from toynn.llm.preference import Preference, PreferenceInputs
from toynn.llm.rope import Rope, RopeOfModel
from toynn.llm.tuning import EVERYTHING, Tuning
from toynn.model.shape import ModelShape
from toynn.model.weights import Weight
from toynn.tinynn import (
    Session,
    Tensor,
    download_row_major,
    tnn_build_backward,
    tnn_build_forward_only,
    tnn_compute_backward,
    tnn_compute_profiled,
    tnn_finalize_weights,
    tnn_graph_node,
    tnn_graph_reset,
    tnn_graph_reset_grads_only,
    tnn_input_1d_i32,
    tnn_input_1d_i32_persistent,
    tnn_pin_all_graph_b_nodes,
    tnn_realize,
    tnn_realize_backward,
    tnn_reset_for_rebuild,
    tnn_session_set_graph_capacity,
    tnn_session_set_windows,
    tnn_set_loss,
    tnn_set_output,
    tnn_set_recompute,
    tnn_tensor_op_name,
    tnn_tensor_set_name,
    upload_int_array,
    upload_row_major,
)

NodeTimes: TypeAlias = list[tuple[str, str, float]]  # operator, name and seconds of each node

MAX_GRAPH_NODES = 1 << 21
TOKEN_IDS = "token_ids"


class Layout(ABC):
    """A model declared on a session, with the inputs that outlive a graph.

    name: the layout's name in `RecipeOptions.layout`.
    keeps_taps: True if graphs keep their activations by default.
    recomputes: True if a training graph can compute activations again in the backward pass.
    packs: True if several samples can share a sequence.
    shortens: True if graphs can have sequences that are shorter than options.t_seq.
    labels_name: the name of the tensor with the labels.
    parameters: the weights.
    t_seq: T, tokens of a sequence in the current graph, or in the next one if there is no graph.
    n: T*B, tokens of all sequences.
    token_ids: i32 (T*B,), an input of the current graph if T is less than options.t_seq, otherwise persistent.
    positions: 0..T-1 in each sequence.
    """

    name: ClassVar[str]
    keeps_taps: ClassVar[bool]
    recomputes: ClassVar[bool] = False
    packs: ClassVar[bool] = False
    shortens: ClassVar[bool] = False
    labels_name: ClassVar[str]

    def __init__(
        self,
        session: Session,
        shape: ModelShape,
        options: RecipeOptions,
        tuning: Tuning = EVERYTHING,
        stored: StoredWeights | None = None,
    ) -> None:
        """Declare the weights and inputs, allocate them and fill the inputs. The options have been validated.

        tuning: which weights are trained. stored: the weights of a base in its own types, from which frozen weights are
            declared.
        """
        self.session, self.shape, self.options = session, shape, options
        self.t_seq, self.n = options.t_seq, options.t_seq * options.t_batch
        weights = self.weights_of(shape)
        self.spec = tuning.spec
        capacity = self.capacity(shape, self.n) + (0 if tuning.spec is None else 16 * len(tuning.spec.weights(shape)))
        tnn_session_set_graph_capacity(session, min(capacity, MAX_GRAPH_NODES))
        declared = None if stored is None else stored.declare
        self.parameters = Parameters(
            session, shape, weights, tuning, options.weight_dtype, declared, options.optimizer, options.precision,
            options.moments,
        )  # fmt: skip
        self.token_ids = self._longest_ids = tnn_input_1d_i32_persistent(session, self.n)
        tnn_tensor_set_name(self.token_ids, TOKEN_IDS)
        self.mask = self.declare_mask()
        self._rope = RopeOfModel(session, shape, stored is not None and stored.interleaved)
        tnn_finalize_weights(session)
        self.fill_mask()
        self._rope.upload()
        self.positions = self._positions()

    def _positions(self) -> IntArray:
        return np.tile(np.arange(self.t_seq, dtype=np.int32), self.options.t_batch)

    # ---- declare ----

    @staticmethod
    @abstractmethod
    def weights_of(shape: ModelShape) -> list[Weight]:
        """Return the weights in the order of declaration."""

    @staticmethod
    @abstractmethod
    def capacity(shape: ModelShape, n: int) -> int:
        """Return the number of nodes that a graph over n tokens may have."""

    @classmethod
    @abstractmethod
    def check_weight_dtype(cls, weight_dtype: int) -> None:
        """Raise TinyNNValueError if the layout cannot compute with weights of this type."""

    def declare_mask(self) -> Tensor | None:
        """Return the attention mask as a tensor of the session, or None if the layout or the batch needs no mask."""
        return None

    def fill_mask(self) -> None:  # noqa: B027 (most layouts have no mask)
        """Upload the values of the mask. Call it after the weights are finalized."""

    def rope_at(self, positions: Tensor) -> Rope:
        """Return the parameters of RoPE for tokens at these positions."""
        return self._rope.at(positions)

    @property
    def rope_freq_factors(self) -> Tensor | None:
        """The divisors of RoPE's angles, f32 (d_head/2,); None for a scaling without such divisors."""
        return self._rope.tensor

    # ---- build ----

    def use_length(self, t_seq: int) -> None:
        """Drop the current graph. The next graphs have sequences of t_seq tokens, at most options.t_seq."""
        tnn_reset_for_rebuild(self.session)
        self.t_seq, self.n = t_seq, t_seq * self.options.t_batch
        self.positions = self._positions()

    @abstractmethod
    def forward(self, positions: Tensor, starts: Tensor | None, needs_logits: bool) -> dict[str, Tensor]:
        """Build the graph from token_ids to the logits (n, vocab). Return the activations by name, the logits last.

        starts: as in `ForwardGraph`. It is None if the layout cannot pack samples.
        needs_logits: False leaves out the logits if `loss` computes them in parts.
        """

    @abstractmethod
    def loss(self, taps: dict[str, Tensor], divisor: Tensor | None) -> tuple[Tensor, Tensor]:
        """Build the loss (1,) over labels. Return the input for the labels, and the loss.

        taps: the result of `forward`.
        divisor: the number by which the sum of the losses is divided, f32 (1,). None: the mean of the losses.
        """

    def parts_save_memory(self) -> bool:
        """Return whether a training graph needs less memory if `loss` computes the logits in parts."""
        return True

    def divisor_input(self) -> Tensor | None:
        """Declare the divisor of the loss as an input of the graph, or return None if the layout has none."""
        return None

    def row_losses(self, t_loss: Tensor) -> Tensor | None:  # noqa: ARG002
        """Flag the losses of the rows, f32 (n,), as an output of the graph, and return this tensor. Return None if the
        layout has no such tensor.
        """
        return None

    def preference_loss(self, t_loss: Tensor, preference: Preference) -> tuple[Tensor, PreferenceInputs]:  # noqa: ARG002
        """Build the loss (1,) of pairs of sequences from the result of `loss`. Return the loss and its inputs."""
        raise TinyNNValueError(f"preference needs the fused layout, got a model in the {self.name} layout")

    def check_optimizer(self, options: OptimizerOptions) -> None:  # noqa: B027 (a layout may have all options)
        """Raise TinyNNValueError, naming the option, if the layout does not support an option."""

    @abstractmethod
    def adamw_step(
        self, w: Tensor, grad: Tensor, m: Tensor, v: Tensor, hp: Tensor, norm: Tensor | None, rounding: Rounding | None
    ) -> Tensor:
        """Build one AdamW step on a weight.

        norm: the result of `tnn_fused_grad_norm`, or None without clipping. rounding: None for moments in f32.
        """

    def muon_step(
        self,
        w: Tensor,  # noqa: ARG002
        grad: Tensor,  # noqa: ARG002
        m: Tensor,  # noqa: ARG002
        hp: Tensor,  # noqa: ARG002
        norm: Tensor | None,  # noqa: ARG002
        rounding: Rounding | None,  # noqa: ARG002
    ) -> Tensor:
        """Build one Muon step on a matrix. Only the fused layout supports this step."""
        raise SessionError(f"the {self.name} layout cannot train with Muon; use the fused layout")

    def forward_graph(self, keep_taps: bool, packed: bool = False) -> ForwardGraph:
        """Drop the current graph, and build a graph in which `tnn_compute` computes the logits."""
        graph = self._rebuilt(keep_taps, needs_logits=True, packed=packed)
        tnn_realize(self.session, graph.taps["logits"])
        return graph

    def loss_graph(self, packed: bool = False, preference: Preference | None = None) -> LossGraph:
        """Drop the current graph, and build a graph in which `tnn_compute` computes the loss."""
        graph = self._rebuilt(keep_taps=False, needs_logits=False, packed=packed)
        t_labels, t_loss = self.loss(graph.taps, None)
        t_row_losses, inputs = self.row_losses(t_loss), None
        if preference is not None:
            t_loss, inputs = self.preference_loss(t_loss, preference)
        tnn_set_output(t_loss)
        tnn_realize(self.session, t_loss)
        return LossGraph(
            graph.positions, graph.starts, graph.taps, False, t_labels, t_loss, t_row_losses, preference=inputs
        )

    def training_graph(
        self,
        *,
        pin: bool,
        keep_taps: bool,
        recompute: bool,
        packed: bool,
        options: OptimizerOptions,
        preference: Preference | None = None,
        first_window: int = 0,
    ) -> TrainingGraph:
        """Drop the current graph, and build a training graph; see `LlamaSeqEngine.build_training_step`."""
        s = self.session
        needs_logits = keep_taps or not self.parts_save_memory()
        graph = self._rebuilt(keep_taps, needs_logits=needs_logits, packed=packed, at=first_window)
        for tensor in layer_inputs(graph.taps) if recompute else ():
            tnn_set_recompute(tensor)
        t_divisor, inputs = self.divisor_input() if preference is None else None, None
        t_labels, t_loss = self.loss(graph.taps, t_divisor)
        t_row_losses = self.row_losses(t_loss)
        if preference is not None:
            t_loss, inputs = self.preference_loss(t_loss, preference)
        tnn_tensor_set_name(t_labels, self.labels_name)
        tnn_tensor_set_name(t_loss, "loss")
        t_scale = t_divisor if inputs is None else inputs.settings
        t_hp = t_scale if t_scale is not None and not options.updates else hp_input(s, options)
        tnn_set_output(t_loss)
        tnn_set_loss(t_loss)
        tnn_build_forward_only(s, t_loss)
        tnn_build_backward(s)
        trained = self.parameters.in_step_order()
        if options.updates:
            optimizer = append_optimizer(s, trained, self.adamw_step, self.muon_step, t_hp=t_hp, options=options)
        else:
            optimizer = gradients_only(s, trained, t_hp, options)
        if pin:
            tnn_pin_all_graph_b_nodes(s)
        tnn_realize_backward(s)
        if optimizer.t_clip is not None:
            upload_row_major(s, optimizer.t_clip, [[0.0, 1.0]])
        kept = pin or options.keep_gradients or not options.updates
        return TrainingGraph(
            graph.positions,
            graph.starts,
            graph.taps,
            keep_taps,
            t_labels,
            t_loss,
            t_row_losses,
            optimizer,
            gradients_kept=kept,
            t_divisor=t_divisor,
            preference=inputs,
        )

    def _rebuilt(self, keep_taps: bool, needs_logits: bool, packed: bool, at: int = 0) -> ForwardGraph:
        """Drop the current graph, and build the forward part of a new one.

        packed: declare the input for starts. at: the number of the first window of a step that the graph computes.
        """
        s = self.session
        tnn_reset_for_rebuild(s)
        tnn_session_set_windows(s, self.options.t_batch, at)
        if self.t_seq == self.options.t_seq:
            self.token_ids = self._longest_ids
        else:
            self.token_ids = tnn_input_1d_i32(s, self.n)
            tnn_tensor_set_name(self.token_ids, TOKEN_IDS)
        positions = tnn_input_1d_i32(s, self.n)
        tnn_tensor_set_name(positions, "positions")
        starts = tnn_input_1d_i32(s, self.n) if packed else None
        if starts is not None:
            tnn_tensor_set_name(starts, "starts")
        taps = self.forward(positions, starts, needs_logits)
        if keep_taps:
            for tensor in taps.values():
                tnn_set_output(tensor)
        return ForwardGraph(positions, starts, taps, keep_taps)

    # ---- upload and compute ----

    def place(self, graph: ForwardGraph, positions: IntArray | None, starts: IntArray | None) -> None:
        """Upload the positions of the tokens, and the starts of their samples. The caller has checked the values.

        positions: None: the positions are counted from the first token of each sample.
        starts: None for one sample in each sequence.
        """
        at = self.positions if starts is None else self.positions - starts
        upload_int_array(self.session, graph.positions, at if positions is None else positions)
        if graph.starts is not None:
            upload_int_array(self.session, graph.starts, np.zeros_like(self.positions) if starts is None else starts)

    @abstractmethod
    def checked_labels(self, labels: npt.ArrayLike, needs_token: bool = True) -> FloatArray | IntArray:
        """Return labels with the shape and dtype of their input tensor.

        needs_token: refuse targets that are all ignored.

        Raises TinyNNValueError or TinyNNTypeError for wrong labels.
        """

    def number_of_targets(self, labels: FloatArray | IntArray) -> int:  # noqa: ARG002
        """Return the number by which the sum of the losses of checked labels is divided."""
        return self.n

    @abstractmethod
    def upload_labels(self, t_labels: Tensor, labels: FloatArray | IntArray) -> None:
        """Upload labels to their input tensor."""

    @abstractmethod
    def check_step(self, accumulate: bool, update: bool, profiled: bool) -> None:
        """Raise TinyNNValueError if the layout does not support a step with these options."""

    def step(
        self,
        graph: TrainingGraph,
        ids: IntArray,
        labels: FloatArray | IntArray,
        hp: FloatArray,
        *,
        reset_moments: bool,
        accumulate: bool,  # noqa: ARG002 (see check_step)
        update: bool,  # noqa: ARG002
        node_times: NodeTimes | None,
    ) -> tuple[float, float | None]:
        """Take one step: forward, backward and optimizer. Return the loss, and the norm or None.

        The caller has checked all arguments. node_times: a list to which the time of each node is added, or None.
        """
        s = self.session
        if reset_moments:
            tnn_graph_reset(s)
        else:
            tnn_graph_reset_grads_only(s)
        upload_int_array(s, self.token_ids, ids)
        self.upload_labels(graph.t_labels, labels)
        upload_row_major(s, graph.optimizer.t_hp, hp)
        if node_times is None:
            tnn_compute_backward(s)
        else:
            node_times += _timed(s)
        t_norm = graph.optimizer.t_norm
        norm = None if t_norm is None else float(download_row_major(s, t_norm, 1, 2)[0, 0])
        return float(download_row_major(s, graph.t_loss, 1, 1)[0, 0]), norm


def layer_inputs(taps: dict[str, Tensor]) -> list[Tensor]:
    """Return the inputs of the layers and the result of the last layer, from the activations of a graph."""
    return [tensor for name, tensor in taps.items() if name in ("embed", "lens") or name.endswith(".residual")]


def _timed(s: Session) -> NodeTimes:
    seconds = tnn_compute_profiled(s).tolist()
    nodes = [tnn_graph_node(s, i) for i in range(len(seconds))]
    return [(tnn_tensor_op_name(node), node.name, one) for node, one in zip(nodes, seconds, strict=True)]

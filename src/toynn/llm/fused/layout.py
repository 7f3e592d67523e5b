"""FusedLayout: a model with one weight for each projection, computed by the shim's own kernels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray
from toynn.errors import TinyNNValueError
from toynn.llm.fused import graph
from toynn.llm.fused.graph import FusedGraph, rows_of_logits
from toynn.llm.fused.model import Sequences, hidden_states, llama, output_of
from toynn.llm.graphs import TrainingGraph
from toynn.llm.inputs import checked_targets
from toynn.llm.labels import IGNORE_ID
from toynn.llm.layout import Layout, NodeTimes
from toynn.llm.optimizer import Rounding
from toynn.llm.preference import KINDS, Preference, PreferenceInputs
from toynn.model.shape import ModelShape
from toynn.model.weights import Weight, weights_of
from toynn.tinynn import (
    TNN_F32,
    Tensor,
    TrainStep,
    tnn_fused_adamw,
    tnn_fused_cross_entropy,
    tnn_fused_muon,
    tnn_fused_preference_loss,
    tnn_input_1d_f32,
    tnn_input_1d_i32,
    tnn_input_2d_f32,
    tnn_set_output,
    tnn_set_z_loss,
    tnn_tensor_set_name,
    tnn_tensor_src,
    tnn_train_step,
    upload_int_array,
)


class FusedLayout(Layout):
    """The fused layout. Labels are targets (n,). The loss is the mean over the rows whose target is not ignored.

    A step that is not profiled is one C call.
    """

    name = "fused"
    keeps_taps = False
    recomputes = True
    packs = True
    shortens = True
    labels_name = "targets"

    @staticmethod
    def weights_of(shape: ModelShape) -> list[Weight]:
        return weights_of(shape)

    @staticmethod
    def capacity(shape: ModelShape, n: int) -> int:
        # Muon needs 18 nodes for each matrix.
        return shape.n_layers * 512 + 256 + 32 * (n // rows_of_logits(shape.vocab))

    @classmethod
    def check_weight_dtype(cls, weight_dtype: int) -> None:
        if weight_dtype != TNN_F32:
            raise TinyNNValueError(
                f"weight_dtype must be 0 (F32) with layout='fused', which computes in F32 only, got {weight_dtype}"
            )

    def forward(self, positions: Tensor, starts: Tensor | None, needs_logits: bool) -> dict[str, Tensor]:
        g = FusedGraph(self.session, 1.0 if self.spec is None else self.spec.scale)
        context = Sequences(self.t_seq, starts)
        fits = self.n <= rows_of_logits(self.shape.vocab)
        in_parts = not (needs_logits or fits or output_of(self.parameters.tree).lora_a is not None)
        build = hidden_states if in_parts else llama
        build(g, self.parameters.tree, self.shape, self.token_ids, self.rope_at(positions), context)
        return g.taps

    def loss(self, taps: dict[str, Tensor], divisor: Tensor | None) -> tuple[Tensor, Tensor]:
        t_targets = tnn_input_1d_i32(self.session, self.n)  # (n,)
        if "logits" in taps:
            t_loss = tnn_fused_cross_entropy(self.session, taps["logits"], t_targets, IGNORE_ID, divisor)
        else:
            output = output_of(self.parameters.tree)
            t_loss = FusedGraph(self.session).output_loss(taps["final_norm"], output, t_targets, divisor)
        if self.options.z_loss > 0:
            tnn_set_z_loss(self.session, t_loss, self.options.z_loss)
        return t_targets, t_loss

    def parts_save_memory(self) -> bool:
        output = output_of(self.parameters.tree).weight
        is_trained = any(one.trainable and one.tensor == output for one in self.parameters.by_name.values())
        return not is_trained or graph.parts_save_memory(self.n, self.shape, self.options.t_batch)

    def divisor_input(self) -> Tensor:
        t_divisor = tnn_input_1d_f32(self.session, 1)
        tnn_tensor_set_name(t_divisor, "loss divisor")
        return t_divisor

    def row_losses(self, t_loss: Tensor) -> Tensor:
        rows = tnn_tensor_src(t_loss, 0)
        if rows is None:
            raise AssertionError("bug in toynn: the cross entropy has no losses of rows; please report it")
        tnn_set_output(rows)
        return rows

    def preference_loss(self, t_loss: Tensor, preference: Preference) -> tuple[Tensor, PreferenceInputs]:
        s, n = self.session, self.options.t_batch
        t_reference, t_settings = tnn_input_2d_f32(s, 2, n), tnn_input_1d_f32(s, 3)
        tnn_tensor_set_name(t_reference, "log-probabilities of the reference")
        tnn_tensor_set_name(t_settings, "settings of the preference loss")
        kind = KINDS.index(preference.kind)
        t_preference = tnn_fused_preference_loss(s, t_loss, t_reference, t_settings, kind=kind)
        t_pairs = tnn_tensor_src(t_preference, 0)
        if t_pairs is None:
            raise AssertionError("bug in toynn: the preference loss has no losses of pairs; please report it")
        tnn_set_output(t_pairs)
        return t_preference, PreferenceInputs(preference, t_reference, t_settings, t_pairs)

    def adamw_step(
        self, w: Tensor, grad: Tensor, m: Tensor, v: Tensor, hp: Tensor, norm: Tensor | None, rounding: Rounding | None
    ) -> Tensor:
        step, seed = (None, 0) if rounding is None else (rounding.t_step, rounding.seed)
        return tnn_fused_adamw(self.session, w, grad, m, v, hp, norm, step, seed=seed)

    def muon_step(
        self, w: Tensor, grad: Tensor, m: Tensor, hp: Tensor, norm: Tensor | None, rounding: Rounding | None
    ) -> Tensor:
        step, seed = (None, 0) if rounding is None else (rounding.t_step, rounding.seed)
        return tnn_fused_muon(self.session, w, grad, m, hp, norm, step, seed=seed)

    def checked_labels(self, labels: npt.ArrayLike, needs_token: bool = True) -> IntArray:
        return checked_targets(labels, self.n, self.shape.vocab, needs_token)

    def number_of_targets(self, labels: FloatArray | IntArray) -> int:
        return int(np.count_nonzero(labels != IGNORE_ID))

    def upload_labels(self, t_labels: Tensor, labels: FloatArray | IntArray) -> None:
        upload_int_array(self.session, t_labels, labels)

    def check_step(self, accumulate: bool, update: bool, profiled: bool) -> None:
        if profiled and (accumulate or not update):
            what = "accumulate" if accumulate else "update=False"
            raise TinyNNValueError(f"train_step must be called without node_times if {what} is given")

    def step(
        self,
        graph: TrainingGraph,
        ids: IntArray,
        labels: FloatArray | IntArray,
        hp: FloatArray,
        *,
        reset_moments: bool,
        accumulate: bool,
        update: bool,
        node_times: NodeTimes | None,
    ) -> tuple[float, float | None]:
        """Take one step as `Layout.step` does, in one C call unless it is profiled."""
        flags = {"reset_moments": reset_moments, "accumulate": accumulate, "update": update}
        if node_times is not None:
            return super().step(graph, ids, labels, hp, **flags, node_times=node_times)
        one_call = TrainStep(self.token_ids, graph.t_labels, graph.optimizer.t_hp, graph.t_loss, graph.optimizer.t_norm)
        return tnn_train_step(self.session, one_call, ids, labels, hp, **flags)

"""PerHeadLayout: a model with one weight for each head, computed by ggml's own operators."""

from __future__ import annotations

import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray
from toynn.errors import TinyNNValueError
from toynn.llm import labels as one_hot
from toynn.llm.inputs import block_causal_mask, checked_labels, checked_targets
from toynn.llm.layout import Layout
from toynn.llm.optimizer import OptimizerOptions, Rounding
from toynn.llm.per_head.graph import PerHeadGraph
from toynn.llm.per_head.model import llama
from toynn.model.shape import ModelShape
from toynn.model.weights import Weight, weights_by_head_of
from toynn.tinynn import (
    Tensor,
    tnn_cross_entropy_loss,
    tnn_input_2d_f32,
    tnn_input_2d_f32_persistent,
    tnn_opt_step_adamw,
    tnn_tensor_set_name,
    upload_row_major,
)
from toynn.tinynn.arrays import array_of


class PerHeadLayout(Layout):
    """The per_head layout. Labels are one-hot rows (n, vocab), or targets (n,), which the layout converts to one-hot
    rows.

    The loss is the mean over all n rows. A row whose target is ignored is all zeros: its loss is 0, and it counts in
    the mean.
    Clipping and accumulated gradients are not supported, and weight decay applies to all weights.
    """

    name = "per_head"
    keeps_taps = True
    labels_name = "labels"

    @staticmethod
    def weights_of(shape: ModelShape) -> list[Weight]:
        return weights_by_head_of(shape)

    @staticmethod
    def capacity(shape: ModelShape, n: int) -> int:  # noqa: ARG004
        return shape.n_layers * shape.n_heads * 1000 + 65536

    @classmethod
    def check_weight_dtype(cls, weight_dtype: int) -> None:
        """Accept all types: ggml's operators compute with F32, F16 and BF16 weights."""

    def declare_mask(self) -> Tensor | None:
        """Return the block-causal mask f32 (n queries, n keys), or None for one sequence.

        If the model has local layers, declare their mask too.
        """
        self._local_mask = self._mask("local_attn_mask") if self.shape.sliding_window else None
        return None if self.options.t_batch == 1 else self._mask("attn_mask")

    def _mask(self, name: str) -> Tensor:
        mask = tnn_input_2d_f32_persistent(self.session, self.n, self.n)
        tnn_tensor_set_name(mask, name)
        return mask

    def fill_mask(self) -> None:
        sizes = self.options.t_seq, self.options.t_batch
        if self.mask is not None:
            upload_row_major(self.session, self.mask, block_causal_mask(*sizes))
        if self._local_mask is not None:
            upload_row_major(self.session, self._local_mask, block_causal_mask(*sizes, self.shape.sliding_window))

    def forward(
        self,
        positions: Tensor,
        starts: Tensor | None,  # noqa: ARG002
        needs_logits: bool,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        g = PerHeadGraph(self.session)
        llama(g, self.parameters.tree, self.shape, self.token_ids, self.rope_at(positions), self.mask, self._local_mask)
        return g.taps

    def loss(self, taps: dict[str, Tensor], divisor: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        t_labels = tnn_input_2d_f32(self.session, self.n, self.shape.vocab)  # (n, vocab)
        return t_labels, tnn_cross_entropy_loss(self.session, taps["logits"], t_labels)

    def check_optimizer(self, options: OptimizerOptions) -> None:
        asked = {
            "keep_gradients": options.keep_gradients,
            "clip": options.clip,
            "decay_vectors=False": not options.decay_vectors,
        }
        for name, is_asked in asked.items():
            if is_asked:
                raise TinyNNValueError(f"{name} needs the fused layout, got a model in the per_head layout")

    def adamw_step(
        self,
        w: Tensor,
        grad: Tensor,
        m: Tensor,
        v: Tensor,
        hp: Tensor,
        norm: Tensor | None,  # noqa: ARG002
        rounding: Rounding | None,  # noqa: ARG002
    ) -> Tensor:
        return tnn_opt_step_adamw(self.session, w, grad, m, v, hp)

    def checked_labels(self, labels: npt.ArrayLike, needs_token: bool = True) -> FloatArray | IntArray:
        array = array_of("m_labels", labels, self.n * self.shape.vocab)
        if array.ndim == 1 and array.dtype.kind in "iu":
            return one_hot.rows_of(checked_targets(array, self.n, self.shape.vocab, needs_token), self.shape.vocab)
        return checked_labels(array, self.n, self.shape.vocab)

    def check_step(self, accumulate: bool, update: bool, profiled: bool) -> None:  # noqa: ARG002
        if accumulate or not update:
            what = "accumulate" if accumulate else "update=False"
            raise TinyNNValueError(f"{what} needs the fused layout, got a model in the per_head layout")

    def upload_labels(self, t_labels: Tensor, labels: FloatArray | IntArray) -> None:
        upload_row_major(self.session, t_labels, labels)

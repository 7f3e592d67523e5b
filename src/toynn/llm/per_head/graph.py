"""The graph builder of the per_head layout. It uses ggml's own operators.

Shapes are row-major: a tensor (n, d) has n rows of d numbers, which ggml writes as ne=[d, n].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from toynn.llm.graph_builder import GraphBuilder
from toynn.llm.parameters import Affine
from toynn.llm.rope import Rope
from toynn.tinynn import (
    Tensor,
    tnn_add,
    tnn_cast,
    tnn_concat_n,
    tnn_diag_mask_inf,
    tnn_div,
    tnn_matmul,
    tnn_mul,
    tnn_reshape_2d,
    tnn_reshape_3d,
    tnn_rms_norm,
    tnn_rope_ext,
    tnn_scale,
    tnn_scale_bias,
    tnn_silu,
    tnn_soft_max_ext,
    tnn_softmax,
    tnn_tensor_ne1,
    tnn_transpose,
)

_NORMAL = 0  # element 2i of a head is paired with element 2i + 1
_NEOX = 2  # element i of a head is paired with element i + d_head/2
_EXT_FACTOR = 0.0  # ggml's own YaRN is off; the frequency factors already contain the scaling of YaRN


class PerHeadGraph(GraphBuilder):
    """The operators from which `toynn.llm.per_head.model` builds the model."""

    def linear(self, x: Tensor, w: Affine) -> Tensor:
        """Return x W^T + (x A^T) B^T + b: (n, d_in) -> (n, d_out).

        The term of the adapter (A, B) and the bias b are left out if the weight does not have them. If the weight has a
        dtype, it is rounded to this dtype first.
        """
        s = self.session
        weight = w.weight if w.dtype is None else tnn_cast(s, w.weight, w.dtype)
        y = tnn_matmul(s, weight, x)
        if w.lora_a is not None and w.lora_b is not None:
            y = tnn_add(s, y, tnn_matmul(s, w.lora_b, tnn_matmul(s, w.lora_a, x)))
        return y if w.bias is None else tnn_add(s, y, w.bias)

    def matmul_t(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a b^T: (n, d), (m, d) -> (n, m)."""
        return tnn_matmul(self.session, b, a)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a * b, element by element."""
        return tnn_mul(self.session, a, b)

    def scale(self, a: Tensor, factor: float) -> Tensor:
        """Return a * factor."""
        return tnn_scale(self.session, a, factor)

    def silu(self, a: Tensor) -> Tensor:
        """Return a / (1 + exp(-a))."""
        return tnn_silu(self.session, a)

    def gelu(self, a: Tensor) -> Tensor:
        """Return GELU, approximated by tanh: a (1 + tanh(z)) / 2 with z = sqrt(2 / pi) (a + 0.044715 a^3).

        The graph computes the equal expression silu(2 z) / (2 z / a), because ggml has no derivative for tanh, and the
        GELU of ggml is rounded to F16.
        """
        s, slope = self.session, 2.0 * math.sqrt(2.0 / math.pi)
        ratio = tnn_scale_bias(s, tnn_mul(s, a, a), 0.044715 * slope, slope)  # 2 z / a, at least 1.59
        return tnn_div(s, tnn_silu(s, tnn_mul(s, a, ratio)), ratio)

    def transpose(self, a: Tensor) -> Tensor:
        """Return the transpose as a contiguous tensor: (n, m) -> (m, n)."""
        return tnn_transpose(self.session, a)

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the matrices side by side: H matrices (n, d) -> (n, H d)."""
        return tnn_concat_n(self.session, list(parts), 0)

    def rms_norm(self, x: Tensor, gamma: Affine, eps: float) -> Tensor:
        """Return gamma * x / sqrt(mean(x^2) + eps), row by row: (n, d) -> (n, d)."""
        return tnn_rms_norm(self.session, x, gamma.weight, eps)

    def rope(self, x: Tensor, r: Rope) -> Tensor:
        """Return the rows rotated by their positions, unless the layer has no RoPE: (n, d_head) -> (n, d_head)."""
        if not r.rotates:
            return x
        s, n, scaling = self.session, tnn_tensor_ne1(x), r.scaling
        mode = _NORMAL if r.interleaved else _NEOX
        x = tnn_reshape_3d(s, x, r.d_head, 1, n)  # (n, 1, d_head)
        x = tnn_rope_ext(
            s, x, r.positions, r.d_head, r.base, scaling.angle_scale, _EXT_FACTOR, scaling.amplitude,
            scaling.beta_fast, scaling.beta_slow, r.freq_factors, mode=mode,
        )  # fmt: skip
        return tnn_reshape_2d(s, x, r.d_head, n)  # (n, d_head)

    def causal_softmax(self, scores: Tensor, scale: float, mask: Tensor | None) -> Tensor:
        """Return the softmax of scores * scale over the keys that a query sees. Scores and result: (queries, keys).

        mask: f32 (queries, keys), added to the scores. None: a query sees its own key and the keys before it.
        """
        if mask is not None:
            return tnn_soft_max_ext(self.session, scores, mask, scale, 0.0)
        return tnn_softmax(self.session, tnn_diag_mask_inf(self.session, tnn_scale(self.session, scores, scale), 0))

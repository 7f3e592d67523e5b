"""The graph builder of the fused layout. It uses the shim's own kernels.

Shapes are row-major: a tensor (n, d) has n rows of d numbers, which ggml writes as ne=[d, n].
"""

from __future__ import annotations

from toynn.llm.graph_builder import GraphBuilder
from toynn.llm.labels import IGNORE_ID
from toynn.llm.parameters import Affine
from toynn.llm.rope import Rope
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_fused_add_product,
    tnn_fused_attention,
    tnn_fused_attention_cached,
    tnn_fused_cross_entropy,
    tnn_fused_geglu,
    tnn_fused_head_norm,
    tnn_fused_linear,
    tnn_fused_output_loss,
    tnn_fused_rms_norm,
    tnn_fused_rope_table,
    tnn_fused_scale,
    tnn_fused_swiglu,
    tnn_get_rows,
    tnn_tensor_ne1,
)

LOGITS_NBYTES = 64 << 20  # largest number of bytes of logits at a time, if the logits are not kept
LEAST_ROWS = 128  # fewer rows would make the products with the output matrix slower


def rows_of_logits(vocab: int) -> int:
    """Return the number of rows whose logits are in memory at the same time."""
    return max(LOGITS_NBYTES // (4 * vocab), LEAST_ROWS)


def parts_save_memory(n: int, shape: ModelShape, windows: int) -> bool:
    """Return whether a training graph over n tokens needs less memory if it computes the logits in parts.

    The answer is for a graph that trains the output matrix. To compute the logits in parts, such a graph keeps several
    sums, each as large as the matrix, until all parts are computed.
    """
    waiting = (windows - 1).bit_length() * shape.vocab * shape.d_model
    return (n - rows_of_logits(shape.vocab)) * shape.vocab > waiting


class FusedGraph(GraphBuilder):
    """The operators from which `toynn.llm.fused.model` builds the model. A node is named after its weights."""

    def __init__(self, session: Session, adapter_scale: float = 1.0) -> None:
        """Make a builder for the graphs of a session. adapter_scale: the factor of adapters, `AdapterSpec.scale`."""
        super().__init__(session)
        self._adapter_scale = adapter_scale

    def linear(self, x: Tensor, *ws: Affine, add: Tensor | None = None) -> Tensor:
        """Return x W^T + b of up to three weights, side by side, plus `add`: (n, d_in) -> (n, sum of d_out).

        A weight with an adapter gives x W^T + b + scale * (x A^T) B^T.
        """
        biases = [w.bias for w in ws if w.bias is not None]
        y = tnn_fused_linear(self.session, x, [w.weight for w in ws], biases or None, add)
        self.named(_joined([w.name for w in ws]), y)
        column = 0
        for w in ws:
            if w.lora_a is not None and w.lora_b is not None:
                u = tnn_fused_linear(self.session, x, [w.lora_a])  # (n, rank)
                u = tnn_fused_scale(self.session, u, self._adapter_scale)
                y = tnn_fused_add_product(self.session, y, u, w.lora_b, column)
                self.named(f"{w.name}_adapted", y)
            column += tnn_tensor_ne1(w.weight)
        return y

    def rms_norm(self, x: Tensor, gamma: Affine, eps: float) -> Tensor:
        """Return gamma * x / sqrt(mean(x^2) + eps), row by row: (n, d) -> (n, d)."""
        return self.named(gamma.name, tnn_fused_rms_norm(self.session, x, gamma.weight, eps))

    def head_norm(self, qkv: Tensor, gamma_q: Affine, gamma_k: Affine, shape: ModelShape) -> Tensor:
        """Return qkv, (n, (H + 2 H_kv) d_head), with each head of q and k normalized as `rms_norm` does."""
        node = tnn_fused_head_norm(
            self.session, qkv, gamma_q.weight, gamma_k.weight, shape.n_heads, shape.n_kv, shape.rms_eps
        )
        return self.named("attn_qk_norm", node)

    def output_loss(self, x: Tensor, w: Affine, targets: Tensor, divisor: Tensor | None) -> Tensor:
        """Return the loss (1,) of the logits x W^T, and compute only some rows of the logits at a time: (n, d) -> (1,).

        The logits of a weight with an adapter are computed for all rows at once.
        """
        if w.lora_a is not None:
            return tnn_fused_cross_entropy(self.session, self.linear(x, w), targets, IGNORE_ID, divisor)
        n, most = tnn_tensor_ne1(x), rows_of_logits(tnn_tensor_ne1(w.weight))
        n_parts = -(-n // most)
        part = -(-n // n_parts)  # all parts have nearly the same size
        return tnn_fused_output_loss(self.session, x, w.weight, targets, IGNORE_ID, divisor, part)

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up: (n, 2 d_ff) -> (n, d_ff)."""
        return self.named("ffn_swiglu", tnn_fused_swiglu(self.session, gate_up))

    def geglu(self, gate_up: Tensor) -> Tensor:
        """Return gelu(gate) * up: (n, 2 d_ff) -> (n, d_ff)."""
        return self.named("ffn_geglu", tnn_fused_geglu(self.session, gate_up))

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """Return factor * x."""
        return tnn_fused_scale(self.session, x, factor)

    def rope_table(self, r: Rope) -> Tensor:
        """Return the cosines and sines of all angles: (n, d_head). All angles of a layer without RoPE are 0."""
        scale, amplitude = (r.scaling.angle_scale, r.scaling.amplitude) if r.rotates else (0.0, 1.0)
        node = tnn_fused_rope_table(self.session, r.positions, r.freq_factors, r.d_head, r.base, scale, amplitude)
        return self.named("rope_table" if r.rotates else "rope_table_of_zeros", node)

    def attention(
        self, qkv: Tensor, table: Tensor, shape: ModelShape, layer: int, t_seq: int, starts: Tensor | None = None
    ) -> Tensor:
        """Return causal attention with RoPE in sequences of t_seq tokens: (n, (H + 2 H_kv) d_head) -> (n, H d_head).

        starts: as in `toynn.llm.fused.model.Sequences`.
        """
        node = tnn_fused_attention(
            self.session, qkv, table, shape.n_heads, shape.n_kv, t_seq, window=shape.window(layer),
            scale=_scale(shape), starts=starts,
        )  # fmt: skip
        return self.named("attention", node)

    def attention_cached(
        self, qkv: Tensor, table: Tensor, cache: Tensor, n_past: Tensor, shape: ModelShape, layer: int, *,
        n_ctx: int, first_rows: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return the attention of the last tokens of several sequences: (n, (H + 2 H_kv) d_head) -> (n, H d_head).

        cache, n_past, n_ctx, first_rows: as in `toynn.llm.fused.model.Continuation`.
        """
        node = tnn_fused_attention_cached(
            self.session, qkv, table, cache, n_past, shape.n_heads, shape.n_kv, window=shape.window(layer),
            scale=_scale(shape), n_ctx=n_ctx, first_rows=first_rows,
        )  # fmt: skip
        return self.named("attention", node)

    def pick(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the rows of x with the given numbers, i32 (m,): (n, d) -> (m, d)."""
        return tnn_get_rows(self.session, x, rows)


def _scale(shape: ModelShape) -> float:
    """Return the argument `scale` of attention; 0 for the default scale, which the kernel computes itself."""
    return 1.0 / shape.score_divisor if shape.query_pre_attn_scalar else 0.0


def _joined(names: list[str]) -> str:
    """Return one name for several weights.

    For example, "x_q", "x_k", "x_v" give "x_qkv", and "y_a1", "y_b1" give "y_a1_b1".
    """
    stem = names[0].rpartition("_")[0]
    ends = [name.rpartition("_")[2] for name in names]
    return f"{stem}_{('' if all(len(end) == 1 for end in ends) else '_').join(ends)}" if stem else names[0]

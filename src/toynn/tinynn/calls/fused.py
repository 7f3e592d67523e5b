# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""The fused operators are the shim's own kernels. ggml runs them as custom operators.

Each element of a matrix product is a sum of fused multiply-adds along k in a fixed order, so a row of a result has the
same bits in any batch and at any number of threads. The shim differentiates a graph whose loss is
`tnn_fused_cross_entropy`. Between the parameters and the loss, only the fused operators, `tnn_get_rows`, and `tnn_add`
of equal shapes are allowed. Tensors are two-dimensional, with one row for each token. Errors are as in the group
"operators".
"""

from __future__ import annotations

from collections.abc import Sequence

from toynn.arguments import float32, int32, int64
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle, handles, optional_handle, status


def tnn_fused_add_product(s: Session, y: Tensor, x: Tensor, weight: Tensor, column: int) -> Tensor:
    """Return y plus the product x W^T, which is added to m columns of y from `column` on: [columns, rows].

    Args:
        y: [columns, rows].
        x: [k, rows].
        weight: W, f32 [k, m].
        column: first column of y to which the product is added.
    """
    return built(
        s,
        lib.tnn_fused_add_product,
        handle(s, "y", y),
        handle(s, "x", x),
        handle(s, "weight", weight),
        int64("column", column),
    )


def tnn_fused_scale(s: Session, x: Tensor, factor: float) -> Tensor:
    """Return factor * x."""
    return built(s, lib.tnn_fused_scale, handle(s, "x", x), float32("factor", factor))


def tnn_fused_rms_norm(s: Session, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over ne0, times gamma [ne0]."""
    return built(s, lib.tnn_fused_rms_norm, handle(s, "x", x), handle(s, "gamma", gamma), float32("eps", eps))


def tnn_fused_head_norm(
    s: Session, qkv: Tensor, gamma_q: Tensor, gamma_k: Tensor, n_heads: int, n_kv: int, eps: float
) -> Tensor:
    """Return qkv with each query head and each key head normalized as `tnn_fused_rms_norm` does.

    Value heads stay unchanged.

    Args:
        qkv: [(n_heads + 2 n_kv) d_head, rows]: query heads, key heads, value heads of a token.
        gamma_q: weight of all query heads, [d_head].
        gamma_k: weight of all key heads, [d_head].
        n_heads: number of query heads.
        n_kv: number of key heads, which is also the number of value heads.
        eps: added to the mean of the squares.
    """
    return built(
        s,
        lib.tnn_fused_head_norm,
        handle(s, "qkv", qkv),
        handle(s, "gamma_q", gamma_q),
        handle(s, "gamma_k", gamma_k),
        int32("n_heads", n_heads),
        int32("n_kv", n_kv),
        float32("eps", eps),
    )


def tnn_fused_rope_table(
    s: Session,
    positions: Tensor,
    freq_factors: Tensor | None,
    d_head: int,
    freq_base: float,
    freq_scale: float,
    attn_factor: float,
) -> Tensor:
    """Return the table of rotations for `tnn_fused_attention`: [d_head, rows].

    Each row holds d_head/2 cosines, then d_head/2 sines. An angle is freq_scale * position * freq_base^(-2 pair /
    d_head) / freq_factor, computed in f64.

    Args:
        positions: i32 [rows].
        freq_factors: [d_head/2], or None.
        d_head: size of a head.
        freq_base: base of the frequencies.
        freq_scale: factor of the positions.
        attn_factor: factor of the cosines and sines.
    """
    return built(
        s,
        lib.tnn_fused_rope_table,
        handle(s, "positions", positions),
        optional_handle(s, "freq_factors", freq_factors),
        int32("d_head", d_head),
        float32("freq_base", freq_base),
        float32("freq_scale", freq_scale),
        float32("attn_factor", attn_factor),
    )


def tnn_fused_attention(
    s: Session,
    qkv: Tensor,
    rope_table: Tensor,
    n_heads: int,
    n_kv: int,
    t_seq: int,
    *,
    window: int = 0,
    scale: float = 0.0,
    starts: Tensor | None = None,
) -> Tensor:
    """Return causal attention within each of B sequences, after NEOX RoPE: [n_heads d_head, B t_seq].

    Query head h reads key-value head h // (n_heads / n_kv). With starts, a token sees only tokens of its own sample.
    The results and gradients of a sample then have the same bits at every place in a sequence. Each compute checks the
    values of starts.

    Args:
        qkv: [(n_heads + 2 n_kv) d_head, B t_seq]: query heads, key heads, value heads of a token.
        rope_table: [d_head, B t_seq], from `tnn_fused_rope_table`.
        n_heads: number of query heads.
        n_kv: number of key-value heads.
        t_seq: tokens of one sequence.
        window: number of tokens that a token sees, itself included; 0: itself and all earlier tokens.
        scale: factor of the scores; 0: 1/sqrt(d_head).
        starts: i32 [B t_seq], or None: position, in its sequence, of the first token of the sample.
    """
    return built(
        s,
        lib.tnn_fused_attention,
        handle(s, "qkv", qkv),
        handle(s, "rope_table", rope_table),
        int32("n_heads", n_heads),
        int32("n_kv", n_kv),
        int64("t_seq", t_seq),
        int64("window", window),
        float32("scale", scale),
        optional_handle(s, "starts", starts),
    )


def tnn_fused_attention_cached(
    s: Session,
    qkv: Tensor,
    rope_table: Tensor,
    kv_cache: Tensor,
    n_past: Tensor,
    n_heads: int,
    n_kv: int,
    *,
    window: int = 0,
    scale: float = 0.0,
    n_ctx: int = 0,
    first_rows: Tensor | None = None,
) -> Tensor:
    """Return the attention of the last t tokens of each of B sequences.

    The keys and values of the earlier tokens are in a cache, and the keys and values of the new tokens are written to
    this cache. With a cache in F32, the bits are those of `tnn_fused_attention`. A cache in F16 rounds rotated keys and
    values to F16, and attention then reads the rounded numbers. The bits of a sequence do not depend on the other
    sequences. This operator has no derivative.

    Args:
        qkv: [(n_heads + 2 n_kv) d_head, B t].
        rope_table: [d_head, B t].
        kv_cache: persistent [2 n_kv d_head, rows], from `tnn_kv_cache`, or of dtype F32.
        n_past: i32 [B], number of earlier tokens of each sequence, 0 to n_ctx - t (checked by each compute).
        n_heads: number of query heads.
        n_kv: number of key-value heads.
        window: as for `tnn_fused_attention`.
        scale: as for `tnn_fused_attention`.
        n_ctx: largest number of tokens of a sequence; 0: the rows of the cache.
        first_rows: i32 [B], or None: first row of each sequence in the cache, in rising order; needed if B > 1.
    """
    return built(
        s,
        lib.tnn_fused_attention_cached,
        handle(s, "qkv", qkv),
        handle(s, "rope_table", rope_table),
        handle(s, "kv_cache", kv_cache),
        handle(s, "n_past", n_past),
        int32("n_heads", n_heads),
        int32("n_kv", n_kv),
        int64("window", window),
        float32("scale", scale),
        int64("n_ctx", n_ctx),
        optional_handle(s, "first_rows", first_rows),
    )


def tnn_fused_swiglu(s: Session, gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up: [d_ff, rows].

    A row of gate_up [2 d_ff, rows] holds its gate, then its up.
    """
    return built(s, lib.tnn_fused_swiglu, handle(s, "gate_up", gate_up))


def tnn_fused_geglu(s: Session, gate_up: Tensor) -> Tensor:
    """Return gelu(gate) * up: [d_ff, rows].

    A row of gate_up [2 d_ff, rows] holds its gate, then its up. GELU is the approximation by tanh: x (1 +
    tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    """
    return built(s, lib.tnn_fused_geglu, handle(s, "gate_up", gate_up))


def tnn_fused_cross_entropy(
    s: Session, logits: Tensor, targets: Tensor, ignore_id: int, divisor: Tensor | None = None
) -> Tensor:
    """Return the sum of -log_softmax(logits)[target] over the rows whose target is not ignore_id, divided by the
    divisor: [1].

    The gradients of ignored rows are 0. The losses are added in f64, in the order of the rows of each window. Each
    compute checks that targets are tokens or ignore_id, and that the divisor is finite and above 0. Without a divisor,
    at least one target must be a token.

    Args:
        logits: [vocab, rows].
        targets: i32 [rows].
        ignore_id: a target that does not count; it is not a token.
        divisor: an input [1] that replaces the number of targets that are not ignore_id, or None.
    """
    return built(
        s,
        lib.tnn_fused_cross_entropy,
        handle(s, "logits", logits),
        handle(s, "targets", targets),
        int32("ignore_id", ignore_id),
        optional_handle(s, "divisor", divisor),
    )


def tnn_fused_output_loss(
    s: Session, x: Tensor, weight: Tensor, targets: Tensor, ignore_id: int, divisor: Tensor | None, part: int
) -> Tensor:
    """Return the loss that `tnn_fused_cross_entropy` computes from the logits x W^T, with the same bits: [1].

    The logits and their gradients are computed in parts, each of several rows. A part is dropped before the next part
    is computed.

    Args:
        x: [k, rows].
        weight: W, [k, vocab], of a type as in `tnn_fused_linear`.
        targets: i32 [rows].
        ignore_id: as for `tnn_fused_cross_entropy`.
        divisor: as for `tnn_fused_cross_entropy`, or None.
        part: rows of a part.
    """
    return built(
        s,
        lib.tnn_fused_output_loss,
        handle(s, "x", x),
        handle(s, "weight", weight),
        handle(s, "targets", targets),
        int32("ignore_id", ignore_id),
        optional_handle(s, "divisor", divisor),
        int64("part", part),
    )


def tnn_set_z_loss(s: Session, cross_entropy: Tensor, coefficient: float) -> None:
    """Add the z-loss to a cross entropy.

    The gradients become the gradients of a sum: the loss, plus the coefficient times the mean of the squares of
    log(sum(exp(logits))) over the rows that count. The value of the loss does not change. Make this call before
    `tnn_build_backward`. The call has no effect on `tnn_fused_preference_loss`.

    Args:
        cross_entropy: a result of `tnn_fused_cross_entropy` or `tnn_fused_output_loss`.
        coefficient: at least 0; 0: no z-loss.
    """
    status(s, lib.tnn_set_z_loss, handle(s, "cross_entropy", cross_entropy), float32("coefficient", coefficient))


def tnn_fused_preference_loss(
    s: Session, cross_entropy: Tensor, reference: Tensor, settings: Tensor, *, kind: int = 0
) -> Tensor:
    """Return the sum of the losses of pairs of sequences, divided by the divisor: [1].

    The first sequence of a pair is preferred to the second. The change of a sequence is its log-probability minus the
    log-probability in the reference model. The margin of a pair is the change of the first sequence minus the change of
    the second. Operand 0 of the result has the shape [sequences / 2, 3]. Operand 0 holds the loss of each pair, and
    then the derivative of the result with respect to the negative log-probability of each sequence. Losses are added in
    f64, as a binary tree over the pairs.

    Args:
        cross_entropy: a result of `tnn_fused_cross_entropy` or `tnn_fused_output_loss`.
        reference: an input [sequences, 2]: log-probabilities in the reference model, each a sum of two numbers.
        settings: an input [3]: beta, label smoothing (for the sigmoid), divisor.
        kind: a value of enum `tnn_preference`.
    """
    return built(
        s,
        lib.tnn_fused_preference_loss,
        handle(s, "cross_entropy", cross_entropy),
        handle(s, "reference", reference),
        handle(s, "settings", settings),
        int32("kind", kind),
    )


def tnn_fused_grad_norm(s: Session, grads: Sequence[Tensor], clip: Tensor) -> Tensor:
    """Return the norm of all gradients together, and the factor by which clipping multiplies each gradient: [2].

    Make this call after `tnn_build_backward`. clip [2] holds the largest norm (0: no limit) and a factor for all
    gradients, for example 1/n for n accumulated steps.
    """
    grads_array, n = handles(s, "grads", grads)
    return built(s, lib.tnn_fused_grad_norm, grads_array, n, handle(s, "clip", clip))


def tnn_fused_adamw(
    s: Session,
    w: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    hp: Tensor,
    norm: Tensor | None = None,
    step: Tensor | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Append one AdamW step on the clipped gradient, with the same bits as `tnn_opt_step_adamw`.

    If the norm is not finite, w, m and v stay unchanged. If step is given, the moments are BF16. The new weights are
    then computed from the new moments in F32, and the moments are rounded to BF16 stochastically: the random bits
    depend only on seed, step and the place in w.

    Args:
        w: a parameter.
        grad: its gradient.
        m: first moment, F32, or BF16 if step is given.
        v: second moment, in the dtype of m.
        hp: [7], as for `tnn_opt_step_adamw`.
        norm: a result of `tnn_fused_grad_norm`, by which the gradient is clipped, or None.
        step: an input i32 [1], or None: the number of the step.
        seed: the seed of the random bits, which should differ between weights.
    """
    return built(
        s,
        lib.tnn_fused_adamw,
        handle(s, "w", w),
        handle(s, "grad", grad),
        handle(s, "m", m),
        handle(s, "v", v),
        handle(s, "hp", hp),
        optional_handle(s, "norm", norm),
        optional_handle(s, "step", step),
        int32("seed", seed),
    )


def tnn_fused_muon(
    s: Session,
    w: Tensor,
    grad: Tensor,
    m: Tensor,
    hp: Tensor,
    norm: Tensor | None = None,
    step: Tensor | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Append one Muon step on the clipped gradient of a matrix.

    The step computes the momentum (Nesterov), moves its singular values close to 1 by five Newton-Schulz iterations,
    multiplies the resulting matrix by lr sqrt(max(1, ne1 / ne0)), and subtracts the product from w. If the norm is not
    finite, w and m stay unchanged.

    Args:
        w: a parameter [ne0, ne1].
        grad: its gradient.
        m: momentum, F32, or BF16 if step is given.
        hp: [3]: learning rate, momentum, weight decay.
        norm: a result of `tnn_fused_grad_norm`, or None.
        step: as for `tnn_fused_adamw`, or None.
        seed: as for `tnn_fused_adamw`.
    """
    return built(
        s,
        lib.tnn_fused_muon,
        handle(s, "w", w),
        handle(s, "grad", grad),
        handle(s, "m", m),
        handle(s, "hp", hp),
        optional_handle(s, "norm", norm),
        optional_handle(s, "step", step),
        int32("seed", seed),
    )

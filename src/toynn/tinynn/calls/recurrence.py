# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""The operators of state-space models. These operators have no derivatives. Errors are as in the group "operators"."""

from __future__ import annotations

from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, handle


def tnn_ssm_conv(s: Session, x: Tensor, kernel: Tensor) -> Tensor:
    """Return the causal convolution of each channel with its own kernel: [d_inner, T, n_seqs].

    Args:
        x: [d_conv - 1 + T, d_inner, n_seqs].
        kernel: [d_conv, d_inner].
    """
    return built(s, lib.tnn_ssm_conv, handle(s, "x", x), handle(s, "kernel", kernel))


def tnn_ssm_scan(
    s: Session, state: Tensor, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, ids: Tensor
) -> Tensor:
    """Return the selective scan of Mamba: y [head_dim, n_heads, T, n_seqs], followed by the new states [d_state,
    head_dim, n_heads, n_seqs], as one vector.

    Args:
        state: [d_state, head_dim, n_heads, n_states].
        x: [head_dim, n_heads, T, n_seqs].
        dt: [n_heads, T, n_seqs].
        a: [d_state, n_heads] (Mamba-1) or [1, n_heads] (Mamba-2).
        b: [d_state, n_groups, T, n_seqs].
        c: [d_state, n_groups, T, n_seqs].
        ids: i32 [n_seqs], an input: for each sequence, the index of its initial state.
    """
    return built(
        s,
        lib.tnn_ssm_scan,
        handle(s, "state", state),
        handle(s, "x", x),
        handle(s, "dt", dt),
        handle(s, "a", a),
        handle(s, "b", b),
        handle(s, "c", c),
        handle(s, "ids", ids),
    )


def tnn_gated_delta_net(s: Session, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """Return the result of the gated delta rule: [d n_heads, n_seqs (T + d)], the outputs of the tokens and then the
    new states.

    Args:
        q: [d, n_heads or a divisor of it, T, n_seqs or a divisor of it].
        k: like q; k may have other numbers of heads and sequences than q.
        v: [d, n_heads, T, n_seqs].
        g: log of the decay, [1 or d, n_heads, T, n_seqs].
        beta: [1, n_heads, T, n_seqs].
        state: [d, d, n_heads, n_seqs], each matrix transposed.
    """
    return built(
        s,
        lib.tnn_gated_delta_net,
        handle(s, "q", q),
        handle(s, "k", k),
        handle(s, "v", v),
        handle(s, "g", g),
        handle(s, "beta", beta),
        handle(s, "state", state),
    )

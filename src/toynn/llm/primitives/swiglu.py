"""The gated feed-forward layer."""

from __future__ import annotations

from toynn.tinynn import Session, Tensor, tnn_matmul, tnn_mul, tnn_silu


def swiglu(s: Session, h: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """w_down (silu(w_gate h) * (w_up h)).

    h: ne=[d_model, T*B], w_gate, w_up: ne=[d_model, d_ff], w_down: ne=[d_ff, d_model]. Returns ne=[d_model, T*B].
    """
    gate = tnn_silu(s, tnn_matmul(s, w_gate, h))  # ne=[d_ff, T*B]
    up = tnn_matmul(s, w_up, h)  # ne=[d_ff, T*B]
    return tnn_matmul(s, w_down, tnn_mul(s, gate, up))  # ne=[d_model, T*B]

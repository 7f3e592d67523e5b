"""Root-mean-square normalisation."""

from __future__ import annotations

from toynn.tinynn import Session, Tensor, tnn_rms_norm


def rms_norm(s: Session, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """gamma * x / sqrt(mean(x^2) + eps), column by column.

    x: ne=[d, T*B], gamma: ne=[d]. Returns ne=[d, T*B].
    """
    return tnn_rms_norm(s, x, gamma, eps)

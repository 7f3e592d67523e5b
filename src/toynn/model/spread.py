"""The spread of random initial weights."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class Spread:
    """The spread of random initial weights.

    init_scale: factor of the standard deviation of the matrices of the layers.
    embedding_std: standard deviation of the embedding, and of the output of an untied model.
    """

    init_scale: float
    embedding_std: float = EMBEDDING_STD

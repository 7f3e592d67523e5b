"""Fold a projection lens into the embedding, so that an exported model is a plain llama."""

from __future__ import annotations

import dataclasses

import numpy as np

from toynn.arguments import not_finite
from toynn.errors import TinyNNValueError
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import EMBEDDING, LENS

_ROWS = 4096  # number of rows of the embedding that are converted at once; it limits the memory for the float64 copies


def folded(model: TrainedModel) -> TrainedModel:
    """Return the model without its projection lens. A model without a projection lens is returned unchanged.

    The new embedding is embedding @ lens.T, (vocab, donor) @ (donor, d_model), computed in float64 and rounded once.

    Raises TinyNNValueError if a value does not fit into f32.
    """
    if model.shape.donor_d_in == 0:
        return model
    weights = dict(model.weights)
    donor = weights[EMBEDDING]
    lens = weights.pop(LENS).astype(np.float64)
    embedding = np.empty((model.shape.vocab, model.shape.d_model), dtype=np.float32)
    for start in range(0, model.shape.vocab, _ROWS):
        product = donor[start : start + _ROWS].astype(np.float64) @ lens.T
        with np.errstate(over="ignore"):
            embedding[start : start + _ROWS] = product
    if (wrong := not_finite(embedding)) is not None:
        raise TinyNNValueError(
            f"the model cannot be exported: the product of its embedding and lens must fit f32, got {wrong}"
        )
    weights[EMBEDDING] = embedding
    return dataclasses.replace(model, shape=dataclasses.replace(model.shape, donor_d_in=0), weights=weights)

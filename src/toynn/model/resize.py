"""Enlarge the vocabulary of a model, for tokens that were added to its tokenizer."""

from __future__ import annotations

import dataclasses

import numpy as np

from toynn.errors import TinyNNValueError
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes


def resized(model: TrainedModel, vocab: int, tokenizer: bytes | None) -> TrainedModel:
    """Return a copy of the model with rows for `vocab` tokens and with this tokenizer. Existing rows stay the same.

    Each new row of the embedding, and of the output matrix of an untied model, is the mean of the existing rows, so
    that a new token starts as an average token. The mean is computed in float64 and rounded once.

    Raises TinyNNValueError if `vocab` is smaller than the model's vocabulary.
    """
    if vocab < model.shape.vocab:
        raise TinyNNValueError(
            f"vocab must be at least {model.shape.vocab} (the size of the model's vocabulary), got {vocab}"
        )
    shape: ModelShape = dataclasses.replace(model.shape, vocab=vocab)
    weights = dict(model.weights)
    for name, size in weight_shapes(shape).items():
        values = weights[name]
        if values.shape != size:  # a matrix whose size depends on the vocabulary has a row for each token
            mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
            weights[name] = np.concatenate([values, np.tile(mean, (vocab - values.shape[0], 1))])
    return dataclasses.replace(model, shape=shape, weights=weights, tokenizer=tokenizer)

"""Small models with random weights, which tests write to checkpoints."""

from __future__ import annotations

import numpy as np

from toynn import RopeScaling
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes

SHAPE = ModelShape(
    vocab=40,
    d_model=16,
    n_heads=4,
    n_kv=2,
    d_ff=24,
    n_layers=2,
    ctx=32,
    rope_base=500.0,
    rms_eps=1e-6,
    head_dim=6,
    rope_scaling=RopeScaling.llama3(8.0, 1.0, 4.0, 16),
    untied=True,
    qkv_bias=True,
)


def random_model(shape: ModelShape = SHAPE, seed: int = 0, tokenizer: bytes | None = b"{}") -> TrainedModel:
    """Return a model with random weights."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.standard_normal(size).astype(np.float32) for name, size in weight_shapes(shape).items()}
    return TrainedModel(shape, weights, tokenizer, eos_id=3, bos_id=None)

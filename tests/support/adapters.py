"""Adapters with random matrices for the small models of `interop_models`."""

from __future__ import annotations

import numpy as np

from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.shape import ModelShape
from toynn.model.weights import ADAPTABLE, ADAPTER_A

LAYER = tuple(key for key in ADAPTABLE if key != "output")


def adapter_of(
    shape: ModelShape,
    targets: tuple[str, ...] = LAYER,
    *,
    rank: int = 4,
    alpha: float = 6.0,
    use_rslora: bool = False,
    seed: int = 1,
) -> TrainedAdapter:
    """Return an adapter that changes the logits clearly."""
    spec = AdapterSpec(rank=rank, alpha=alpha, use_rslora=use_rslora, targets=targets)
    rng = np.random.default_rng(seed)
    tensors = {
        weight.name: rng.normal(0.0, 0.1 if weight.adapter == ADAPTER_A else 0.2, weight.size).astype(np.float32)
        for weight in spec.weights(shape)
    }
    return TrainedAdapter(spec, shape, tensors)


def assert_same_adapter(a: TrainedAdapter, b: TrainedAdapter) -> None:
    """Check that two adapters have the same bits."""
    assert (a.spec, a.shape) == (b.spec, b.shape)
    assert list(a.tensors) == list(b.tensors)
    for name, values in a.tensors.items():
        assert values.tobytes() == b.tensors[name].tobytes(), name

"""Adapters with random matrices for the small models of `interop_models`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn import LlamaSeqEngine, RecipeOptions
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


def logits_with(base: object, adapter: TrainedAdapter, ids: list[int]) -> npt.NDArray[np.float32]:
    """Return the logits of every position, float32 (n, vocab), of a base with an adapter beside it."""
    with LlamaSeqEngine() as engine:
        options = RecipeOptions(len(ids), n_threads=1, layout="fused")
        engine.realize_with_adapter(base, adapter.spec, options, adapter.tensors)
        return engine.forward(ids)


def assert_same_adapter(a: TrainedAdapter, b: TrainedAdapter) -> None:
    """Check that two adapters have the same bits."""
    assert (a.spec, a.shape) == (b.spec, b.shape)
    assert list(a.tensors) == list(b.tensors)
    for name, values in a.tensors.items():
        assert values.tobytes() == b.tensors[name].tobytes(), name

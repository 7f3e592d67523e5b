"""Merge an adapter into the weights of its base."""

from __future__ import annotations

import dataclasses

import numpy as np

from toynn.arguments import FloatArray, instance_of, not_finite
from toynn.errors import TinyNNValueError
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import ADAPTER_A, ADAPTER_B
from toynn.tinynn.memory import want_memory

_CHUNK = 1 << 16  # number of elements of a matrix that are computed at once in f64


def merged(model: TrainedModel, adapter: TrainedAdapter) -> TrainedModel:
    """Return the model with the adapter in its weights: each target W becomes W + scale * B A.

    The weights are computed in f64 and rounded once to f32. The products of B and A are added in the order of the
    ranks, so the bits do not depend on the machine. The name of the model is dropped, because the result is another
    model.

    Raises TinyNNValueError if the adapter belongs to a base of another shape, or if a number does not fit f32. Raises
    TinyNNTypeError for an argument of the wrong type.
    """
    instance_of("model", model, TrainedModel)
    instance_of("adapter", adapter, TrainedAdapter)
    if (name := model.shape.differing_field(adapter.shape, ignored="ctx")) is not None:
        raise TinyNNValueError(
            f"the adapter belongs to a base with {name} = {getattr(adapter.shape, name)!r}, but the model has "
            f"{getattr(model.shape, name)!r}"
        )
    weights = dict(model.weights)
    for name in adapter.tensors:
        stem, end = name.rsplit(".", 1)
        if end == ADAPTER_A:
            weights[stem] = _sum(stem, weights[stem], adapter)
    return dataclasses.replace(model, weights=weights, foreign=dataclasses.replace(model.foreign, name=""))


def _sum(name: str, weight: FloatArray, adapter: TrainedAdapter) -> FloatArray:
    spec: AdapterSpec = adapter.spec
    a = adapter.tensors[f"{name}.{ADAPTER_A}"].astype(np.float64)
    b = adapter.tensors[f"{name}.{ADAPTER_B}"].astype(np.float64)
    want_memory(name, weight.nbytes, f"{weight.size} merged numbers")
    result = np.empty_like(weight)
    rows = max(1, _CHUNK // weight.shape[1])
    for first in range(0, len(weight), rows):
        part = slice(first, first + rows)
        # A matrix product of numpy would add up in an order that depends on the machine.
        total = np.zeros(weight[part].shape)
        for i in range(spec.rank):
            total += b[part, i, None] * a[i]
        with np.errstate(over="ignore"):
            result[part] = weight[part] + spec.scale * total
    if (wrong := not_finite(result)) is not None:
        raise TinyNNValueError(f"{name} cannot be merged: its sum with the adapter must fit f32, got {wrong}")
    return result

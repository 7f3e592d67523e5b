"""Base models for tests: the weights of a variant of the oracle, as a TrainedModel and in the per_head layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from oracle.params import Weights, random_weights
from oracle.variants import VARIANTS, Variant
from toynn import LlamaSeqEngine
from toynn.llm.layouts import to_fused
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import Weight, weights_by_head_of

# A base model cannot have a projection lens.
BASES = {name: variant for name, variant in VARIANTS.items() if variant.cfg.donor_d_in == 0}


def base_of(variant: Variant, seed: int = 5) -> tuple[TrainedModel, Weights]:
    """Return a base model with random weights, and these weights by their names in the per_head layout."""
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed)
    shape = ModelShape.of(variant.cfg, untied=variant.untied, qkv_bias=variant.qkv_bias)
    fused = to_fused({name: values.astype(np.float32) for name, values in weights.items()}, variant.cfg)
    return TrainedModel(shape, fused, None), weights


def _heads_of(variant: Variant) -> list[Weight]:
    return weights_by_head_of(base_of(variant)[0].shape)


def joined(weights: dict[str, npt.NDArray[np.float64]], variant: Variant) -> dict[str, npt.NDArray[np.float64]]:
    """Return the weights of the fused layout in float64. `to_fused` would round them to float32."""
    parts: dict[str, list[npt.NDArray[np.float64]]] = {}
    for one in _heads_of(variant):
        parts.setdefault(one.whole, []).append(weights[one.name])
    return {name: np.concatenate(part) for name, part in parts.items()}


def divided(weights: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Return the weights of the per_head layout in float64, as arrays or as tensors of PyTorch, like those given."""
    found = {}
    for one in _heads_of(variant):
        first = (one.head or 0) * one.size[0]
        found[one.name] = weights[one.whole][first : first + one.size[0]]
    return found


def hashes(engine: LlamaSeqEngine) -> dict[str, str]:
    """Return the sha256 of each weight's values."""
    return {name: hashlib.sha256(engine.download_weight(name).tobytes()).hexdigest() for name in engine.weights}


def random_adapters(weights: Weights, rank: int, seed: int = 8) -> Weights:
    """Return random matrices A and B of an adapter for each query head. B is not zero."""
    rng = np.random.default_rng(seed)
    adapters: Weights = {}
    for name, values in weights.items():
        if ".attn_q." in name and name.endswith(".weight"):
            stem, (d_out, d_in) = name.removesuffix(".weight"), values.shape
            adapters[f"{stem}.lora_a.weight"] = _float32(rng.normal(0, 0.3, (rank, d_in)))
            adapters[f"{stem}.lora_b.weight"] = _float32(rng.normal(0, 0.3, (d_out, rank)))
    return adapters


def _float32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)

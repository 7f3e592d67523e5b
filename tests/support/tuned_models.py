"""Base models for tests: the weights of a variant of the oracle, as a TrainedModel and in the per_head layout."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from oracle.params import Weights, random_weights
from oracle.variants import VARIANTS, Variant
from toynn import LlamaSeqEngine
from toynn.llm.layouts import to_fused
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel

# A base model cannot have a projection lens.
BASES = {name: variant for name, variant in VARIANTS.items() if variant.cfg.donor_d_in == 0}


def base_of(variant: Variant, seed: int = 5) -> tuple[TrainedModel, Weights]:
    """Return a base model with random weights, and these weights by their names in the per_head layout."""
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed)
    shape = ModelShape.of(variant.cfg, untied=variant.untied, qkv_bias=variant.qkv_bias)
    fused = to_fused({name: values.astype(np.float32) for name, values in weights.items()}, variant.cfg)
    return TrainedModel(shape, fused, None), weights


def hashes(engine: LlamaSeqEngine) -> dict[str, str]:
    """Return the sha256 of each weight's values."""
    return {name: hashlib.sha256(engine.download_weight(name).tobytes()).hexdigest() for name in engine.weights}


def random_adapters(weights: Weights, rank: int, seed: int = 8) -> Weights:
    """Return random adapters of all query heads, in which B is not zero."""
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

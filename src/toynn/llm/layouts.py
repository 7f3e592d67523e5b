"""The layouts by name, and the conversion of weights between them.

A conversion only moves rows. In the per_head layout each head is a weight, and in the fused layout one weight holds the
rows of all heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from toynn.arguments import FloatArray, kind_of, text
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.llm.fused.layout import FusedLayout
from toynn.llm.layout import Layout
from toynn.llm.per_head.layout import PerHeadLayout
from toynn.model.config import SmolLM2Config
from toynn.model.weights import GLOBAL_ROWS, LAYER_ROWS, HeadName, head_name
from toynn.tinynn.arrays import float_array

BY_NAME: dict[str, type[Layout]] = {layout.name: layout for layout in (PerHeadLayout, FusedLayout)}


def to_fused(weights: Mapping[str, FloatArray], cfg: SmolLM2Config) -> dict[str, FloatArray]:
    """Convert weights and moments of the per_head layout. Return them by their names in the fused layout.

    Head h of a weight becomes the d_head rows that start at row h * d_head. Weights without heads keep their names and
    values.

    Raises TinyNNValueError if a head is missing, unknown or of another shape, or TinyNNTypeError for arguments of other
    types.
    """
    most = _check(weights, cfg)
    fused: dict[str, FloatArray] = {}
    heads: dict[HeadName, dict[int, FloatArray]] = {}
    for name, values in weights.items():
        found = head_name(name)
        if found is None or found.head is None:
            fused[name] = float_array(name, values, most)
            continue
        # A placeholder, which keeps the order of the names.
        fused.setdefault(found.whole, np.zeros(0, dtype=np.float32))
        heads.setdefault(found.without_head, {})[found.head] = float_array(name, values, most)
    for whole, parts in heads.items():
        n, size = whole.heads(cfg)
        if sorted(parts) != list(range(n)):
            raise TinyNNValueError(f"{whole.whole} must have the heads 0 to {n - 1}, got {sorted(parts)}")
        for head, values in parts.items():
            if values.shape != size:
                raise TinyNNValueError(f"head {head} of {whole.whole} must have shape {size}, got {values.shape}")
        fused[whole.whole] = np.concatenate([parts[head] for head in range(n)])
    return fused


def to_per_head(weights: Mapping[str, FloatArray], cfg: SmolLM2Config) -> dict[str, FloatArray]:
    """Convert weights and moments of the fused layout, the inverse of `to_fused`. Return them by their names in the
    per_head layout.

    Raises TinyNNValueError if a weight with heads has another shape, or TinyNNTypeError for arguments of other types.
    """
    most = _check(weights, cfg)
    per_head: dict[str, FloatArray] = {}
    for name, values in weights.items():
        found = head_name(name)
        array = float_array(name, values, most)
        if found is None or found.head is not None:
            per_head[name] = array
            continue
        n, size = found.heads(cfg)
        whole = (n * size[0], *size[1:])
        if array.shape != whole:
            raise TinyNNValueError(f"{name} must have shape {whole}, got {array.shape}")
        for head in range(n):
            per_head[found.of_head(head)] = array[head * size[0] : (head + 1) * size[0]].copy()
    return per_head


def _check(weights: object, cfg: object) -> int:
    """Return the number of elements of the largest weight that the model can have."""
    if not isinstance(weights, Mapping):
        raise TinyNNTypeError(f"weights must be a mapping of names to arrays, got {kind_of(weights)}")
    if not isinstance(cfg, SmolLM2Config):
        raise TinyNNTypeError(f"cfg must be a SmolLM2Config, got {kind_of(cfg)}")
    for name in weights:
        text("a name of weights", name)
    return max(math.prod(row.size(cfg)) for row in (*GLOBAL_ROWS, *LAYER_ROWS))

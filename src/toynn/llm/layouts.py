"""The weights of one layout as those of the other. Nothing is computed: heads are rows, stacked or cut."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from toynn.arguments import FloatArray, kind_of, text
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.config import SmolLM2Config
from toynn.tinynn.memory import float_array

_HEAD = re.compile(r"^(?P<stem>blk\.\d+\.attn_[qkv])\.head_(?P<head>\d{1,9})\.(?P<rest>(weight|bias)(\.[mv])?)$")
_STACK = re.compile(r"^(?P<stem>blk\.\d+\.attn_(?P<kind>[qkv]))\.(?P<rest>(weight|bias)(\.[mv])?)$")


def _check(weights: object, cfg: object) -> None:
    if not isinstance(weights, Mapping):
        raise TinyNNTypeError(f"weights must be a mapping of names to arrays, got {kind_of(weights)}")
    if not isinstance(cfg, SmolLM2Config):
        raise TinyNNTypeError(f"cfg must be a SmolLM2Config, got {kind_of(cfg)}")
    for name in weights:
        text("a name of weights", name)


def _n_heads(cfg: SmolLM2Config, kind: str) -> int:
    return cfg.n_heads if kind == "q" else cfg.n_kv


def to_fused(weights: Mapping[str, FloatArray], cfg: SmolLM2Config) -> dict[str, FloatArray]:
    """Weights (and moments) by their per_head names as those of the fused layout: `attn_q.head_h` is rows
    h*d_head.. of `attn_q`, likewise k and v. All others keep name and value.

    Raises TinyNNValueError where a head is missing, one too many, or of another shape,
    TinyNNTypeError for weights or a cfg that are none.
    """
    _check(weights, cfg)
    fused: dict[str, FloatArray] = {}
    heads: dict[str, dict[int, FloatArray]] = {}
    for name, values in weights.items():
        match = _HEAD.match(name)
        if match is None:
            fused[name] = float_array(name, values)
            continue
        stacked = f"{match['stem']}.{match['rest']}"
        fused.setdefault(stacked, np.zeros(0, dtype=np.float32))  # keeps the order of the names
        heads.setdefault(stacked, {})[int(match["head"])] = float_array(name, values)
    for name, parts in heads.items():
        n = _n_heads(cfg, name.split(".attn_")[1][0])
        if sorted(parts) != list(range(n)):
            raise TinyNNValueError(f"{name} needs heads 0..{n - 1}, the weights have {sorted(parts)}")
        shape = (cfg.head_dim, cfg.d_model) if ".weight" in name else (cfg.head_dim,)
        for head, values in parts.items():
            if values.shape != shape:
                raise TinyNNValueError(f"head {head} of {name} must have shape {shape}, got {values.shape}")
        fused[name] = np.concatenate([parts[head] for head in range(n)])
    return fused


def to_per_head(weights: Mapping[str, FloatArray], cfg: SmolLM2Config) -> dict[str, FloatArray]:
    """The inverse of `to_fused`. Raises TinyNNValueError for a q, k or v of another shape."""
    _check(weights, cfg)
    per_head: dict[str, FloatArray] = {}
    for name, values in weights.items():
        match = _STACK.match(name)
        array = float_array(name, values)
        if match is None:
            per_head[name] = array
            continue
        n, d = _n_heads(cfg, match["kind"]), cfg.head_dim
        shape = (n * d, cfg.d_model) if ".weight" in name else (n * d,)
        if array.shape != shape:
            raise TinyNNValueError(f"{name} must have shape {shape}, got {array.shape}")
        for head in range(n):
            per_head[f"{match['stem']}.head_{head}.{match['rest']}"] = array[head * d : (head + 1) * d].copy()
    return per_head

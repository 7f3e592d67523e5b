"""The weights of a model as the specification lists them: names, shapes, order, and which weights are trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from toynn.model.config import SmolLM2Config

Weights = dict[str, npt.NDArray[np.float64]]


def param_shapes(cfg: SmolLM2Config, untied: bool, qkv_bias: bool) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by name, in declaration order; shapes are row-major (d_out, d_in)."""
    shapes: dict[str, tuple[int, ...]] = {}
    if cfg.donor_d_in > 0:
        shapes["token_embd.weight"] = (cfg.vocab, cfg.donor_d_in)
        shapes["lens.proj.weight"] = (cfg.d_model, cfg.donor_d_in)
    else:
        shapes["token_embd.weight"] = (cfg.vocab, cfg.d_model)
    shapes["output_norm.weight"] = (cfg.d_model,)
    if untied:
        shapes["output.weight"] = (cfg.vocab, cfg.d_model)
    for n in range(cfg.n_layers):
        blk = f"blk.{n}."
        shapes[blk + "attn_norm.weight"] = (cfg.d_model,)
        shapes[blk + "ffn_norm.weight"] = (cfg.d_model,)
        for h in range(cfg.n_heads):
            shapes[f"{blk}attn_q.head_{h}.weight"] = (cfg.head_dim, cfg.d_model)
        for h in range(cfg.n_kv):
            shapes[f"{blk}attn_k.head_{h}.weight"] = (cfg.head_dim, cfg.d_model)
            shapes[f"{blk}attn_v.head_{h}.weight"] = (cfg.head_dim, cfg.d_model)
        shapes[blk + "attn_output.weight"] = (cfg.d_model, cfg.n_heads * cfg.head_dim)
        shapes[blk + "ffn_gate.weight"] = (cfg.d_ff, cfg.d_model)
        shapes[blk + "ffn_up.weight"] = (cfg.d_ff, cfg.d_model)
        shapes[blk + "ffn_down.weight"] = (cfg.d_model, cfg.d_ff)
        if qkv_bias:
            for h in range(cfg.n_heads):
                shapes[f"{blk}attn_q.head_{h}.bias"] = (cfg.head_dim,)
            for h in range(cfg.n_kv):
                shapes[f"{blk}attn_k.head_{h}.bias"] = (cfg.head_dim,)
                shapes[f"{blk}attn_v.head_{h}.bias"] = (cfg.head_dim,)
        shapes.update(optional_norms(cfg, blk))
    return shapes


def optional_norms(cfg: SmolLM2Config, blk: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if getattr(cfg, "qk_norm", False):
        shapes[blk + "attn_q_norm.weight"] = (cfg.head_dim,)
        shapes[blk + "attn_k_norm.weight"] = (cfg.head_dim,)
    if is_gemma(cfg):
        shapes[blk + "post_attention_norm.weight"] = (cfg.d_model,)
        shapes[blk + "post_ffw_norm.weight"] = (cfg.d_model,)
    return shapes


def is_gemma(cfg: SmolLM2Config) -> bool:
    return getattr(cfg, "architecture", "llama") == "gemma3"


def window_of(cfg: SmolLM2Config, blk: str) -> int:
    """Return the window of the layer "blk.N."; 0 for a global layer. Every `global_interval`-th layer is global."""
    window = getattr(cfg, "sliding_window", 0)
    return window if window and (int(blk.split(".")[1]) + 1) % getattr(cfg, "global_interval", 0) > 0 else 0


def config_of_layer(cfg: SmolLM2Config, blk: str) -> SmolLM2Config:
    """Return cfg with the RoPE of the layer "blk.N."."""
    if not window_of(cfg, blk):
        return cfg
    return replace(cfg, rope_base=getattr(cfg, "local_rope_base"), rope_scaling=type(cfg.rope_scaling)())  # noqa: B009


def score_divisor(cfg: SmolLM2Config) -> float:
    """Return the number by which the scores of attention are divided."""
    return math.sqrt(getattr(cfg, "query_pre_attn_scalar", 0) or cfg.head_dim)


def has_rope(cfg: SmolLM2Config, blk: str) -> bool:
    """Return whether the layer "blk.N." has RoPE. Every `no_rope_interval`-th layer has none."""
    number, interval = int(blk.split(".")[1]) + 1, getattr(cfg, "no_rope_interval", 0)
    return interval == 0 or number % interval > 0


def trainable_names(cfg: SmolLM2Config, untied: bool, qkv_bias: bool) -> list[str]:
    """Return the names of the trained weights: all, except a frozen embedding before a projection lens."""
    frozen = {"token_embd.weight"} if cfg.donor_d_in > 0 else set()
    return [name for name in param_shapes(cfg, untied, qkv_bias) if name not in frozen]


def random_weights(cfg: SmolLM2Config, untied: bool, qkv_bias: bool, seed: int) -> Weights:
    """Return random weights. Norms and biases are random too, not 1 and 0. Every value is exact in float32."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in param_shapes(cfg, untied, qkv_bias).items():
        values = rng.normal(0.0, 0.3 if name.endswith("norm.weight") else 0.25, shape)
        if name.endswith("norm.weight"):
            values += 1.0
        weights[name] = values.astype(np.float32).astype(np.float64)
    return weights


def initial_weights(
    cfg: SmolLM2Config,
    untied: bool,
    qkv_bias: bool,
    seed: int,
    init_scale: float,
    init_stream: str,
    embedding_std: float = 0.02,
) -> Weights:
    """Return the initial weights of the specification, drawn value by value (slow, for small models)."""
    from oracle.init_streams import STREAMS

    stream = STREAMS[init_stream](seed)
    shapes = param_shapes(cfg, untied, qkv_bias)
    weights: Weights = {
        name: np.full(shape, 1.0 if name.endswith("norm.weight") else 0.0) for name, shape in shapes.items()
    }

    def draw(name: str, std: float) -> None:
        n = int(np.prod(shapes[name]))
        weights[name] = stream.gaussian(n, std).astype(np.float64).reshape(shapes[name])

    draw("token_embd.weight", embedding_std)
    if cfg.donor_d_in > 0:
        draw("lens.proj.weight", 1.0 / math.sqrt(cfg.donor_d_in))
    if untied:
        draw("output.weight", embedding_std)
    for n in range(cfg.n_layers):
        blk = f"blk.{n}."
        wide = init_scale / math.sqrt(cfg.d_model)
        for h in range(cfg.n_heads):
            draw(f"{blk}attn_q.head_{h}.weight", wide)
        for h in range(cfg.n_kv):
            draw(f"{blk}attn_k.head_{h}.weight", wide)
            draw(f"{blk}attn_v.head_{h}.weight", wide)
        for part in ("attn_output", "ffn_gate", "ffn_up"):
            draw(f"{blk}{part}.weight", wide)
        draw(f"{blk}ffn_down.weight", init_scale / math.sqrt(cfg.d_ff))
    return weights

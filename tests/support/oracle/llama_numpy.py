"""Forward and loss of the model in numpy float64, all heads and sequences at once.

This oracle is deliberately written differently from toynn and from oracle.llama: it uses arrays (B, T, heads, d),
computes attention inside each sequence only, and computes RoPE as a product of complex numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from oracle.params import Weights, config_of_layer, has_rope, is_gemma, score_divisor, window_of

if TYPE_CHECKING:
    from toynn.model.config import RopeScaling, SmolLM2Config

F64 = npt.NDArray[np.float64]


def llama3_factor(scaling: RopeScaling, wavelength: float) -> float:
    """Return the number by which the RoPE angle of one pair is divided."""
    if wavelength < scaling.orig_max_pos / scaling.high_freq:
        return 1.0
    if wavelength > scaling.orig_max_pos / scaling.low_freq:
        return scaling.factor
    s = (scaling.orig_max_pos / wavelength - scaling.low_freq) / (scaling.high_freq - scaling.low_freq)
    return (1.0 - s) * scaling.factor + s


def yarn_factor(cfg: SmolLM2Config, i: int) -> float:
    """Return the divisor of the RoPE angle of pair i, so that one division gives the result of ggml's rope_yarn."""
    scaling = cfg.rope_scaling
    turns = np.array([scaling.beta_fast, scaling.beta_slow])
    dims = cfg.head_dim * np.log(scaling.orig_max_pos / (turns * 2 * np.pi)) / (2 * np.log(cfg.rope_base))
    low, high = max(0.0, np.floor(dims[0])), min(cfg.head_dim - 1.0, np.ceil(dims[1]))
    mix = scaling.ext_factor * (1 - np.clip((i - low) / max(0.001, high - low), 0, 1))
    return float(1 / (scaling.freq_scale * (1 - mix) + mix))


def freq_factors(cfg: SmolLM2Config) -> F64:
    """Return one factor for each pair, shape (d/2,), rounded to float32 because toynn uploads them as float32."""
    factors = []
    for i in range(cfg.head_dim // 2):
        wavelength = 2.0 * np.pi * cfg.rope_base ** (2.0 * i / cfg.head_dim)
        if cfg.rope_scaling.kind == "yarn":
            factors.append(yarn_factor(cfg, i))
        else:
            scaled = cfg.rope_scaling.kind == "llama3"
            factors.append(llama3_factor(cfg.rope_scaling, wavelength) if scaled else 1.0)
    return np.array(factors, dtype=np.float32).astype(np.float64)


def rope(x: F64, positions: F64, cfg: SmolLM2Config) -> F64:
    """Rotate each pair (i, i + d/2) of x (B, T, heads, d) by position * base^(-2i/d) / factor_i; positions (B, T)."""
    half = cfg.head_dim // 2
    scaling = cfg.rope_scaling
    speed = cfg.rope_base ** (-2.0 * np.arange(half) / cfg.head_dim) / freq_factors(cfg)
    size = scaling.attn_factor
    if scaling.kind == "yarn":
        size *= 1 + 0.1 * np.log(1 / scaling.freq_scale)
    else:
        speed = speed * scaling.freq_scale
    turn = np.exp(1j * positions[:, :, None, None] * speed) * size  # (B, T, 1, d/2)
    turned = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate([turned.real, turned.imag], axis=-1)


def rms_norm(x: F64, gamma: F64, eps: float) -> F64:
    return np.asarray(x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * gamma)


def gelu(x: F64) -> F64:
    return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


def softmax(x: F64) -> F64:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def stacked(weights: Weights, stem: str, n: int, kind: str) -> F64:
    """Return the n heads of one projection as one array."""
    return np.stack([weights[f"{stem}.head_{h}.{kind}"] for h in range(n)])


def attention(h: F64, positions: F64, cfg: SmolLM2Config, weights: Weights, blk: str) -> F64:
    """Return the attention (B, T, n_heads*d) of h (B, T, d_model)."""

    def project(which: str, n: int) -> F64:  # (B, T, n, d)
        out = np.einsum("btm,ndm->btnd", h, stacked(weights, f"{blk}attn_{which}", n, "weight"))
        if f"{blk}attn_{which}.head_0.bias" in weights:
            out = out + stacked(weights, f"{blk}attn_{which}", n, "bias")
        return np.asarray(out)

    q, k = project("q", cfg.n_heads), project("k", cfg.n_kv)
    if f"{blk}attn_q_norm.weight" in weights:
        q = rms_norm(q, weights[f"{blk}attn_q_norm.weight"], cfg.rms_eps)
        k = rms_norm(k, weights[f"{blk}attn_k_norm.weight"], cfg.rms_eps)
    group = cfg.n_heads // cfg.n_kv
    if has_rope(cfg, blk):
        own = config_of_layer(cfg, blk)
        q, k = rope(q, positions, own), rope(k, positions, own)
    k = np.repeat(k, group, axis=2)
    v = np.repeat(project("v", cfg.n_kv), group, axis=2)
    scores = np.einsum("bqnd,bknd->bnqk", q, k) / score_divisor(cfg)
    hidden = np.triu(np.ones(scores.shape[-2:], dtype=bool), 1)
    if window := window_of(cfg, blk):
        hidden |= np.tril(np.ones_like(hidden), -window)
    heads = np.einsum("bnqk,bknd->bqnd", softmax(np.where(hidden, -np.inf, scores)), v)
    return np.asarray(heads.reshape(*heads.shape[:2], -1))


def forward(
    cfg: SmolLM2Config, weights: Weights, ids: npt.ArrayLike, positions: npt.ArrayLike, t_seq: int, t_batch: int
) -> F64:
    """Return the logits: (T*B, vocab)."""

    def normed(part: F64, blk: str, name: str) -> F64:
        gamma = weights.get(f"{blk}post_{name}_norm.weight")
        return part if gamma is None else rms_norm(part, gamma, cfg.rms_eps)

    pos = np.asarray(positions, dtype=np.float64).reshape(t_batch, t_seq)
    x = weights["token_embd.weight"][np.asarray(ids).reshape(t_batch, t_seq)]  # (B, T, d_model or donor_d_in)
    if cfg.donor_d_in > 0:
        x = x @ weights["lens.proj.weight"].T
    if is_gemma(cfg):
        x = x * np.sqrt(cfg.d_model)
    for n in range(cfg.n_layers):
        blk = f"blk.{n}."
        h = rms_norm(x, weights[blk + "attn_norm.weight"], cfg.rms_eps)
        x = x + normed(attention(h, pos, cfg, weights, blk) @ weights[blk + "attn_output.weight"].T, blk, "attention")
        h = rms_norm(x, weights[blk + "ffn_norm.weight"], cfg.rms_eps)
        gate = h @ weights[blk + "ffn_gate.weight"].T
        up = h @ weights[blk + "ffn_up.weight"].T
        activated = gelu(gate) if is_gemma(cfg) else gate / (1.0 + np.exp(-gate))
        x = x + normed((activated * up) @ weights[blk + "ffn_down.weight"].T, blk, "ffw")
    head = weights.get("output.weight", weights["token_embd.weight"])
    logits = rms_norm(x, weights["output_norm.weight"], cfg.rms_eps) @ head.T
    return np.asarray(logits.reshape(t_seq * t_batch, cfg.vocab))


def cross_entropy(logits: F64, labels: npt.ArrayLike) -> float:
    """Return the mean over the rows of -sum(labels * log_softmax(logits))."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return float(-(np.asarray(labels, dtype=np.float64) * log_p).sum(axis=-1).mean())

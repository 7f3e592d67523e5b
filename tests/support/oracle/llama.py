"""The model in PyTorch float64, computed head by head as in the specification, with gradients by autograd, and AdamW.

Activations are (T*B, features): the transpose of the specification's ne = [features, T*B].
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from oracle.params import Weights, config_of_layer, has_rope, is_gemma, score_divisor, window_of

if TYPE_CHECKING:
    from toynn.model.config import SmolLM2Config


@dataclass
class Result:
    logits: npt.NDArray[np.float64]  # (T*B, vocab)
    loss: float
    grads: Weights  # the gradient of every trainable weight


def rope_angles(cfg: SmolLM2Config, positions: Tensor) -> Tensor:
    """Return the angles of RoPE: (T*B, d/2)."""
    d, scaling = cfg.head_dim, cfg.rope_scaling
    speeds = []
    for i in range(d // 2):
        frequency = cfg.rope_base ** (-2 * i / d)
        if scaling.kind == "llama3":
            wavelength = 2 * math.pi / frequency
            short, long = scaling.orig_max_pos / scaling.high_freq, scaling.orig_max_pos / scaling.low_freq
            # s falls from 1 at the wavelength `short` to 0 at `long`; outside this range it is 1 or 0
            s = (scaling.orig_max_pos / min(max(wavelength, short), long) - scaling.low_freq) / (
                scaling.high_freq - scaling.low_freq
            )
            frequency /= float(np.float32((1 - s) * scaling.factor + s))
        if scaling.kind == "yarn":
            # low and high are the indices of the pairs that rotate beta_fast and beta_slow times in orig_max_pos
            # tokens, as in transformers
            low, high = (
                d * math.log(scaling.orig_max_pos / (beta * 2 * math.pi)) / (2 * math.log(cfg.rope_base))
                for beta in (scaling.beta_fast, scaling.beta_slow)
            )
            low, high = max(math.floor(low), 0), min(math.ceil(high), d - 1)
            ramp = min(max((i - low) / (high - low + 0.001 * (high == low)), 0), 1)
            frequency /= float(np.float32(1 / (ramp / scaling.factor + 1 - ramp)))
        else:
            frequency *= scaling.freq_scale
        speeds.append(frequency)
    return torch.outer(positions, torch.tensor(speeds, dtype=torch.float64))


def rope(x: Tensor, angles: Tensor, attn_factor: float) -> Tensor:
    """Rotate the pairs (i, i + d/2) of x (T*B, d), as the mode NEOX of ggml does."""
    first, second = x.chunk(2, dim=1)
    cos, sin = angles.cos() * attn_factor, angles.sin() * attn_factor
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=1)


def rms_norm(x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(dim=1, keepdim=True) + eps) * gamma


def causal_mask(t_seq: int, t_batch: int, window: int = 0) -> Tensor:
    """Return the mask (T*B queries, T*B keys): 0 if the query sees the key, else -1e30, or -inf if B is 1.

    window: the number of keys that a query sees; 0: all keys of its sequence up to its own.
    """
    n = t_seq * t_batch
    closed = -math.inf if t_batch == 1 else -1e30
    mask = torch.full((n, n), closed, dtype=torch.float64)
    for query in range(n):
        start = query // t_seq * t_seq  # keys of the query's own sequence
        if window:
            start = max(start, query - window + 1)
        mask[query, start : query + 1] = 0.0
    return mask


class RoundedProduct(torch.autograd.Function):
    """The product x W^T as ggml computes it for a W that is cast to f16 or bf16.

    ggml also rounds x, and it rounds the gradient of the product before it computes the gradient of x. The gradient
    of W is computed in f32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, dtype: torch.dtype) -> Tensor:
        rounded = w.to(dtype).double()
        ctx.save_for_backward(x, rounded)
        ctx.dtype = dtype
        return x.to(dtype).double() @ rounded.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, rounded), (grad,) = ctx.saved_tensors, grads
        return grad.to(ctx.dtype).double() @ rounded, grad.T @ x, None


class Bf16Product(torch.autograd.Function):
    """The product x W^T with precision="bf16": the operands of all three products are rounded to bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(bf16(x), bf16(w))
        return bf16(x) @ bf16(w).T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (x, w), (grad,) = ctx.saved_tensors, grads
        return bf16(grad) @ w, bf16(grad).T @ x


def bf16(x: Tensor) -> Tensor:
    return x.float().bfloat16().double()  # x is rounded to f32 first, as in toynn


def product(x: Tensor, w: Tensor, rounded: torch.dtype | str | None) -> Tensor:
    if rounded == "bf16":
        return Bf16Product.apply(x, w)  # type: ignore[no-untyped-call, no-any-return]
    return x @ w.T if rounded is None else RoundedProduct.apply(x, w, rounded)  # type: ignore[no-untyped-call]


def attention(
    cfg: SmolLM2Config, w: dict[str, Tensor], blk: str, h: Tensor, angles: Tensor, mask: Tensor,
    rounded: torch.dtype | str | None,
) -> Tensor:  # fmt: skip
    """Return the attention (T*B, n_heads*d) of h (T*B, d_model)."""

    def project(head: str) -> Tensor:  # (T*B, d)
        out = product(h, w[f"{blk}{head}.weight"], rounded)
        if f"{blk}{head}.lora_a.weight" in w:
            out = out + h @ w[f"{blk}{head}.lora_a.weight"].T @ w[f"{blk}{head}.lora_b.weight"].T
        bias = w.get(f"{blk}{head}.bias")
        return out if bias is None else out + bias

    rotates = has_rope(cfg, blk)
    attn_factor = cfg.rope_scaling.attn_factor
    if cfg.rope_scaling.kind == "yarn":
        attn_factor *= 1 + 0.1 * math.log(cfg.rope_scaling.factor)

    def turned(head: str, norm: str) -> Tensor:  # (T*B, d)
        x, gamma = project(head), w.get(f"{blk}{norm}.weight")
        x = x if gamma is None else rms_norm(x, gamma, cfg.rms_eps)
        return rope(x, angles, attn_factor) if rotates else x

    keys = [turned(f"attn_k.head_{g}", "attn_k_norm") for g in range(cfg.n_kv)]
    values = [project(f"attn_v.head_{g}") for g in range(cfg.n_kv)]
    heads = []
    for i in range(cfg.n_heads):
        g = i // (cfg.n_heads // cfg.n_kv)
        q = turned(f"attn_q.head_{i}", "attn_q_norm")
        scores = q @ keys[g].T / score_divisor(cfg) + mask  # (T*B queries, T*B keys)
        heads.append(torch.softmax(scores, dim=1) @ values[g])
    return torch.cat(heads, dim=1)


def logits_of(
    cfg: SmolLM2Config, w: dict[str, Tensor], ids: Tensor, positions: Tensor, t_seq: int, t_batch: int,
    rounded: torch.dtype | str | None = None,
) -> Tensor:  # fmt: skip
    """Return the logits of the ids: (T*B, vocab)."""

    def normed(part: Tensor, name: str) -> Tensor:
        gamma = w.get(f"{blk}{name}.weight")
        return part if gamma is None else rms_norm(part, gamma, cfg.rms_eps)

    everywhere = rounded if rounded == "bf16" else None
    x = w["token_embd.weight"][ids]
    if cfg.donor_d_in > 0:
        x = product(x, w["lens.proj.weight"], everywhere)
    if is_gemma(cfg):
        x = x * math.sqrt(cfg.d_model)
    for n in range(cfg.n_layers):
        blk = f"blk.{n}."
        angles = rope_angles(config_of_layer(cfg, blk), positions)
        mask = causal_mask(t_seq, t_batch, window_of(cfg, blk))
        h = rms_norm(x, w[blk + "attn_norm.weight"], cfg.rms_eps)
        heads = attention(config_of_layer(cfg, blk), w, blk, h, angles, mask, rounded)
        x = x + normed(product(heads, w[blk + "attn_output.weight"], rounded), "post_attention_norm")
        h2 = rms_norm(x, w[blk + "ffn_norm.weight"], cfg.rms_eps)
        gate = product(h2, w[blk + "ffn_gate.weight"], rounded)
        up = product(h2, w[blk + "ffn_up.weight"], rounded)
        activated = (
            torch.nn.functional.gelu(gate, approximate="tanh") if is_gemma(cfg) else torch.nn.functional.silu(gate)
        )
        x = x + normed(product(activated * up, w[blk + "ffn_down.weight"], rounded), "post_ffw_norm")
    head = w.get("output.weight", w["token_embd.weight"])
    return product(rms_norm(x, w["output_norm.weight"], cfg.rms_eps), head, everywhere)


def loss_and_grads(
    cfg: SmolLM2Config,
    weights: Weights,
    ids: npt.ArrayLike,
    positions: npt.ArrayLike,
    labels: npt.ArrayLike,
    t_seq: int,
    t_batch: int,
    trained: Collection[str] | None = None,
    rounded: torch.dtype | str | None = None,
    as_ggml: bool = True,
) -> Result:
    """Return logits, loss and the gradient of every trained weight, by default all weights except a donor's embedding.

    rounded: the dtype to which the matrices of the layers are cast; "bf16": as in `Bf16Product`. Weights called
        X.lora_a.weight and X.lora_b.weight are the adapter of X.

    ggml's gradient of the logits is (softmax - labels) / rows. If a row of labels sums to 1, this is the derivative of
    the loss. For a row of zeros (a guarded label) the derivative is 0, but ggml's gradient is not 0, and the model is
    trained with ggml's gradient. Therefore the second expression below has ggml's gradient for every row.
    as_ggml: False returns the derivatives of the loss.
    """
    w = {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}
    for name, tensor in w.items():
        frozen = name == "token_embd.weight" and cfg.donor_d_in > 0
        tensor.requires_grad_(name in trained if trained is not None else not frozen)
    t_ids = torch.tensor(np.asarray(ids), dtype=torch.int64)
    t_positions = torch.tensor(np.asarray(positions), dtype=torch.float64)
    t_labels = torch.tensor(np.asarray(labels), dtype=torch.float64)

    logits = logits_of(cfg, w, t_ids, t_positions, t_seq, t_batch, rounded)
    loss = -(t_labels * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    has_ggml_gradient = (torch.logsumexp(logits, dim=1) - (t_labels * logits).sum(dim=1)).mean()
    (has_ggml_gradient if as_ggml else loss).backward()  # type: ignore[no-untyped-call]
    grads = {name: tensor.grad.numpy() for name, tensor in w.items() if tensor.grad is not None}
    return Result(logits.detach().numpy(), float(loss.detach()), grads)


def adamw_update(
    w: npt.NDArray[np.float64],
    grad: npt.NDArray[np.float64],
    m: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    hp: npt.ArrayLike,
) -> None:
    """Update w, m and v in place, like ggml's opt_step_adamw.

    hp: [alpha, beta1, beta2, eps, wd, factor of m, factor of v].
    """
    alpha, beta1, beta2, eps, wd, s5, s6 = (float(x) for x in np.asarray(hp).ravel())
    m[...] = m * beta1 + grad * (1.0 - beta1)
    v[...] = v * beta2 + grad * grad * (1.0 - beta2)
    w[...] = w * (1.0 - alpha * wd) - alpha * (m * s5) / (np.sqrt(v * s6) + eps)


@dataclass
class Training:
    losses: list[float]  # the loss before each step
    weights: Weights
    m: Weights
    v: Weights


def adamw_steps(
    cfg: SmolLM2Config,
    weights: Weights,
    ids: npt.ArrayLike,
    positions: npt.ArrayLike,
    labels: npt.ArrayLike,
    hps: Sequence[npt.ArrayLike],
    t_seq: int,
    t_batch: int,
    trained: Collection[str] | None = None,
    rounded: torch.dtype | str | None = None,
) -> Training:
    """Take one step for each row of hyperparameters, on one batch, from zero moments. `weights` does not change.

    trained, rounded: as for `loss_and_grads`.
    """
    w = {name: np.array(value, dtype=np.float64) for name, value in weights.items()}
    m: Weights = {}
    v: Weights = {}
    losses = []
    for hp in hps:
        result = loss_and_grads(cfg, w, ids, positions, labels, t_seq, t_batch, trained, rounded)
        losses.append(result.loss)
        for name, grad in result.grads.items():
            m.setdefault(name, np.zeros_like(grad))
            v.setdefault(name, np.zeros_like(grad))
            adamw_update(w[name], grad, m[name], v[name], hp)
    return Training(losses, w, m, v)

"""The model in PyTorch, written for speed, in float32 or under bfloat16 autocast.

Three changes make eager PyTorch faster than the simplest code: q, k and v are one product, gate and up are one product,
and RoPE rotates queries and keys together. The fused layout of toynn has the same two products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from benchmarks.shapes import RMS_EPS, Shape


class RMSNorm(nn.Module):
    """RMSNorm made of basic operators, because F.rms_norm of eager PyTorch is slower on CPUs at these sizes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + RMS_EPS) * self.weight


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv, self.d = shape.n_heads, shape.n_kv, shape.head_dim
        self.attn_norm = RMSNorm(shape.d_model)
        self.qkv = _linear(shape.d_model, (self.heads + 2 * self.kv) * self.d)
        self.out = _linear(self.heads * self.d, shape.d_model)
        self.ffn_norm = RMSNorm(shape.d_model)
        self.gate_up = _linear(shape.d_model, 2 * shape.d_ff)
        self.down = _linear(shape.d_ff, shape.d_model)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, _ = x.shape  # noqa: N806
        qkv = self.qkv(self.attn_norm(x)).view(B, T, -1, self.d).transpose(1, 2)  # (B, H + 2 H_kv, T, d)
        qk, v = torch.split(qkv, [self.heads + self.kv, self.kv], dim=1)
        first, second = qk.chunk(2, dim=-1)  # rotates element i with element i + d/2, like ggml's mode NEOX
        cos, sin = cos.to(qk.dtype), sin.to(qk.dtype)  # under autocast, cos and sin become bfloat16, as in transformers
        qk = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
        q, k = torch.split(qk, [self.heads, self.kv], dim=1)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv)
        x = x + self.out(a.transpose(1, 2).reshape(B, T, -1))  # (B, T, d_model)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class Llama(nn.Module):
    """A Llama model. It takes ids (B, T) and targets (B*T,), and returns the mean cross entropy."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocab, shape.d_model, _weight=_drawn(shape.vocab, shape.d_model))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.norm = RMSNorm(shape.d_model)
        self.head = _linear(shape.d_model, shape.vocab) if shape.untied else None
        speeds = shape.rope_base ** (-2 * torch.arange(shape.head_dim // 2, dtype=torch.float64) / shape.head_dim)
        angles = torch.outer(torch.arange(shape.t_seq, dtype=torch.float64), speeds)  # (T, d/2)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(ids)  # (B, T, d_model)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        head = self.embed.weight if self.head is None else self.head.weight
        logits = F.linear(self.norm(x), head)  # (B, T, vocab)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets)

    @torch.no_grad()
    def load(self, weight: Callable[[str], npt.NDArray[np.float32]]) -> None:
        """Copy the weights of toynn's fused layout. weight: a function that returns a weight by its name."""

        def put(parameter: Any, *names: str) -> None:
            parameter.copy_(torch.from_numpy(np.concatenate([weight(f"{name}.weight") for name in names])))

        put(self.embed.weight, "token_embd")
        put(self.norm.weight, "output_norm")
        if self.head is not None:
            put(self.head.weight, "output")
        for n, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            blk = f"blk.{n}."
            put(block.attn_norm.weight, blk + "attn_norm")
            put(block.qkv.weight, blk + "attn_q", blk + "attn_k", blk + "attn_v")
            put(block.out.weight, blk + "attn_output")
            put(block.ffn_norm.weight, blk + "ffn_norm")
            put(block.gate_up.weight, blk + "ffn_gate", blk + "ffn_up")
            put(block.down.weight, blk + "ffn_down")


def _drawn(rows: int, cols: int) -> Tensor:
    return torch.randn(rows, cols) * 0.02


def _linear(n_in: int, n_out: int) -> nn.Linear:
    """Return a layer with random weights.

    The initialization of nn.Linear is skipped, because it would increase the time to the first loss.
    """
    linear = nn.Linear(n_in, n_out, bias=False, device="meta")
    linear.weight = nn.Parameter(_drawn(n_out, n_in))
    return linear

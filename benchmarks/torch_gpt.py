"""The model and the optimizer of nanoGPT's recipe, written for this benchmark: GPT-2 without biases, and AdamW.

The values are those of nanoGPT's configuration for small texts (train_shakespeare_char): initial weights with the
standard deviation 0.02, learning rate 1e-3 with 100 steps of warm-up and a cosine to a tenth, betas 0.9 and 0.99,
weight decay 0.1 for matrices, and gradients clipped to 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

LR, MIN_LR, WARMUP, BETAS, WEIGHT_DECAY, CLIP, SPREAD = 1e-3, 1e-4, 100, (0.9, 0.99), 0.1, 1.0, 0.02


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape  # noqa: N806
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(B, T, C))  # (B, T, C)
        return x + self.down(F.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """A GPT-2 model with a tied output. It takes ids and targets (B, T), and returns the mean cross entropy."""

    def __init__(self, vocab: int, width: int, heads: int, layers: int, context: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                ends_a_branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=SPREAD / math.sqrt(2 * layers) if ends_a_branch else SPREAD)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)  # (B, T, vocab)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW. Only matrices, embeddings included, have weight decay."""
    weights = list(model.parameters())
    groups = [
        {"params": [one for one in weights if one.ndim == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [one for one in weights if one.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=True)


def learning_rate(step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    warmup = min(WARMUP, steps // 10)
    if step < warmup:
        return LR * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    return MIN_LR + 0.5 * (1 + math.cos(math.pi * done)) * (LR - MIN_LR)

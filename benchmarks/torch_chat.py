"""The model and the optimizers of nanochat's recipe, written for this benchmark.

The values are those of nanochat's first release. Model: RoPE, attention with normalized queries and keys, ReLU squared,
norms without weights, a norm after the embedding, and an output matrix of its own, whose logits are limited to +-15 by
tanh. Optimizers: Muon with the learning rate 0.02 for the matrices of the layers, and AdamW with betas 0.8 and 0.95 for
the embedding (learning rate 0.2) and the output (learning rate 0.004). These two rates are for a width of 768, and are
multiplied by sqrt(768 / width). There is no warm-up of the learning rate. The rate falls to 0 during the last fifth of
the steps. The momentum of Muon rises from 0.85 to 0.95 during 300 steps. Gradients are clipped to 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

MUON_LR, EMBEDDING_LR, OUTPUT_LR, BETAS, EPS, CLIP = 0.02, 0.2, 0.004, (0.8, 0.95), 1e-10, 1.0
LOW_MOMENTUM, MOMENTUM, MOMENTUM_STEPS, FALL = 0.85, 0.95, 300, 0.2
_REFERENCE_WIDTH, _LIMIT, _ROPE_BASE = 768, 15.0, 10_000.0


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        B, T, C = x.shape  # noqa: N806
        h = _norm(x)
        q, k, v = (m(h).view(B, T, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))  # (B, H, T, d)
        q, k = (_norm(_rotated(one, rotation)) for one in (q, k))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(B, T, C))  # (B, T, C)
        return x + self.down(F.relu(self.up(_norm(x))).square())  # type: ignore[no-any-return]


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Apply RoPE to the pairs (i, i + d / 2) of each head. x: (B, H, T, d)."""
    (cos, sin), (a, b) = rotation, x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class ChatGPT(nn.Module):
    """The model of nanochat. It takes ids and targets (B, T), and returns the mean cross entropy."""

    def __init__(self, vocab: int, width: int, heads: int, layers: int, context: int) -> None:
        super().__init__()
        self.tokens, self.output = nn.Embedding(vocab, width), nn.Linear(width, vocab, bias=False)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        frequencies = _ROPE_BASE ** (-torch.arange(0, width // heads, 2) / (width // heads))
        angles = torch.outer(torch.arange(context), frequencies)  # (T, d / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        nn.init.normal_(self.tokens.weight, std=1.0)
        for name, weight in self.named_parameters():
            rows, columns = weight.shape
            if name.endswith(("out.weight", "down.weight", "output.weight")):
                nn.init.zeros_(weight)
            elif name.startswith("blocks"):
                nn.init.normal_(weight, std=min(1.0, math.sqrt(rows / columns)) / math.sqrt(columns))

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = _norm(self.tokens(ids))  # (B, T, C)
        rotation = self.get_buffer("cos")[: ids.shape[1]], self.get_buffer("sin")[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, rotation)
        logits = _LIMIT * torch.tanh(self.output(_norm(x)) / _LIMIT)  # (B, T, vocab)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def optimizers_of(model: ChatGPT) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers, and AdamW for embedding and output."""
    scale = math.sqrt(_REFERENCE_WIDTH / model.tokens.embedding_dim)
    groups = [
        {"params": [model.output.weight], "lr": OUTPUT_LR * scale},
        {"params": [model.tokens.weight], "lr": EMBEDDING_LR * scale},
    ]
    muon = torch.optim.Muon(model.blocks.parameters(), lr=MUON_LR, weight_decay=0.0, momentum=MOMENTUM)
    return [muon, torch.optim.AdamW(groups, betas=BETAS, eps=EPS, weight_decay=0.0, fused=True)]


def rate_factor(step: int, steps: int) -> float:
    """Return the factor of all learning rates in a step, counted from 0."""
    fall = round(FALL * steps)
    return min(1.0, (steps - step) / max(fall, 1))


def momentum(step: int) -> float:
    """Return the momentum of Muon in a step, counted from 0."""
    done = min(step / MOMENTUM_STEPS, 1.0)
    return (1 - done) * LOW_MOMENTUM + done * MOMENTUM

"""Train models by the recipes of nanoGPT and nanochat in PyTorch, for the rows "recipe" of `make sweep`.

A model has the width, the heads and the number of layers of toynn's model. The feed-forward part of a layer has two
matrices with 4 * width rows or columns. In toynn's model, this part has three matrices with 8/3 * width rows or
columns, so the number of weights is the same. The models read the same windows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import torch_chat, torch_gpt
from toynn.data import PackedTokens
from toynn.data.windows import WindowBatcher

SetRates: TypeAlias = Callable[[int, int], None]  # arguments: the step, counted from 0, and the number of steps
_EVALUATED = 32  # windows of the validation split that are evaluated together


@dataclass(frozen=True)
class Shape:
    """The sizes of a model. context: number of tokens of a window."""

    width: int
    heads: int
    layers: int
    context: int


@dataclass(frozen=True)
class _Recipe:
    """A model with its optimizers. set_rates: sets the learning rates of a step."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    set_rates: SetRates
    clip: float


def _nanogpt(vocab: int, shape: Shape) -> _Recipe:
    model = torch_gpt.GPT(vocab, shape.width, shape.heads, shape.layers, shape.context)
    optimizer = torch_gpt.optimizer_of(model)

    def set_rates(step: int, steps: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = torch_gpt.learning_rate(step, steps)

    return _Recipe(model, [optimizer], set_rates, torch_gpt.CLIP)


def _nanochat(vocab: int, shape: Shape) -> _Recipe:
    model = torch_chat.ChatGPT(vocab, shape.width, shape.heads, shape.layers, shape.context)
    optimizers = torch_chat.optimizers_of(model)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    highest = [float(group["lr"]) for group in groups]

    def set_rates(step: int, steps: int) -> None:
        for group, lr in zip(groups, highest, strict=True):
            group["lr"] = lr * torch_chat.rate_factor(step, steps)
            if "momentum" in group:
                group["momentum"] = torch_chat.momentum(step)

    return _Recipe(model, optimizers, set_rates, torch_chat.CLIP)


_RECIPES: dict[str, Callable[[int, Shape], _Recipe]] = {"nanogpt": _nanogpt, "nanochat": _nanochat}


def trained(recipe: str, data: Path, shape: Shape, steps: int, batch: int) -> tuple[float, float]:
    """Train on one thread. Return the validation loss after the training, and the training loss of the last step.

    recipe: "nanogpt" or "nanochat". batch: windows of a step. Losses are in nats per token.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = PackedTokens.open(data, "train")
    windows, one = WindowBatcher(split.tokens, shape.context, 0), _RECIPES[recipe](split.meta.vocab_size, shape)
    loss = torch.zeros(())
    for step in range(steps):
        ids, targets = windows.batch(step * batch, batch)
        one.set_rates(step, steps)
        for optimizer in one.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = one.model(_rows(ids, shape.context), _rows(targets, shape.context))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(one.model.parameters(), one.clip)
        for optimizer in one.optimizers:
            optimizer.step()
    return validation_loss(one.model, data, shape.context, _EVALUATED), float(loss.detach())


def _rows(tokens: np.ndarray, context: int) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64)).view(-1, context)


def validation_loss(model: nn.Module, data: Path, context: int, together: int) -> float:
    """Return the mean loss of all whole windows of the validation split.

    context: number of tokens of a window. together: number of windows that are evaluated together.
    """
    tokens = np.asarray(PackedTokens.open(data, "validation").tokens)
    n = (len(tokens) - 1) // context * context
    ids, targets = (_rows(tokens[first : first + n], context) for first in (0, 1))
    total = 0.0
    with torch.no_grad():
        for some, wanted in zip(torch.split(ids, together), torch.split(targets, together), strict=True):
            total += float(model(some, wanted)) * len(some)
    return total / len(ids)

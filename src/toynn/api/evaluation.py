"""How well a model predicts a text: figures for the whole text, the score of a token, and the losses of windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toynn.initialised import Initialised
from toynn.llm.engine import LlamaDecoder


@dataclass(frozen=True, repr=False)
class Evaluation(Initialised):
    """How well a model predicts a text.

    tokens: number of predicted tokens, each from those before it. text_bytes: length of the text in UTF-8.
    nats: sum of -log p over the tokens.
    """

    tokens: int
    text_bytes: int
    nats: float

    @property
    def loss(self) -> float:
        """Mean of -log p over the tokens, in nats."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.text_bytes

    def __repr__(self) -> str:
        return (
            f"Evaluation(loss={self.loss:.4f}, perplexity={self.perplexity:.5g}, "
            f"bits_per_byte={self.bits_per_byte:.4f}, tokens={self.tokens}, text_bytes={self.text_bytes})"
        )


class TokenScore(NamedTuple):
    """A token of a text, and the natural logarithm of its probability given the tokens before it."""

    token: int
    text: str
    log_prob: float


def window_losses(decoder: LlamaDecoder, ids: list[int], window: int, stride: int) -> list[npt.NDArray[np.float32]]:
    """Return the losses that count in each window, of every token of `ids` but the first.

    A window reads `window` tokens and predicts the token after each. It begins `stride` tokens after the one before it,
    whose predictions are not counted again.
    """
    losses, counted = [], 0
    for start in range(0, len(ids), stride):
        of_window = decoder.score(ids[start : start + window + 1])
        losses.append(of_window[counted - start :])
        counted = start + of_window.size
        if counted == len(ids) - 1:
            break
    return losses

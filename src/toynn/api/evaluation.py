"""Measure how well a model predicts a text: the result for the whole text, for a token, and for a window of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toynn.arguments import integer
from toynn.initialised import Initialised
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes


@dataclass(frozen=True, repr=False)
class Evaluation(Initialised):
    """The result of `TextModel.evaluate`: how well a model predicts a text.

    tokens: number of predicted tokens.
    text_bytes: size of the text in UTF-8, in bytes.
    nats: sum of -log p over the predicted tokens, where p is the probability that the model gives to the token.
    documents: number of documents in the text.
    """

    tokens: int
    text_bytes: int
    nats: float
    documents: int = 1

    @property
    def loss(self) -> float:
        """Mean of -log p over the predicted tokens, in nats per token."""
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
    """A token of a text, with the natural logarithm of the probability that the model gives to it."""

    token: int
    text: str
    log_prob: float


def top_log_probs(logits: npt.ArrayLike, k: int) -> list[tuple[int, float]]:
    """Return the k most likely token ids with the natural logarithms of their probabilities, computed in float64.

    logits: (vocab,). Tokens of the same probability are ordered by id.

    Raises TinyNNValueError or TinyNNTypeError for a k that is not from 1 to vocab.
    """
    values = np.asarray(logits, dtype=np.float64)
    k = integer("top_k", k, 1, values.size)
    shifted = values - values.max()
    log_probs = shifted - np.log(np.exp(shifted).sum())
    best = np.argsort(-log_probs, kind="stable")[:k]
    return [(int(token), float(log_probs[token])) for token in best]


def window_losses(
    decoder: LlamaDecoder,
    sequences: Sequence[Sequence[int] | npt.NDArray[np.int32]],
    window: int,
    stride: int,
    processes: Processes | None = None,
) -> list[list[npt.NDArray[np.float32]]]:
    """Return the loss of every token except the first of each sequence, in nats, as one array for each window.

    The model reads a window of `window` tokens and predicts the token after each of them. Each window begins `stride`
    tokens after the window before. If two windows predict the same token, only the loss from the earlier window is
    returned.

    processes: the processes that divide the windows among themselves. All of them call this function. None: this
        process computes all windows.
    """
    windows = [(ids, *place) for ids in sequences for place in _places(len(ids), window, stride)]

    def losses(place: tuple[Sequence[int] | npt.NDArray[np.int32], int, int]) -> npt.NDArray[np.float32]:
        ids, start, counted = place
        return decoder.score(ids[start : start + window + 1])[counted - start :]

    found = iter(in_turn(processes, windows, losses))
    return [[next(found) for _ in _places(len(ids), window, stride)] for ids in sequences]


def _places(n: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Divide n tokens into windows. Return, for each window, the position of its first token, and the number of tokens
    that all earlier windows together predict.
    """
    places, counted = [], 0
    for start in range(0, n, stride):
        places.append((start, counted))
        counted = min(start + window, n - 1)
        if counted == n - 1:
            break
    return places

"""Choose tokens from logits, greedily or by sampling with the usual filters, and continue a sequence of tokens."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer, kind_of, not_negative, real
from toynn.errors import SessionError, TinyNNError, TinyNNTypeError, TinyNNValueError
from toynn.llm.engine import LlamaDecoder
from toynn.tinynn.arrays import array_of
from toynn.tinynn.memory import memory_for

_BYTES_OF_LOGIT = 64  # float64 logits, their negatives and probabilities, the order, and what sorting needs
_FEW_TOKENS = 1 << 20  # a collection with this many tokens is read in a moment, however small the vocabulary


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled. The filters apply in this order, to the probabilities after the temperature.

    temperature: divides the logits; 0 takes the most likely token (the first of equals) without sampling.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: of those, keep the fewest whose probabilities add up to top_p or more; 1 keeps all.
    min_p: of those, drop tokens less likely than min_p times the most likely one; 0 drops none.
    seed: random seed. The same seed and logits give the same tokens where numpy's exp gives the same bits.

    Raises TinyNNTypeError or TinyNNValueError naming the field.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", not_negative("temperature", self.temperature))
        object.__setattr__(self, "top_k", integer("top_k", self.top_k, 0))
        object.__setattr__(self, "top_p", real("top_p", self.top_p, lambda x: 0 < x <= 1, "above 0 and at most 1"))
        object.__setattr__(self, "min_p", real("min_p", self.min_p, lambda x: 0 <= x <= 1, "from 0 to 1"))
        object.__setattr__(self, "seed", integer("seed", self.seed, 0, 2**63 - 1))

    @classmethod
    def greedy(cls) -> Sampling:
        """Return the sampling that always takes the most likely token."""
        return cls(temperature=0.0)


def choices(logits: npt.ArrayLike, sampling: Sampling) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the tokens that can be sampled, the most likely first (of equals the lower id), and their probabilities.

    logits: (vocab,), without NaN, the largest of them finite. Raises TinyNNValueError, TinyNNTypeError.
    """
    _want_sampling(sampling)
    x = array_of("logits", logits, INT31_MAX, deepest=1)
    if x.dtype.kind not in "fiu":
        raise TinyNNTypeError(f"logits must be real numbers, got dtype {x.dtype}")
    with memory_for("logits", _BYTES_OF_LOGIT * x.size, f"the order of {x.size} tokens"):
        return _choices(x, sampling)


def _choices(x: npt.NDArray[Any], sampling: Sampling) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    x = x.astype(np.float64)
    if x.ndim != 1 or x.size == 0 or np.isnan(x).any() or not np.isfinite(x.max()):
        raise TinyNNValueError(
            "logits must be a flat array without NaN, the largest value finite: the model may have diverged"
        )
    order = np.argsort(-x, kind="stable")
    if sampling.temperature == 0:
        return order[:1], np.ones(1)
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    with np.errstate(over="ignore"):  # a difference beyond f64 is -inf, and its probability 0
        p = np.exp((x[order] - x[order[0]]) / sampling.temperature)
    p /= p.sum()
    keep = int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1 if sampling.top_p < 1 else p.size
    order, p = order[:keep], p[:keep]
    if sampling.min_p > 0:
        keep = int(np.count_nonzero(p >= sampling.min_p * p[0]))
        order, p = order[:keep], p[:keep]
    return order, p / p.sum()


def generate(
    decoder: LlamaDecoder,
    prompt: npt.ArrayLike,
    sampling: Sampling,
    max_tokens: int,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """Yield tokens that continue a prompt of token ids. For text, use `toynn.load(path).stream(text)`.

    It ends after max_tokens, before a token of `stop`, or when the decoder's cache is full. What the decoder has read
    before stays in front of the prompt. The decoder must not be used for anything else between two tokens.

    Raises SessionError if the decoder was used meanwhile; TinyNNValueError for a prompt that is empty, has an id
    outside the vocabulary, or is longer than the free part of the cache; TinyNNTypeError for an argument of the wrong
    type. All of them are raised when the first token is requested.
    """
    if not isinstance(decoder, LlamaDecoder):
        raise TinyNNTypeError(f"decoder must be a LlamaDecoder, got {type(decoder).__name__}")
    _want_sampling(sampling)
    ends = _end_tokens(stop, decoder.cfg.vocab)
    max_tokens = integer("max_tokens", max_tokens, 0)
    rng = np.random.Generator(np.random.PCG64(sampling.seed))
    logits = decoder.feed(prompt)
    for made in range(max_tokens):
        tokens, p = choices(logits, sampling)
        token = int(tokens[0])
        if tokens.size > 1:
            token = int(tokens[min(int(np.searchsorted(np.cumsum(p), rng.random(), side="right")), tokens.size - 1)])
        if token in ends:
            return
        turns = decoder.turns
        yield token
        if made + 1 == max_tokens:
            return
        if decoder.turns != turns:
            raise SessionError("the decoder has read something else since the last token, so this text cannot continue")
        if decoder.n_past == decoder.n_ctx:
            return
        logits = decoder.feed([token])


def _end_tokens(stop: object, vocab: int) -> Container[int]:
    """Return the tokens of `stop`, checked. A range is not copied; other collections have at most a vocabulary."""
    if isinstance(stop, range):
        for token in (stop[0], stop[-1]) if stop else ():
            integer("a token of stop", token, 0)
        return stop
    if not isinstance(stop, Collection):
        raise TinyNNTypeError(f"stop must be a collection of token ids, got {kind_of(stop)}")
    most = max(vocab, _FEW_TOKENS)
    try:
        n = len(stop)
        if n > most:
            raise TinyNNValueError(f"stop must hold at most {most} tokens, got {n}")
        given = list(islice(iter(stop), n))
    except TinyNNError:
        raise
    except Exception as error:
        raise TinyNNTypeError(f"stop must be a collection of token ids: {kind_of(error)}: {error}") from error
    return frozenset(integer("a token of stop", token, 0) for token in given)


def _want_sampling(sampling: object) -> None:
    if not isinstance(sampling, Sampling):
        raise TinyNNTypeError(f"sampling must be a Sampling, got {type(sampling).__name__}")

"""Choose the next token from logits (greedy, or by sampling with filters), and generate a sequence of tokens."""

from __future__ import annotations

from collections.abc import Collection, Container, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, boolean, integer, kind_of, not_negative, real
from toynn.errors import SessionError, TinyNNError, TinyNNTypeError, TinyNNValueError
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.text.exponential import exp
from toynn.tinynn.arrays import array_of, integer_array
from toynn.tinynn.memory import memory_for

# NextToken is not in this list, because only batch_generation uses it
__all__ = ["FinishReason", "Sampling", "TokenStream", "choices", "generate"]

FinishReason: TypeAlias = Literal["end_of_text", "stop_token", "max_tokens", "context_full"]
_BYTES_OF_LOGIT = 64  # bytes of memory for each logit: copies in float64, probabilities, and arrays for sorting
_FEW_TOKENS = 1 << 20  # `stop` may have up to this number of tokens, or up to the size of a larger vocabulary


@dataclass(frozen=True)
class Sampling:
    """The settings for sampling the next token. Temperature, top_k, top_p and min_p are applied in this order.

    temperature: the logits are divided by it. 0: take the most likely token (the lowest id if several are equal).
    top_k: keep the k most likely tokens. 0: keep all.
    top_p: keep the smallest number of the most likely tokens whose probabilities add up to at least top_p. 1: keep all.
    min_p: drop the tokens whose probability is below min_p times the largest probability. 0: drop none.
    seed: random seed. The same seed and logits give the same tokens on every machine.

    Raises TinyNNTypeError or TinyNNValueError, which name the field.
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
        """Return settings that always take the most likely token."""
        return cls(temperature=0.0)


def choices(logits: npt.ArrayLike, sampling: Sampling) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the tokens that can be sampled, and their probabilities, both ordered from the most likely token.

    Tokens with equal probabilities are ordered by id. logits: array (vocab,) without NaN, whose largest value is
    finite. A token with the logit -inf cannot be sampled.

    Raises TinyNNValueError or TinyNNTypeError for wrong logits, or TinyNNMemoryError if there is not enough memory.
    """
    _want_sampling(sampling)
    x = array_of("logits", logits, INT31_MAX, deepest=1)
    if x.dtype.kind not in "fiu":
        raise TinyNNTypeError(f"logits must be real numbers, got dtype {x.dtype}")
    with memory_for("logits", _BYTES_OF_LOGIT * x.size, f"the order of {x.size} tokens"):
        return _choices(x, sampling)


def _choices(x: npt.NDArray[Any], sampling: Sampling) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    x = x.astype(np.float64)
    if x.ndim != 1 or x.size == 0:
        raise TinyNNValueError(f"logits must be a flat array of at least one number, got shape {x.shape}")
    if not np.isfinite(largest := x.max()):  # NaN if one of the logits is NaN
        raise TinyNNValueError(
            f"logits must contain no NaN, and the largest logit must be finite, got {largest} at [{x.argmax()}]; "
            "the model may have diverged"
        )
    if sampling.temperature == 0:
        return np.array([x.argmax()]), np.ones(1)
    order = _most_likely(x, sampling.top_k)
    with np.errstate(over="ignore"):  # a difference out of range becomes -inf, with probability 0
        p = exp((x[order] - x[order[0]]) / sampling.temperature)
    p = _normalized(p)
    keep = int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1 if sampling.top_p < 1 else p.size
    order, p = order[:keep], p[:keep]
    if sampling.min_p > 0:
        keep = int(np.count_nonzero(p >= sampling.min_p * p[0]))
        order, p = order[:keep], p[:keep]
    return order, _normalized(p)


def _normalized(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return p divided by its sum. np.cumsum adds in a defined order; the order and the bits of np.sum may change."""
    total: np.float64 = np.cumsum(p)[-1]
    return p / total


def _most_likely(x: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    """Return the ids of the n largest values except -inf, ordered from the largest value, then by id.

    n = 0: return all ids except the ids of -inf.
    """
    least = -np.inf
    if 0 < n < x.size:
        least = np.partition(x, x.size - n)[x.size - n]
    ids = np.flatnonzero((x >= least) & (x != -np.inf))  # sorting only these ids is faster
    order: npt.NDArray[np.int64] = ids[np.argsort(-x[ids], kind="stable")]
    return order[:n] if n > 0 else order


class TokenStream(Iterator[int]):
    """The result of `generate`: an iterator over generated token ids.

    finish_reason: why generation ended. It is None until the last token was returned, then one of

    - "stop_token": the next token is one of `stop`.
    - "max_tokens": max_tokens tokens were generated.
    - "context_full": the context of the decoder is full.
    """

    finish_reason: FinishReason | None = None
    _tokens: Iterator[int] = iter(())

    def __init__(self, tokens: Iterator[int]) -> None:
        if not isinstance(tokens, Iterator):
            raise TinyNNTypeError(f"tokens must be an iterator over token ids, got {kind_of(tokens)}")
        self._tokens = tokens

    def __next__(self) -> int:
        try:
            return next(self._tokens)
        except StopIteration as end:
            if end.value is not None:
                self.finish_reason = end.value
            raise StopIteration from None


def generate(
    decoder: LlamaDecoder,
    prompt: npt.ArrayLike,
    sampling: Sampling,
    max_tokens: int,
    stop: Collection[int] = (),
    *,
    rolling: bool = False,
    keep: int = 0,
    never: npt.ArrayLike = (),
) -> TokenStream:
    """Return an iterator over the token ids that continue a prompt. For text, use `toynn.load(path).stream(text)`.

    Generation ends after max_tokens tokens, before a token of `stop`, or when the context of the decoder is full; the
    attribute `finish_reason` of the iterator says which. The prompt is added to the tokens that the decoder has read
    before. The decoder must not be used for other tokens until the iterator has ended.

    Args:
        prompt: token ids, at least one.
        stop: the token ids that end generation; they are not returned. A range is not copied.
        rolling: do not end when the context is full. Instead the decoder forgets all tokens, reads the last n_ctx // 2
            of them (at least 1) again from position 0, and continues.
        keep: with rolling, the number of tokens at the start of the prompt that are kept. They become the first of the
            n_ctx // 2 tokens that are read again. If keep is n_ctx // 2 or more, it has no effect.
        never: token ids that are never sampled, for example rows of the vocabulary that are not tokens.

    The arguments are checked when the first token is requested. Raises TinyNNValueError for a prompt that is empty, has
    an id outside the vocabulary, or is too long for the context; TinyNNTypeError for an argument of the wrong type; or
    SessionError if the decoder has read other tokens between two tokens of the iterator.
    """
    return TokenStream(_tokens(decoder, prompt, sampling, max_tokens, stop, rolling, keep, never))


class NextToken:
    """Chooses the next token from logits. stop, never: as for `generate`. vocab: number of tokens.

    Raises the errors of `generate` for the arguments.
    """

    def __init__(self, sampling: Sampling, stop: Collection[int], never: npt.ArrayLike, vocab: int) -> None:
        _want_sampling(sampling)
        self._sampling = sampling
        self._ends = _end_tokens(stop, vocab)
        self._hidden = _checked_never(never, vocab)

    def random_numbers(self) -> np.random.Generator:
        """Return a new generator of the random numbers of one text."""
        return np.random.Generator(np.random.PCG64(self._sampling.seed))

    def choose(self, logits: npt.NDArray[np.float32], rng: np.random.Generator) -> int | None:
        """Return a token, or None for a token of `stop`. The logits of the tokens of `never` become -inf."""
        logits[self._hidden] = -np.inf
        token = _sampled(*choices(logits, self._sampling), rng)
        return None if token in self._ends else token


def _tokens(
    decoder: LlamaDecoder,
    prompt: npt.ArrayLike,
    sampling: Sampling,
    max_tokens: int,
    stop: Collection[int],
    rolling: bool,
    keep: int,
    never: npt.ArrayLike,
) -> Generator[int, None, FinishReason]:
    if not isinstance(decoder, LlamaDecoder):
        raise TinyNNTypeError(f"decoder must be a LlamaDecoder, got {type(decoder).__name__}")
    n_ctx = decoder.n_ctx
    next_token = NextToken(sampling, stop, never, decoder.cfg.vocab)
    max_tokens = integer("max_tokens", max_tokens, 0)
    rolling = boolean("rolling", rolling)
    keep = integer("keep", keep, 0)
    rng = next_token.random_numbers()
    if rolling:
        prompt = integer_array("prompt", prompt, n_ctx)
    logits = decoder.feed(prompt)
    read: list[int] = np.asarray(prompt).tolist() if rolling else []  # the tokens in the decoder's context
    for made in range(max_tokens):
        token = next_token.choose(logits, rng)
        if token is None:
            return "stop_token"
        turns = decoder.turns
        yield token
        if made + 1 == max_tokens:
            break
        if decoder.turns != turns:
            raise SessionError(
                "this text cannot be continued, because the decoder has read other tokens since the last token; "
                "start again, and use another decoder for other texts"
            )
        unread = [token]
        if rolling:
            read.append(token)
        if decoder.n_past == n_ctx:
            if not rolling:
                return "context_full"
            unread = read = _last_half(read, n_ctx, keep)
            decoder.rewind()
        logits = decoder.feed(unread)
    return "max_tokens"


def _sampled(tokens: npt.NDArray[np.int64], p: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """Return a token, chosen at random with these probabilities. A single token needs no random number."""
    if tokens.size == 1:
        return int(tokens[0])
    return int(tokens[min(int(np.searchsorted(np.cumsum(p), rng.random(), side="right")), tokens.size - 1)])


def _last_half(read: list[int], n_ctx: int, keep: int) -> list[int]:
    """Return the first `keep` tokens followed by the last tokens, n_ctx // 2 tokens in total (at least 1)."""
    half = max(n_ctx // 2, 1)
    if keep >= half:
        keep = 0
    return read[:keep] + read[max(len(read) - (half - keep), keep) :]


def _checked_never(never: npt.ArrayLike, vocab: int) -> npt.NDArray[np.int64]:
    given = integer_array("never", never, vocab)
    if given.ndim != 1:
        raise TinyNNValueError(f"the argument 'never' must be a flat array of token ids, got shape {given.shape}")
    if given.size and not (int(given.min()) >= 0 and int(given.max()) < vocab):
        raise TinyNNValueError(
            f"the argument 'never' must contain token ids from 0 to {vocab - 1}, got {given.min()} to {given.max()}"
        )
    ids = np.unique(given).astype(np.int64)
    if ids.size == vocab:
        raise TinyNNValueError(
            f"the argument 'never' contains all {vocab} tokens of the vocabulary; leave out at least one"
        )
    return ids


def _end_tokens(stop: object, vocab: int) -> Container[int]:
    """Check the tokens of `stop` and return them. A range is not copied; the size of other collections is limited."""
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
            raise TinyNNValueError(f"stop must contain at most {most} tokens, got {n}")
        given = list(islice(iter(stop), n))
    except TinyNNError:
        raise
    except Exception as error:
        raise TinyNNTypeError(f"stop must be a collection of token ids: {kind_of(error)}: {error}") from error
    return frozenset(integer("a token of stop", token, 0) for token in given)


def _want_sampling(sampling: object) -> None:
    if not isinstance(sampling, Sampling):
        raise TinyNNTypeError(f"sampling must be a Sampling, got {type(sampling).__name__}")

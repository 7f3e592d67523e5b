"""Continue several prompts at the same time, each with the tokens that it would get alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray, instance_of, integer
from toynn.errors import TinyNNValueError
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.llm.inputs import checked_token_ids
from toynn.text.sampling import FinishReason, NextToken, Sampling
from toynn.tinynn.arrays import int_array

AT_ONCE = 16  # more prompts at once need more memory, and are hardly faster


@dataclass
class ContinuedPrompt:
    """The tokens that continue a prompt.

    finish_reason: why the continuation ended; see `toynn.TokenStream`. None while tokens are generated.
    """

    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class _Running:
    """A prompt whose continuation is being generated. rng: the random numbers of its tokens."""

    result: ContinuedPrompt
    rng: np.random.Generator


def generate_each(
    decoder: LlamaDecoder,
    prompts: Sequence[npt.ArrayLike],
    sampling: Sampling,
    max_tokens: int,
    stop: Collection[int] = (),
    *,
    never: npt.ArrayLike = (),
    at_once: int = AT_ONCE,
) -> list[ContinuedPrompt]:
    """Return the tokens that continue each prompt: the same tokens that `toynn.generate` gives for the prompt alone.

    The next tokens of several prompts are computed at the same time, so that the weights are read once for all of them.
    The decoder forgets the tokens that it has read before.

    prompts: for each prompt its token ids, at least one. at_once: the largest number of prompts that are computed at
        the same time. The number does not change the tokens. The other arguments are those of `toynn.generate`.

    Raises the errors of `toynn.generate`; an error about a prompt names its number, counted from 0.
    """
    instance_of("decoder", decoder, LlamaDecoder)
    next_token = NextToken(sampling, stop, never, decoder.cfg.vocab)
    max_tokens, at_once = integer("max_tokens", max_tokens, 0), integer("at_once", at_once, 1)
    waiting = deque(
        (_checked(f"prompts[{i}]", ids, decoder), _Running(ContinuedPrompt(), next_token.random_numbers()))
        for i, ids in enumerate(prompts)
    )
    results = [one.result for _, one in waiting]
    if not waiting:
        decoder.open_sequences()
        return results
    n_ctx = min(max(ids.size for ids, _ in waiting) + max_tokens, decoder.n_ctx)
    decoder.open_sequences(min(at_once, len(waiting), decoder.most_sequences(n_ctx)), n_ctx)
    try:
        _Batch(decoder, next_token, max_tokens, waiting).run()
    finally:
        decoder.open_sequences()
    return results


class _Batch:
    """The waiting prompts, and the prompts that are being continued, by the number of their sequence in the decoder."""

    def __init__(
        self, decoder: LlamaDecoder, next_token: NextToken, max_tokens: int, waiting: deque[tuple[IntArray, _Running]]
    ) -> None:
        self._decoder, self._next_token, self._max_tokens = decoder, next_token, max_tokens
        self._waiting = waiting
        self._running: dict[int, _Running] = {}

    def run(self) -> None:
        while self._waiting or self._running:
            for place in range(self._decoder.n_sequences):
                while self._waiting and place not in self._running:
                    self._start(place)
            if self._running:
                self._step()

    def _start(self, place: int) -> None:
        """Read the next prompt, and choose its first token."""
        ids, one = self._waiting.popleft()
        self._decoder.rewind(0, place)
        if self._goes_on(one, self._decoder.feed(ids, place), place):
            self._running[place] = one

    def _step(self) -> None:
        """Read the last token of each text, and choose its next token."""
        places = sorted(self._running)
        rows = self._decoder.feed_each([self._running[place].result.tokens[-1] for place in places], places)
        for place, logits in zip(places, rows, strict=True):
            if not self._goes_on(self._running[place], logits, place):
                del self._running[place]

    def _goes_on(self, one: _Running, logits: FloatArray, place: int) -> bool:
        """Choose the next token. Return False, and set the finish reason, if the text ends."""
        result = one.result
        token = self._next_token.choose(logits, one.rng) if self._max_tokens > 0 else None
        if token is not None:
            result.tokens.append(token)
        if len(result.tokens) == self._max_tokens:
            result.finish_reason = "max_tokens"
        elif token is None:
            result.finish_reason = "stop_token"
        elif self._decoder.n_past_of(place) == self._decoder.n_ctx:
            result.finish_reason = "context_full"
        return result.finish_reason is None


def _checked(name: str, prompt: npt.ArrayLike, decoder: LlamaDecoder) -> IntArray:
    ids = int_array(name, prompt, decoder.n_ctx)
    if ids.ndim != 1 or not 1 <= ids.size <= decoder.n_ctx:
        raise TinyNNValueError(
            f"{name} must be a one-dimensional sequence of at least 1 and at most n_ctx = {decoder.n_ctx} token "
            f"ids, got shape {ids.shape}"
        )
    return checked_token_ids(ids, ids.size, decoder.cfg.vocab, name=name)

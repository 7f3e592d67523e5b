"""Turn preference pairs into tokens: each pair becomes two sequences with the same prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from toynn.data.meta import PREFERENCE
from toynn.data.samples.encoding import Encoded, Encoder
from toynn.data.samples.rendering import Place, Refused
from toynn.data.samples.settings import SampleSettings
from toynn.data.sources import DataSource, Pair, Sample
from toynn.errors import TinyNNMemoryError, TinyNNValueError
from toynn.wording import spelled


@dataclass(frozen=True)
class EncodedPair:
    """A pair as tokens. dropped: why the pair is left out, or "". truncated: whether a sequence was too long."""

    chosen: Encoded
    rejected: Encoded
    truncated: bool = False
    dropped: str = ""

    @property
    def place(self) -> Place:
        return self.chosen.place

    @property
    def parts(self) -> tuple[Encoded, Encoded]:
        return self.chosen, self.rejected

    @property
    def longest(self) -> int:
        """Number of tokens of the longer sequence."""
        return max(one.ids.size for one in self.parts)


def are_pairs(sources: Iterable[DataSource], settings: SampleSettings) -> bool:
    """Return whether the sources contain preference pairs.

    Raises TinyNNValueError if only some sources contain pairs, or if settings.loss is not for pairs.
    """
    of_pairs = [one.form == PREFERENCE for one in sources]
    if not any(of_pairs):
        return False
    if not all(of_pairs):
        raise TinyNNValueError(
            "texts: some files contain preference pairs and others do not; prepare them in separate data folders"
        )
    if settings.loss != "assistant":
        raise TinyNNValueError(
            f"{spelled('loss', '--loss')} must be assistant for preference pairs, got {settings.loss}"
        )
    return True


def sequences_of(samples: Iterable[tuple[Place, Sample]]) -> Iterator[tuple[Place, Sample]]:
    """Yield the chosen and then the rejected continuation of each pair. Other samples are yielded unchanged."""
    for place, sample in samples:
        if isinstance(sample, Pair):
            yield place, sample.chosen
            yield place, sample.rejected
        else:
            yield place, sample


def encoded_pairs(
    sequences: Iterable[Encoded | Refused], max_tokens: int | None, truncate: str, encoder: Encoder
) -> Iterator[EncodedPair | Refused]:
    """Yield the pairs of encoded sequences, or the error of the first refused sequence of a pair.

    max_tokens: the largest length of a sequence, or None. truncate: "left" drops the same number of tokens at the start
    of both prompts; "turns" drops the oldest turns of both prompts; "drop" leaves out each pair in which a sequence is
    too long. encoder: encodes conversations with fewer turns.
    """
    both = iter(sequences)
    for chosen, rejected in zip(both, both, strict=True):
        if isinstance(chosen, Refused):
            yield chosen
        elif isinstance(rejected, Refused):
            yield rejected
        else:
            yield _checked(EncodedPair(chosen, rejected), max_tokens, truncate, encoder)


def _checked(pair: EncodedPair, max_tokens: int | None, truncate: str, encoder: Encoder) -> EncodedPair | Refused:
    """Return the pair with at most max_tokens tokens in each sequence, and say why it is left out if it is not used."""
    if not all(one.counted[1:].any() for one in pair.parts):  # the first token of a sequence is never predicted
        return replace(pair, dropped="no token counts")
    if np.array_equal(pair.chosen.ids, pair.rejected.ids):
        return replace(pair, dropped="equal")
    if max_tokens is None or pair.longest <= max_tokens:
        return pair
    if truncate == "left":
        return _without_first_tokens(pair, pair.longest - max_tokens)
    if truncate == "turns":
        return _with_fewer_turns(pair, max_tokens, encoder)
    return replace(pair, dropped="too long")


def _without_first_tokens(pair: EncodedPair, n: int) -> EncodedPair:
    prompt = min(int(np.argmax(one.counted)) for one in pair.parts)
    if n >= prompt:  # at least one token of the prompt must remain
        return replace(pair, dropped="too long")
    chosen, rejected = (replace(one, ids=one.ids[n:], counted=one.counted[n:]) for one in pair.parts)
    return EncodedPair(chosen, rejected, truncated=True)


def _with_fewer_turns(pair: EncodedPair, max_tokens: int, encoder: Encoder) -> EncodedPair | Refused:
    try:
        while pair.longest > max_tokens:
            chosen, rejected = map(encoder.without_oldest_turn, pair.parts)
            if chosen is None or rejected is None:
                return replace(pair, dropped="too long")
            pair = EncodedPair(chosen, rejected, truncated=True)
    except (TinyNNValueError, TinyNNMemoryError) as error:  # the chat template refuses the shorter conversation
        return Refused(pair.place, error)
    return pair

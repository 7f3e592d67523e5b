"""Turn preference pairs into tokens: each pair becomes two sequences with the same prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from toynn.data.meta import PREFERENCE
from toynn.data.samples.encoding import Encoded
from toynn.data.samples.rendering import Place, Refused
from toynn.data.samples.settings import SampleSettings
from toynn.data.sources import DataSource, Pair, Sample
from toynn.errors import TinyNNValueError
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


def are_pairs(sources: Iterable[DataSource], settings: SampleSettings) -> bool:
    """Return whether the sources contain preference pairs.

    Raises TinyNNValueError if only some sources contain pairs, or if a setting is not for pairs.
    """
    of_pairs = [one.form == PREFERENCE for one in sources]
    if not any(of_pairs):
        return False
    if not all(of_pairs):
        raise TinyNNValueError(
            "texts: some files contain preference pairs and others do not; prepare them in separate data folders"
        )
    for name, value, usual in (
        ("loss", settings.loss, ("assistant",)),
        ("truncate", settings.truncate, ("left", "drop")),
    ):
        if value not in usual:
            raise TinyNNValueError(
                f"{spelled(name, f'--{name}')} must be {' or '.join(usual)} for preference pairs, got {value}"
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
    sequences: Iterable[Encoded | Refused], max_tokens: int | None, truncate: str
) -> Iterator[EncodedPair | Refused]:
    """Yield the pairs of encoded sequences, or the error of the first refused sequence of a pair.

    max_tokens: the largest length of a sequence, or None. truncate: "left" drops the same number of tokens at the start
    of both prompts; "drop" leaves out each pair in which a sequence is too long.
    """
    both = iter(sequences)
    for chosen, rejected in zip(both, both, strict=True):
        if isinstance(chosen, Refused):
            yield chosen
        elif isinstance(rejected, Refused):
            yield rejected
        else:
            yield _shortened(EncodedPair(chosen, rejected), max_tokens, truncate)


def _shortened(pair: EncodedPair, max_tokens: int | None, truncate: str) -> EncodedPair:
    """Return the pair with at most max_tokens tokens in each sequence, and say why it is left out if it is not used."""
    parts = (pair.chosen, pair.rejected)
    if not all(one.counted[1:].any() for one in parts):  # the first token of a sequence is never predicted
        return replace(pair, dropped="no token counts")
    if np.array_equal(parts[0].ids, parts[1].ids):
        return replace(pair, dropped="equal")
    too_many = 0 if max_tokens is None else max(one.ids.size for one in parts) - max_tokens
    if too_many <= 0:
        return pair
    prompt = min(int(np.argmax(one.counted)) for one in parts)
    if truncate == "drop" or too_many >= prompt:  # at least one token of the prompt must remain
        return replace(pair, dropped="too long")
    chosen, rejected = (replace(one, ids=one.ids[too_many:], counted=one.counted[too_many:]) for one in parts)
    return EncodedPair(chosen, rejected, truncated=True)

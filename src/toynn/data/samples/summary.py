"""Count the samples of a source that are written, shortened or left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from toynn.data.meta import SourceSamples
from toynn.data.samples.encoding import Encoded
from toynn.data.samples.pairs import EncodedPair
from toynn.data.sources import DataSource

_NAMED = 3  # largest number of places that a note names


@dataclass
class Summary:
    """The counts of one source. `SourceSamples` describes them. dropped: for each reason, the number of samples.

    first: for each reason, the places of the first samples that were left out.
    """

    samples: int = 0
    tokens: int = 0
    counted: int = 0
    longest: int = 0
    truncated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    _length: int = 0  # number of tokens of the current sample so far

    def wrote(self, tokens: int, counted: int, *, begins: bool) -> None:
        """Count a sample, or a part of one, that was written."""
        self._length = tokens if begins else self._length + tokens
        self.samples += begins
        self.tokens += tokens
        self.counted += counted
        self.longest = max(self.longest, self._length)

    def wrote_pair(self, pair: EncodedPair) -> None:
        """Count a pair that was written, as one sample."""
        for one in (pair.chosen, pair.rejected):
            self.tokens += one.ids.size
            self.counted += int(one.counted.sum())
            self.longest = max(self.longest, one.ids.size)
        self.samples += 1

    def note(self, one: Encoded | EncodedPair, source: DataSource) -> None:
        """Count a sample that was shortened or is left out."""
        if one.dropped:
            self._drop(one.dropped, source.place(one.place.line))
        else:
            self.truncated += one.truncated

    def _drop(self, reason: str, place: str) -> None:
        """Count a sample that is left out."""
        self.dropped[reason] += 1
        if self.dropped[reason] <= _NAMED:
            self.first.setdefault(reason, []).append(place)

    def notes(self) -> list[str]:
        """Return a sentence for each reason for which samples were left out."""
        said = {
            "no token counts": "because none of their tokens counts for the loss",
            "too long": "because they have too many tokens",
            "equal": "because chosen and rejected have the same tokens",
        }
        return [
            f"{n} {'sample was' if n == 1 else 'samples were'} left out {said[reason]}: "
            f"{'; '.join(self.first[reason])}{'; ...' if n > _NAMED else ''}"
            for reason, n in self.dropped.items()
        ]

    def of_source(self, form: str, weight: float, skipped: int) -> SourceSamples:
        """Return the counts for meta.json."""
        return SourceSamples(
            format=form,
            weight=weight,
            samples=self.samples,
            tokens=self.tokens,
            counted=self.counted,
            longest=self.longest,
            truncated=self.truncated,
            dropped=self.dropped.total(),
            skipped=skipped,
        )

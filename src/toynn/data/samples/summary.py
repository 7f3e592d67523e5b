"""Count the samples of a source that are written, shortened or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from toynn.data.meta import SourceSamples
from toynn.data.samples.encoding import Encoded
from toynn.data.samples.pairs import EncodedPair
from toynn.data.sources import DataSource
from toynn.wording import spelled

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
        """Count a sample, or a part of a sample, that was written."""
        self._length = tokens if begins else self._length + tokens
        self.samples += begins
        self.tokens += tokens
        self.counted += counted
        self.longest = max(self.longest, self._length)

    def wrote_pair(self, pair: EncodedPair) -> None:
        """Count a pair that was written, as one sample."""
        for one in pair.parts:
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
        every = "all " if self.samples == 0 and len(self.dropped) == 1 else ""
        return [
            f"{every if n > 1 else ''}{left_out(reason, n)}: {'; '.join(self.first[reason])}"
            f"{'; ...' if n > _NAMED else ''}"
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


def left_out(reason: str, n: int) -> str:
    """Return a part of a sentence that says why n samples were left out. reason: a key of `Summary.dropped`."""
    one = n == 1
    why = {
        "no token counts": f"none of {'its' if one else 'their'} tokens counts for the loss",
        "too long": f"{'it has' if one else 'they have'} too many tokens",
        "equal": "chosen and rejected have the same tokens",
    }
    return f"{n} {'sample was' if one else 'samples were'} left out because {why[reason]}"


def nothing_left(split: str, summaries: Iterable[Summary]) -> str:
    """Return the error for a split without samples: why the samples were left out, and what would help."""
    dropped = sum((one.dropped for one in summaries), Counter[str]())
    everything = spelled("loss='all'", "--loss all")
    remedies = {
        "no token counts": f"add samples with answers, or use {everything}",
        "too long": f"increase {spelled('max_tokens', '--max-tokens')}",
        "equal": "add pairs whose continuations differ",
    }
    if not dropped:
        return f"texts: no sample is left for the {split} split; add samples"
    ((main, _),) = dropped.most_common(1)
    why = ", ".join(left_out(reason, n) for reason, n in dropped.most_common())
    return f"texts: no sample is left for the {split} split: {why}; {remedies[main]}"

"""Divide samples between training and validation, and repeat them as the weights of their sources say.

The division and the repetition depend only on the seed, the number of the source and the number of the sample in it, so
no list of samples is kept in memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from toynn.data.splits import TRAIN, VALIDATION


@dataclass
class Division:
    """Says for each sample to which split it belongs.

    A sample is held out for validation if its hash is below the share. If there are several samples, the sample with
    the lowest hash is always held out, and the sample with the highest hash is never held out. So neither split is
    empty.
    """

    seed: int
    share: float
    lowest: int = 1 << 64
    highest: int = -1
    samples: int = 0

    def see(self, source: int, sample: int) -> None:
        """Count a sample. Call this method for every sample before `split_of`."""
        place = self._hash(source, sample, "split")
        self.lowest, self.highest = min(self.lowest, place), max(self.highest, place)
        self.samples += 1

    def split_of(self, source: int, sample: int) -> str:
        """Return the name of the split of a sample."""
        place = self._hash(source, sample, "split")
        if self.share == 0 or place == self.highest:
            return TRAIN
        return VALIDATION if place == self.lowest or place < self.share * 2.0**64 else TRAIN

    def copies(self, weights: Sequence[float], source: int) -> int:
        """Return how often a source must be read, so that its samples are used as often as its weight says."""
        return max(math.ceil(weights[source]), 1)

    def use(self, weights: Sequence[float], source: int, copy: int, sample: int) -> str | None:
        """Return the split for which a sample is used, or None. copy: how often its source was read completely before.

        With the weight 2.5, every training sample is used in the first two readings of its source, and about half of
        the samples in the third reading. A sample for validation is used once.
        """
        if self.split_of(source, sample) == VALIDATION:
            return VALIDATION if copy == 0 else None
        rest = weights[source] - copy
        return TRAIN if rest >= 1 or self._hash(source, sample, "weight") < rest * 2.0**64 else None

    def _hash(self, source: int, sample: int, purpose: str) -> int:
        key = f"{purpose}:{self.seed}:{source}:{sample}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")

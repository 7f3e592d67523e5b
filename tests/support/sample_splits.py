"""Splits of samples whose lengths a test chooses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.data import DataMeta, PackedTokens, Split

LENGTHS = [5, 1, 9, 2, 17, 3, 0, 8, 8, 30, 4, 6, 9, 1]
VOCAB = 5000


def split(lengths: list[int], counted: npt.NDArray[np.uint8] | None = None) -> PackedTokens:
    """Return a split of samples of these lengths, whose tokens are 1, 2, 3, ..."""
    n = sum(lengths)
    splits = {name: Split(f"{name}.bin", n, 0, "0" * 64) for name in ("train", "validation")}
    meta = DataMeta("uint16", VOCAB, splits, None, None, None, [])
    starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    return PackedTokens(np.arange(1, n + 1, dtype=np.uint16), meta, "train", counted, starts)

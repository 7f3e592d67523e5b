"""Read samples of a data folder as text, to show them to a user."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toynn.data import DataFolder, PackedTokens
from toynn.errors import TinyNNValueError
from toynn.text.tokenizer_json import load_tokenizer, text_of

_LONGEST = 1 << 16  # largest number of tokens that are shown of a sample
_PART = 1 << 22  # number of tokens that are searched at once for the end of a document


@dataclass(frozen=True)
class ShownSample:
    """A sample. ids: its tokens. counted: whether each token counts for the loss.

    parts: the text of the sample in parts, each with True if the tokens of the part count.
    is_cut: whether only the first tokens of the sample are given.
    of_pair: for a sequence of a preference pair, its place, for example "pair 0, chosen"; otherwise "".
    """

    number: int
    ids: list[int]
    counted: list[bool]
    parts: list[tuple[str, bool]]
    is_cut: bool
    of_pair: str = ""


def shown_samples(folder: Path, split: str, first: int, n: int) -> Iterator[ShownSample]:
    """Yield n samples of a split, from sample number `first` on. In data of plain text, documents are samples.

    Raises TinyNNValueError if the data has no tokenizer, or if there is no sample with the number `first`. Also raises
    the errors of `DataFolder.open`.
    """
    data = DataFolder.open(folder)
    packed: PackedTokens = getattr(data, split)
    if data.tokenizer is None:
        raise TinyNNValueError(
            f"data: {folder} has no tokenizer, so its tokens have no text; use data with a tokenizer"
        )
    tokenizer = load_tokenizer(data.tokenizer, str(folder))
    found = False
    for number, start, end in itertools.islice(_samples(packed), first, first + n):
        found = True
        stop = min(end, start + _LONGEST)
        ids = [int(token) for token in packed.tokens[start:stop]]
        counted = [True] * len(ids) if packed.counted is None else [bool(one) for one in packed.counted[start:stop]]
        groups = itertools.groupby(zip(ids, counted, strict=True), key=lambda pair: pair[1])
        parts = [(text_of(tokenizer, [token for token, _ in group]), counts) for counts, group in groups]
        of_pair = f"pair {number // 2}, {('chosen', 'rejected')[number % 2]}" if packed.meta.pairs else ""
        yield ShownSample(number, ids, counted, parts, stop < end, of_pair)
    if not found:
        count = sum(1 for _ in _samples(packed))
        raise TinyNNValueError(
            f"--from {first} is too large: the {split} split of {folder} has only {count} samples, numbered from 0"
        )


def _samples(packed: PackedTokens) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each sample or document, the position of its first token, and the position after its last
    token.
    """
    starts = _document_starts(packed) if packed.starts is None else (int(start) for start in packed.starts)
    before = next(starts, None)
    for number in itertools.count():
        if before is None:
            return
        after = next(starts, None)
        yield number, before, len(packed) if after is None else after
        before = after


def _document_starts(packed: PackedTokens) -> Iterator[int]:
    """Yield the position of the first token of each document: position 0, and each position after an end token."""
    if len(packed) == 0:
        return
    yield 0
    for at in range(0, len(packed), _PART):
        for end in np.flatnonzero(packed.tokens[at : at + _PART] == packed.meta.eos_id):
            if (start := at + int(end) + 1) < len(packed):
                yield start

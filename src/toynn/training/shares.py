"""How several processes divide a step: the windows of each process, and its slice of each weight.

The squares of the gradient of a weight are added in 64 parts (csrc/kernels/grad_norm.c). A slice of a weight consists
of whole parts, so the gradient norm has the same bits as in a single process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toynn.errors import ConfigurationError
from toynn.llm.window_sums import largest_nodes
from toynn.parallel.cost_model import bucket_limit
from toynn.training.config import StepArgs

PARTS = 64


@dataclass(frozen=True)
class WindowShare:
    """The windows of a step that one process computes: batch * batches windows, from the window `first` on.

    windows: number of windows of the whole step.
    """

    windows: int
    first: int
    batch: int
    batches: int

    def of_sequences(self, n: int) -> WindowShare:
        """Return this share counted in sequences, for a step whose windows consist of n sequences each."""
        return WindowShare(n * self.windows, n * self.first, n * self.batch, self.batches)

    @property
    def nodes(self) -> list[tuple[int, int]]:
        """The windows of the process as nodes (start, level) of a binary tree; see `toynn.llm.window_sums`."""
        return largest_nodes(self.first, self.batch * self.batches)


def share_of(train: StepArgs, rank: int, n: int) -> WindowShare:
    """Return the share of process `rank` of n processes. Its batches have at most train.batch windows.

    Raises ConfigurationError if n does not divide the number of windows.
    """
    windows = train.batch * train.accumulate
    if windows % n:
        possible = [str(i) for i in range(1, windows + 1) if windows % i == 0]
        raise ConfigurationError(
            f"{n} processes cannot divide the {windows} windows of a step (train.batch = {train.batch}, "
            f"train.accumulate = {train.accumulate}) equally; start {', '.join(possible[:-1])} or {possible[-1]} "
            "processes, or change train.batch"
            if len(possible) > 1
            else f"{n} processes cannot divide the one window of a step; set train.batch to a multiple of {n}"
        )
    own = windows // n
    batch = next(size for size in range(min(train.batch, own), 0, -1) if own % size == 0)
    return WindowShare(windows, rank * own, batch, own // batch)


@dataclass(frozen=True)
class Piece:
    """The elements begin to end - 1 of a weight. A piece consists of whole parts of the 64 parts of the weight.

    parts: the number of the first part of the piece, and the number of its last part plus 1.
    """

    name: str
    begin: int
    end: int
    parts: tuple[int, int]

    @property
    def size(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Bucket:
    """Weights whose gradients are exchanged together. slices: for each process, the pieces that it updates."""

    sizes: Mapping[str, int]
    slices: tuple[tuple[Piece, ...], ...]

    def counts(self) -> list[int]:
        """Return the number of elements in the slice of each process."""
        return [sum(piece.size for piece in pieces) for pieces in self.slices]


def buckets_of(sizes: Mapping[str, int], n: int, limit: int | None = None) -> list[Bucket]:
    """Divide weights into buckets of at most `limit` elements, and each bucket into n slices of nearly equal sizes.

    sizes: the number of elements of each weight, in the order of the optimizer steps. A weight is never divided among
        buckets, so a bucket can have more elements if it consists of one weight.
    limit: Default: the result of `bucket_limit`. The division does not affect any result.
    """
    return [Bucket(group, _slices(group, n)) for group in _groups(sizes, n, limit)]


def buckets_of_matrices(shapes: Mapping[str, tuple[int, ...]], n: int, limit: int | None = None) -> list[Bucket]:
    """Divide matrices into buckets of at most `limit` elements, and the matrices of a bucket among n processes.

    Each matrix belongs to one process. The matrices of a bucket are taken in the order of their work, the largest work
    first. Each of them goes to the process with the least work so far.

    shapes: rows and columns of each matrix. limit: as for `buckets_of`.
    """
    buckets, work = [], [0] * n
    for group in _groups({name: math.prod(shape) for name, shape in shapes.items()}, n, limit):
        slices: list[list[Piece]] = [[] for _ in range(n)]
        for name in sorted(group, key=lambda one: -_work_of_muon(shapes[one])):
            rank = work.index(min(work))
            work[rank] += _work_of_muon(shapes[name])
            slices[rank].append(Piece(name, 0, group[name], (0, PARTS)))
        in_order = {piece.name: piece.size for pieces in slices for piece in pieces}
        buckets.append(Bucket(in_order, tuple(tuple(pieces) for pieces in slices)))
    return buckets


def _work_of_muon(shape: tuple[int, ...]) -> int:
    """Return the work of an iteration of Muon, in units of half a multiply-add. The iteration computes one half of each
    of two symmetric products, and the whole of a third product.
    """
    size, short = math.prod(shape), min(shape)
    return size * short + short**3 + 2 * size * short


def _groups(sizes: Mapping[str, int], n: int, limit: int | None) -> list[dict[str, int]]:
    """Divide weights, in their order, into groups of at most `limit` elements."""
    limit = bucket_limit(n) if limit is None else limit
    groups: list[dict[str, int]] = []
    for name, size in sizes.items():
        if not groups or sum(groups[-1].values()) + size > limit:
            groups.append({})
        groups[-1][name] = size
    return groups


def part_limits(size: int) -> list[int]:
    """Return the 65 limits of the 64 parts of a weight (csrc/kernels/parts.h)."""
    return [size * part // PARTS for part in range(PARTS + 1)]


def _slices(sizes: Mapping[str, int], n: int) -> tuple[tuple[Piece, ...], ...]:
    ends: list[tuple[int, str, int]] = []  # for each part: its end in the bucket, its weight, and its number
    done = 0
    for name, size in sizes.items():
        ends += [(done + limit, name, part) for part, limit in enumerate(part_limits(size)[1:])]
        done += size
    slices, at = [], 0
    for rank in range(n):
        wanted, begin = done * (rank + 1) // n, at
        while at < len(ends) and (ends[at][0] <= wanted or rank == n - 1):
            at += 1
        slices.append(_pieces(ends[begin:at], sizes))
    return tuple(slices)


def _pieces(parts: Sequence[tuple[int, str, int]], sizes: Mapping[str, int]) -> tuple[Piece, ...]:
    """Return the pieces that consist of these consecutive parts."""
    found: dict[str, list[int]] = {}
    for _, name, part in parts:
        found.setdefault(name, []).append(part)
    pieces = []
    for name, numbers in found.items():
        limits = part_limits(sizes[name])
        first, last = numbers[0], numbers[-1] + 1
        pieces.append(Piece(name, limits[first], limits[last], (first, last)))
    return tuple(pieces)

"""The states in which a power loss may leave a disk.

Between two syncs the set of pending changes only grows, so the states just before a sync include the states of all
earlier moments. Therefore states are built only just before each sync that makes a change durable, and at the end.

A state is a choice of the pending changes. If a moment has few choices, all states are built. Otherwise these are
built:

- for the changes of names: each prefix of their order (ext4 writes changes of names to its journal in order), each
  choice of one or two changes, each choice without one or two changes, and random choices;
- for the changes of each file: all, none, each prefix, each choice of one change, each choice without one change, zeros
  for all pieces, and random choices;
- combinations: each of these choices of names, together with all changes, no changes, or zeros in every file; each of
  these choices for one file, together with all changes or no changes of names; and random combinations.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from disk_model import Change, Disk, Names, Size, Tree, content_after
from file_operations import Operation, Sync


@dataclass(frozen=True)
class Limits:
    """Limits for the number of states that are built.

    Attributes:
        exhaustive: if a moment has at most this number of choices, all of them are built.
        random: for a moment with more choices: the number of random choices of names, the number of random choices for
            each file, and the number of random combinations.
        every: build states only before every Nth sync that makes a change durable, and at the end.
    """

    exhaustive: int = 2048
    random: int = 64
    every: int = 1


@dataclass(frozen=True)
class CrashState:
    """The content of the disk after a power loss, and the reports that the user got before the power loss."""

    moment: int
    tree: Tree
    reports: tuple[str, ...]

    @cached_property
    def digest(self) -> bytes:
        """Return a digest of the tree and of the number of reports."""
        return digest_of(self.tree) + len(self.reports).to_bytes(4, "little")


@dataclass
class Counts:
    """The numbers of moments and states of a workload.

    Attributes:
        moments: number of moments at which states were built.
        exhaustive: number of moments at which all states were built.
        built: number of states that were built.
        distinct: number of different trees among these states.
    """

    moments: int = 0
    exhaustive: int = 0
    built: int = 0
    distinct: int = 0


def digest_of(tree: Tree) -> bytes:
    """Return a digest of paths and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(tree):
        content = tree[path]
        digest.update(path.encode() + b"\0" + (b"/" if content is None else _hashed(content)))
    return digest.digest()


@lru_cache(4096)
def _hashed(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def write_tree(tree: Tree, folder: Path) -> None:
    """Make a folder with the files and folders of a tree."""
    folder.mkdir()
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def tree_in(folder: Path) -> Tree:
    """Return the files and folders in a folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }


def crash_states(
    operations: Iterable[Operation], counts: Counts, limits: Limits, seed: int = 0
) -> Iterator[CrashState]:
    """Yield each distinct state in which a power loss may leave the disk, once, and count it."""
    disk, moment, seen = Disk(), 0, set[bytes]()
    for operation in (*operations, None):
        if operation is None or (isinstance(operation, Sync) and disk.changed_by(operation)):
            moment += 1
            if operation is None or moment % limits.every == 0:
                for tree in _trees(disk, counts, limits, random.Random(seed * 1_000_003 + moment)):
                    counts.built += 1
                    state = CrashState(moment, tree, tuple(disk.reports))
                    if state.digest not in seen:
                        seen.add(state.digest)
                        counts.distinct += 1
                        yield state
        if operation is not None:
            disk.apply(operation)


def _trees(disk: Disk, counts: Counts, limits: Limits, draws: random.Random) -> Iterator[Tree]:
    """Yield the trees of one moment."""
    counts.moments += 1
    by_file: dict[int, list[Change]] = defaultdict(list)
    names: list[Change] = []
    for change in disk.pending:
        (names if isinstance(change, Names) else by_file[change.node]).append(change)
    axes = [names, *by_file.values()]
    total = 1 << sum(map(len, axes))
    if total <= limits.exhaustive:
        counts.exhaustive += 1
        choices: Iterable[Sequence[Sequence[Change]]] = itertools.product(*map(_subsets, axes))
    else:
        choices = _combinations(axes, limits, draws)
    # keys: the first change of a file, which identifies the file, and the chosen changes; values: the content
    known: dict[tuple[Change, ...], bytes] = {}
    for names_chosen, *chosen in choices:
        contents: dict[int, bytes] = {}
        for node, changes in zip(by_file, chosen, strict=True):
            key = (by_file[node][0], *changes)
            if key not in known:
                known[key] = content_after(disk.files[node], changes)
            contents[node] = known[key]
        yield disk.tree(names_chosen, contents)


def _subsets(changes: Sequence[Change]) -> Iterator[tuple[Change, ...]]:
    for chosen in itertools.product((True, False), repeat=len(changes)):
        yield tuple(itertools.compress(changes, chosen))


def _combinations(
    axes: Sequence[Sequence[Change]], limits: Limits, draws: random.Random
) -> Iterator[Sequence[Sequence[Change]]]:
    """Yield some of the choices of a moment that has too many choices."""
    names, *files = axes
    of_names = _some(names, limits, draws, pairs=True)
    of_files = [_some(changes, limits, draws, pairs=False) for changes in files]
    defaults: list[list[Sequence[Change]]] = [files, [() for _ in files], [_sizes(changes) for changes in files]]
    for chosen in of_names:
        for default in defaults:
            yield (chosen, *default)
    for i, choices in enumerate(of_files):
        for default in defaults[:2]:
            for chosen in choices:
                for some_names in (names, ()):
                    yield (some_names, *default[:i], chosen, *default[i + 1 :])
    for _ in range(limits.random):
        yield tuple(draws.choice(choices) for choices in (of_names, *of_files))


def _sizes(changes: Iterable[Change]) -> tuple[Change, ...]:
    return tuple(change for change in changes if isinstance(change, Size))


def _some(changes: Sequence[Change], limits: Limits, draws: random.Random, *, pairs: bool) -> list[tuple[Change, ...]]:
    """Return choices of the changes of one kind: all choices, or some of them if there are many."""
    if 1 << len(changes) <= limits.random:
        return list(_subsets(changes))
    n = len(changes)
    chosen: set[frozenset[int]] = {frozenset(range(end)) for end in range(n + 1)}
    chosen.add(frozenset(i for i, change in enumerate(changes) if isinstance(change, Size)))
    for size in (1, 2) if pairs else (1,):
        for some in itertools.combinations(range(n), size):
            chosen |= {frozenset(some), frozenset(range(n)) - frozenset(some)}
    for _ in range(limits.random):
        share = draws.random()
        chosen.add(frozenset(i for i in range(n) if draws.random() < share))
    return [tuple(change for i, change in enumerate(changes) if i in some) for some in sorted(chosen, key=sorted)]

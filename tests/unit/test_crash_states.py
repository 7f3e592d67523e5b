"""Tests of tools/power_loss: the model of a disk during a power loss, and the states of the disk after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from crash_states import Counts, Limits, crash_states, digest_of, tree_in, write_tree
from disk_model import Tree
from file_operations import ROOT, Link, Make, Operation, Remove, Rename, Report, Resize, Sync, Write
from strace_log import operations_of

pytestmark = pytest.mark.quick
FILE = Make("a", 1, False)


def trees(*operations: Operation) -> list[Tree]:
    return [state.tree for state in crash_states(operations, Counts(), Limits())]


def same(found: Sequence[Tree], *wanted: Tree) -> bool:
    return sorted(map(digest_of, found)) == sorted(map(digest_of, wanted))


def test_without_a_sync_any_part_may_be_lost() -> None:
    content = b"x" * 512 + b"y" * 100
    zeros = bytes(512)
    assert same(
        trees(FILE, Write(1, 0, content)),
        {}, {"a": b""}, {"a": content}, {"a": bytes(612)}, {"a": content[:512] + bytes(100)}, {"a": zeros + b"y" * 100},
    )  # fmt: skip


def test_syncing_a_file_keeps_its_content_but_not_its_name() -> None:
    written: list[Operation] = [FILE, Write(1, 0, b"x"), Sync(1, "a"), Report("r")]
    after = [state.tree for state in crash_states(written, Counts(), Limits()) if state.reports]
    assert same(after, {}, {"a": b"x"})
    after = [state.tree for state in crash_states([*written, Sync(ROOT, "."), Report("r")], Counts(), Limits())]
    assert after[-1] == {"a": b"x"}


def test_syncing_a_folder_keeps_names_but_not_contents() -> None:
    states = list(crash_states([FILE, Write(1, 0, b"x"), Sync(ROOT, "."), Report("r")], Counts(), Limits()))
    assert same([state.tree for state in states if state.reports], {"a": b""}, {"a": b"\0"}, {"a": b"x"})


def test_a_rename_is_atomic_and_may_reach_the_disk_before_earlier_changes() -> None:
    durable = (FILE, Make("b", 2, False), Write(2, 0, b"b"), Sync(2, "b"), Sync(ROOT, "."), Report("r"))
    states = crash_states([*durable, Make("c", 3, False), Rename("b", "a")], Counts(), Limits())
    old, new = {"a": b"", "b": b"b"}, {"a": b"b"}
    assert same([state.tree for state in states if state.reports], old, new, {**old, "c": b""}, {**new, "c": b""})


def test_folders_move_with_their_content() -> None:
    made: list[Operation] = [Make("f", 1, True), Make("f/a", 2, False), Sync(1, "f"), Sync(ROOT, "."), Report("r")]
    states = crash_states([*made, Rename("f", "g"), Remove("g/a"), Remove("g")], Counts(), Limits())
    full = {"f": None, "f/a": b""}, {"g": None, "g/a": b""}
    assert same([state.tree for state in states if state.reports], *full, {"f": None}, {"g": None}, {})


def test_a_file_may_be_cut_and_written_again() -> None:
    made: list[Operation] = [FILE, Write(1, 0, b"old"), Sync(1, "a"), Sync(ROOT, "."), Report("r")]
    states = crash_states([*made, Resize(1, 0), Write(1, 0, b"newer")], Counts(), Limits())
    found = [state.tree["a"] for state in states if state.reports]
    assert {b"old", b"", b"newer", bytes(5), b"new"} <= set(found)


def test_many_changes_are_sampled_and_counted(tmp_path: Path) -> None:
    operations = [Make(str(n), n, False) for n in range(1, 40)]
    counts = Counts()
    states = list(crash_states(operations, counts, Limits(exhaustive=100, random=10)))
    assert counts.moments == 1 and counts.exhaustive == 0
    assert counts.distinct == len(states) == len({state.digest for state in states}) > 1500
    assert [{str(n): b"" for n in range(1, end)} in [state.tree for state in states] for end in range(1, 41)]
    write_tree(states[0].tree, tmp_path / "state")
    assert tree_in(tmp_path / "state") == states[0].tree


def hexadecimal(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def test_the_log_of_strace_is_read() -> None:
    def path(text: str) -> str:
        return f'"{hexadecimal(text)}"'

    def descriptor(number: int, text: str) -> str:
        return f"{number}<{hexadecimal(text)}>"

    told = path("saved 1\nsaved 2\n")
    lines = [
        f"7  mkdir({path('/w/f')}, 0777) = 0",
        f"7  mkdir({path('/w/f')}, 0777) = -1 EEXIST (File exists)",
        f"7  openat(AT_FDCWD<{hexadecimal('/')}>, {path('/w/f/a')}, O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = "
        + descriptor(3, "/w/f/a"),
        f"7  write({descriptor(3, '/w/f/a')}, {path('one, two')}, 8 <unfinished ...>",
        f"8  write({descriptor(4, '/elsewhere')}, {path('x')}, 1) = 1",
        "7  <... write resumed>) = 8",
        f"7  dup({descriptor(3, '/w/f/a')}) = {descriptor(5, '/w/f/a')}",
        f"7  write({descriptor(5, '/w/f/a')}, {path('!')}, 1) = 1",
        f"7  fsync({descriptor(3, '/w/f/a')}) = 0",
        f"7  rename({path('/w/f/a')}, {path('/w/f/b')}) = 0",
        f"7  write({descriptor(9, '/told')}, {told}, 16) = 16",
        f"7  link({path('/w/f/b')}, {path('/w/f/c')}) = 0",
        f"7  unlinkat({descriptor(6, '/w/f')}, {path('b')}, 0) = 0",
    ]
    assert operations_of(lines, Path("/w"), Path("/told")) == [
        Make("f", 1, True),
        Make("f/a", 2, False),
        Write(2, 0, b"one, two"),
        Write(2, 8, b"!"),
        Sync(2, "f/a"),
        Rename("f/a", "f/b"),
        Report("saved 1"),
        Report("saved 2"),
        Link("f/b", "f/c"),
        Remove("f/b"),
    ]
    with pytest.raises(NotImplementedError, match="calls symlink,"):
        operations_of([f"7  symlink({path('/w/f')}, {path('/w/g')}) = 0"], Path("/w"), Path("/told"))

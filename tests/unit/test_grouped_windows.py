"""Windows with one sample each: the samples of an epoch, groups of similar length, and the length of windows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sample_splits import LENGTHS, split
from toynn import TinyNNValueError
from toynn.data import PackedTokens
from toynn.data.grouped_windows import MIXED, MULTIPLE, GroupedWindows

pytestmark = pytest.mark.quick

Row = tuple[list[int], list[int]]


def rows(windows: GroupedWindows, group: int) -> list[Row]:
    """Return the ids and targets in each window of a group, without padding. () for a window without a sample."""
    g, found = windows.group, []
    batch = windows.read(group * g, g)
    assert batch.starts is None
    length = windows.length(group * g)
    assert batch.ids.size == batch.targets.size == g * length
    for ids, targets in zip(batch.ids.reshape(g, length), batch.targets.reshape(g, length), strict=True):
        n = np.count_nonzero(ids)  # padding has the id 0, and the ids of the split begin at 1
        assert (ids[:n] > 0).all()
        assert (targets[n:] == -100).all()
        found.append((ids[:n].tolist(), targets[:n].tolist()))
    return found


def epoch(windows: GroupedWindows, number: int) -> list[list[Row]]:
    groups = windows.windows_per_epoch // windows.group
    return [rows(windows, number * groups + i) for i in range(groups)]


@pytest.mark.parametrize("group", [1, 2, 5, 40])
@pytest.mark.parametrize("t_seq", [4, 8, 16, 100])
def test_an_epoch_has_each_sample_once_and_each_in_its_own_window(t_seq: int, group: int) -> None:
    data = split(LENGTHS)
    assert data.starts is not None
    want = []
    for start, end in zip(data.starts, np.append(data.starts[1:], len(data)), strict=True):
        ids = list(range(start + 1, end + 1))
        for at in range(0, len(ids) - 1, t_seq):
            part = ids[at : at + t_seq + 1]
            want.append((part[:-1], part[1:]))
    windows = GroupedWindows(data, t_seq, 3, group)
    for number in (0, 4):
        found = [row for group_rows in epoch(windows, number) for row in group_rows]
        assert len(found) == windows.windows_per_epoch
        assert sorted(row for row in found if row[0]) == sorted(want)
        assert sum(not ids for ids, _ in found) == -len(want) % group
    assert windows.samples == sum(length > 1 for length in LENGTHS)
    assert windows.divided == sum(length - 1 > t_seq for length in LENGTHS)


@pytest.mark.parametrize("padded", [False, True])
def test_windows_have_the_length_of_the_longest_sample_of_their_group(padded: bool) -> None:
    lengths = np.random.default_rng(0).integers(2, 90, 200).tolist()
    windows = GroupedWindows(split(lengths), 70, 1, 6, padded=padded)
    assert windows.windows_per_epoch == 6 * 42  # some of the 200 samples are divided into two pieces
    shortest, places, before = 70, 0, windows.tokens_before(windows.windows_per_epoch)
    for i in range(2 * windows.windows_per_epoch // 6):
        longest = max(len(ids) for ids, _ in rows(windows, i))
        want = 70 if padded else min(-(-longest // MULTIPLE) * MULTIPLE, 70)
        assert [windows.length(6 * i + row) for row in range(6)] == [want] * 6
        assert windows.tokens_before(6 * i) == places
        assert windows.tokens_before(6 * i + 2) == places + 2 * want
        places += 6 * want
        if i < windows.windows_per_epoch // 6:
            shortest = min(shortest, want)
    assert before < places or padded
    assert (windows.shortest, windows.longest) == (shortest, 70)
    first = windows.tokens_before(windows.windows_per_epoch)
    assert windows.filled == pytest.approx(sum(length - 1 for length in lengths) / first)
    assert GroupedWindows(split([9, 4]), 70, 1, 1, padded=padded).longest == (70 if padded else 8)


def test_padding_changes_no_sample() -> None:
    lengths = np.random.default_rng(0).integers(2, 40, 60).tolist()
    grouped, padded = (GroupedWindows(split(lengths), 50, 1, 4, padded=one) for one in (False, True))
    assert epoch(grouped, 1) == epoch(padded, 1)
    assert grouped.filled > 1.5 * padded.filled


def test_groups_have_similar_lengths_and_change_in_each_epoch() -> None:
    lengths = np.random.default_rng(1).integers(2, 100, 1024).tolist()
    windows = GroupedWindows(split(lengths), 100, 7, 8)
    first, second = epoch(windows, 0), epoch(windows, 1)
    spread = [max(len(ids) for ids, _ in group) - min(len(ids) for ids, _ in group) for group in first]
    assert np.mean(spread) < 2 * 100 / MIXED, "in 64 sorted groups, the lengths of a group differ by about 100 / 64"
    assert windows.filled > 0.9
    members = [{frozenset(ids[0] for ids, _ in group) for group in one} for one in (first, second)]
    assert not members[0] & members[1], "samples meet other samples in the next epoch"
    sizes = [max(len(ids) for ids, _ in group) for group in first]
    rising = np.mean(np.diff(sizes) > 0)
    assert 0.35 < rising < 0.65, "groups are not in the order of their lengths"
    assert epoch(GroupedWindows(split(lengths), 400, 7, 8), 1) == second
    assert epoch(GroupedWindows(split(lengths), 400, 8, 8), 0) != first


def test_a_window_does_not_depend_on_the_batch_or_on_earlier_reads() -> None:
    lengths = np.random.default_rng(2).integers(2, 12, 50).tolist()
    windows = GroupedWindows(split(lengths), 16, 7, 6)
    at = windows.windows_per_epoch - 6
    whole = windows.read(at, 6)
    for i in (5, 0, 3, 2):
        one = GroupedWindows(split(lengths), 16, 7, 6).read(at + i, 1)
        for name in ("ids", "targets"):
            assert np.array_equal(getattr(one, name), getattr(whole, name).reshape(6, -1)[i])


def test_only_counted_tokens_are_targets_and_other_pieces_are_left_out() -> None:
    lengths = [6, 6, 20, 6]
    counted: npt.NDArray[np.uint8] = np.zeros(sum(lengths), dtype=np.uint8)
    counted[[2, 3, 12, 13]] = 1
    windows = GroupedWindows(split(lengths, counted), 8, 0, 2)
    assert rows(windows, 0) == [
        ([13, 14, 15, 16, 17, 18, 19, 20], [14, *[-100] * 7]),
        ([1, 2, 3, 4, 5], [-100, 3, 4, -100, -100]),
    ]


def test_the_tokens_of_each_source_are_counted_without_padding() -> None:
    lengths = np.random.default_rng(3).integers(2, 30, 100).tolist()
    windows = GroupedWindows(split(lengths), 100, 0, 6)
    n = windows.windows_per_epoch
    borders = np.array([0, sum(lengths[:30]), sum(lengths)])
    own = [sum(lengths[:30]) - 30, sum(lengths[30:]) - 70]
    assert windows.tokens_between(borders, 0, n).tolist() == own
    parts = [windows.tokens_between(borders, at, size) for at, size in ((0, 4), (4, n - 4 + 5), (n + 5, n - 5))]
    assert np.sum(parts, axis=0).tolist() == [2 * one for one in own]


def test_wrong_arguments_are_refused() -> None:
    none = GroupedWindows(split([4, 4], np.zeros(8, dtype=np.uint8)), 8, 0, 2)
    assert none.windows_per_epoch == 0
    for call in (none.length, none.tokens_before, lambda i: none.read(i, 1)):
        with pytest.raises(TinyNNValueError, match=r"^no sample has a target that counts for the loss; use more"):
            call(0)
    plain = PackedTokens(np.arange(9, dtype=np.uint16), split([9]).meta, "train")
    with pytest.raises(TinyNNValueError, match=r"^split must be made of samples, got a split of plain text$"):
        GroupedWindows(plain, 8, 0, 2)
    for name, arguments in (("t_seq", (0, 0, 2)), ("seed", (8, -1, 2)), ("group", (8, 0, 0))):
        with pytest.raises(TinyNNValueError, match=f"^{name} must be"):
            GroupedWindows(split([9]), *arguments)
    with pytest.raises(
        TinyNNValueError, match=r"^n = 3 is too large: start \+ n must be at most 2, the end of the group of window 1$"
    ):
        GroupedWindows(split([9, 9, 9, 9]), 8, 0, 2).read(1, 3)

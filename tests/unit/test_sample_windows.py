"""Windows with whole samples: the plan, the content of windows, epochs, and documents in windows of plain text."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from sample_splits import LENGTHS, split
from toynn import TinyNNTypeError, TinyNNValueError
from toynn.data import PackedTokens, WindowBatcher
from toynn.data.packing import plan_of
from toynn.data.sample_windows import SampleWindows
from toynn.data.windows import document_starts

pytestmark = pytest.mark.quick


def best_fit(lengths: npt.NDArray[np.int64], size: int) -> list[list[int]]:
    """Return the lengths in each window. Each length, the longest first, goes into the fullest window with space."""
    # for each window: its free space, the number of its last sample, and the lengths of its samples
    windows: list[tuple[int, int, list[int]]] = []
    for time, length in enumerate(sorted(lengths.tolist(), reverse=True)):
        fits = [i for i, (free, _, _) in enumerate(windows) if free >= length]
        if fits:
            i = min(fits, key=lambda i: windows[i][:2])
            free, _, found = windows[i]
        else:
            i, free, found = len(windows), size, []
            windows.append((free, time, found))
        windows[i] = (free - length, time, [*found, length])
    return [found for _, _, found in windows]


@pytest.mark.parametrize("size", [1, 2, 7, 16, 64])
@pytest.mark.parametrize("n", [0, 1, 5, 50, 400])
def test_the_plan_is_the_best_fit_by_falling_length(n: int, size: int) -> None:
    lengths = np.random.default_rng([n, size]).integers(1, size + 1, n)
    plan, want = plan_of(lengths, size), best_fit(lengths, size)
    falling = np.sort(lengths)[::-1]
    got = [falling[plan.of_window(i)].tolist() for i in range(plan.windows)]
    assert len(got) == len(want)
    assert sorted(map(sorted, got)) == sorted(map(sorted, want))
    assert all(window == sorted(window, reverse=True) and sum(window) <= size for window in got)
    slots = [int(slot) for i in range(plan.windows) for slot in plan.of_window(i)]
    assert sorted(slots) == list(range(n))


def samples_in(windows: SampleWindows, i: int) -> list[tuple[list[int], list[int]]]:
    """Return the ids and targets of each sample in window i, after checks of positions and padding."""
    batch, found = windows.read(i, 1), []
    assert batch.starts is not None
    at = 0
    while at < windows.t_seq:
        end = at + 1
        while end < windows.t_seq and batch.starts[end] == at:
            end += 1
        assert (batch.starts[at:end] == at).all()
        if batch.ids[at] == 0:  # padding
            assert end == at + 1
            assert batch.targets[at] == -100
        else:
            found.append((batch.ids[at:end].tolist(), batch.targets[at:end].tolist()))
        at = end
    return found


@pytest.mark.parametrize("t_seq", [4, 8, 16, 100])
def test_an_epoch_predicts_each_token_once_except_the_first_token_of_each_sample(t_seq: int) -> None:
    data = split(LENGTHS)
    windows = SampleWindows(data, t_seq, 3)
    assert data.starts is not None
    ends = np.append(data.starts[1:], len(data))
    for epoch in (0, 5):
        predicted: list[int] = []
        n = 0
        for i in range(windows.windows_per_epoch):
            for ids, targets in samples_in(windows, epoch * windows.windows_per_epoch + i):
                assert ids == list(range(ids[0], ids[0] + len(ids)))
                assert targets == [one + 1 for one in ids]
                sample = np.searchsorted(ends, ids[0] - 1, side="right")
                assert targets[-1] <= ends[sample], "a piece ends within its sample"
                assert (ids[0] - 1 - data.starts[sample]) % t_seq == 0
                predicted += targets
                n += 1
        firsts = {int(start) + 1 for start, end in zip(data.starts, ends, strict=True) if end > start}
        assert sorted(predicted) == sorted(set(range(1, len(data) + 1)) - firsts)
        assert windows.filled == pytest.approx(len(predicted) / (windows.windows_per_epoch * t_seq))
    assert windows.samples == sum(length > 1 for length in LENGTHS)
    assert windows.divided == sum(length - 1 > t_seq for length in LENGTHS)
    assert windows.targets(0) == len(predicted)
    counts = np.count_nonzero(windows.read(0, windows.windows_per_epoch).targets.reshape(-1, t_seq) != -100, axis=1)
    for n in range(1, windows.windows_per_epoch + 2):
        assert windows.targets(n) == counts[:n].sum()


def test_only_counted_tokens_are_targets_and_other_pieces_are_left_out() -> None:
    lengths = [6, 6, 20, 6]
    counted = np.zeros(sum(lengths), dtype=np.uint8)
    counted[[2, 3, 12, 13]] = 1  # two tokens of the first sample, and the first two tokens of the third sample
    counted[[6]] = 1  # the first token of the second sample is never predicted
    windows = SampleWindows(split(lengths, counted), 8, 0)
    found = [one for i in range(windows.windows_per_epoch) for one in samples_in(windows, i)]
    assert sorted(found) == [
        ([1, 2, 3, 4, 5], [-100, 3, 4, -100, -100]),
        ([13, 14, 15, 16, 17, 18, 19, 20], [14, *[-100] * 7]),
    ]
    assert (windows.samples, windows.divided, windows.targets(0)) == (2, 1, 3)


def test_epochs_exchange_samples_of_equal_length_and_the_order_of_windows() -> None:
    lengths = np.random.default_rng(1).integers(2, 12, 300).tolist()
    windows = SampleWindows(split(lengths), 16, 7)

    def epoch(number: int, of: SampleWindows = windows) -> list[list[int]]:
        n = of.windows_per_epoch
        return [sorted(ids[0] for ids, _ in samples_in(of, number * n + i)) for i in range(n)]

    first, second = epoch(0), epoch(1)
    assert first != second
    assert sorted(first) != sorted(second), "samples meet other samples in the next epoch"
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second))
    assert epoch(1, SampleWindows(split(lengths), 16, 7)) == second
    assert epoch(0, SampleWindows(split(lengths), 16, 8)) != first


def test_a_window_does_not_depend_on_the_batch_or_on_earlier_reads() -> None:
    lengths = np.random.default_rng(2).integers(1, 12, 50).tolist()
    windows = SampleWindows(split(lengths), 16, 7)
    n = windows.windows_per_epoch
    whole = windows.read(n - 3, 8)
    for i in (5, 0, 7, 2):
        one = SampleWindows(split(lengths), 16, 7).read(n - 3 + i, 1)
        for name in ("ids", "targets", "starts"):
            assert np.array_equal(getattr(one, name), getattr(whole, name).reshape(8, 16)[i])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(
        TinyNNValueError,
        match=r"^none of the samples of this split has a target that counts for the loss; use more samples$",
    ):
        SampleWindows(split([4, 4], np.zeros(8, dtype=np.uint8)), 8, 0).read(0, 1)
    assert SampleWindows(split([1, 1]), 8, 0).windows_per_epoch == 0
    plain = PackedTokens(np.arange(9, dtype=np.uint16), split([9]).meta, "train")
    with pytest.raises(TinyNNValueError, match=r"^split must be made of samples, got a split of plain text$"):
        SampleWindows(plain, 8, 0)
    for t_seq, seed in ((0, 0), (8, -1)):
        with pytest.raises(TinyNNValueError, match="t_seq" if t_seq == 0 else "seed"):
            SampleWindows(split([9]), t_seq, seed)
    with pytest.raises(TinyNNTypeError, match="t_seq"):
        SampleWindows(split([9]), 1.5, 0)  # type: ignore[arg-type]
    with pytest.raises(TinyNNValueError, match="n"):
        SampleWindows(split([9]), 8, 0).read(0, 0)
    with pytest.raises(TinyNNValueError, match=r"^n \* t_seq must be at most 2147483647"):
        SampleWindows(split([9]), 8, 0).read(0, 2**31 - 1)


def test_documents_in_windows_of_plain_text_begin_after_an_end_token() -> None:
    ids = np.array([3, 9, 4, 9, 9, 5, 6, 7, 9, 1, 9, 2], dtype=np.int32)
    assert document_starts(ids, 6, 9).tolist() == [0, 0, 2, 2, 4, 5, 0, 0, 0, 3, 3, 5]
    assert document_starts(ids, 12, 9).tolist() == [0, 0, 2, 2, 4, 5, 5, 5, 5, 9, 9, 11]
    assert document_starts(ids, 1, 9).tolist() == [0] * 12
    tokens = np.tile(ids, 4).astype(np.uint16)
    plain, apart = WindowBatcher(tokens, 6, 1), WindowBatcher(tokens, 6, 1, end_id=9)
    for i in (0, 3, 11):
        one, other = plain.read(i, 3), apart.read(i, 3)
        assert one.starts is None
        assert other.starts is not None
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.targets, other.targets)
        assert np.array_equal(other.starts, document_starts(other.ids, 6, 9))
    with pytest.raises(TinyNNValueError, match="end_id"):
        WindowBatcher(tokens, 6, 1, end_id=-1)

"""Labels compared with their definition, position by position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toynn.llm.labels import (
    fixed_target,
    next_token,
    next_token_guarded,
    one_hot_class,
    targets,
    targets_guarded,
)

pytestmark = pytest.mark.quick

MAKERS = [next_token, next_token_guarded]


def defined(ids: list[int], vocab: int, context: int, batch: int) -> np.ndarray:
    """Return labels, computed by their definition. A target outside the vocabulary gives a row of zeros."""
    rows = np.zeros((context * batch, vocab), dtype=np.float32)
    for b in range(batch):
        for t in range(context):
            target = ids[b * context + (t + 1 if t + 1 < context else t)]
            if 0 <= target < vocab:
                rows[b * context + t, target] = 1.0
    return rows


@st.composite
def sequences(draw: st.DrawFn, least: int, beyond: int) -> tuple[list[int], int, int, int]:
    """Draw ids, vocab, context and batch; ids range from `least` to vocab - 1 + `beyond`."""
    vocab, context, batch = draw(st.integers(1, 12)), draw(st.integers(1, 7)), draw(st.integers(1, 4))
    ids = draw(st.lists(st.integers(least, vocab - 1 + beyond), min_size=context * batch, max_size=context * batch))
    return ids, vocab, context, batch


@settings(deadline=None)
@given(sequences(0, 0))
def test_the_target_is_the_next_id_and_the_last_position_targets_itself(
    case: tuple[list[int], int, int, int],
) -> None:
    for make in MAKERS:
        rows = make(*case)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        assert np.array_equal(rows, defined(*case))
        assert (rows.sum(axis=1) == 1.0).all()


@settings(deadline=None)
@given(sequences(-3, 3))
def test_a_target_outside_the_vocabulary_is_an_error_and_a_row_of_zeros_with_a_guard(
    case: tuple[list[int], int, int, int],
) -> None:
    expected = defined(*case)
    assert np.array_equal(next_token_guarded(*case), expected)
    wanted = np.where(expected.any(axis=1), expected.argmax(axis=1), -1)
    guarded = targets_guarded(*case)
    assert guarded.dtype == np.int32
    assert np.array_equal(guarded, wanted)
    if (expected.sum(axis=1) == 0.0).any():
        with pytest.raises(ValueError, match="must be an id of the vocabulary"):
            next_token(*case)
        with pytest.raises(ValueError, match="must be an id of the vocabulary"):
            targets(*case)
    else:
        assert np.array_equal(targets(*case), wanted)
        assert np.array_equal(next_token(*case), expected)


def test_no_target_crosses_the_end_of_a_sequence() -> None:
    rows = next_token([0, 1, 2, 3, 4, 5], 6, 3, 2)
    assert rows.argmax(axis=1).tolist() == [1, 2, 2, 4, 5, 5]


def test_a_fixed_target_is_the_target_of_every_row() -> None:
    rows = fixed_target(5, 3, 2)
    assert rows.dtype == np.float32
    assert rows.tolist() == [[0, 0, 1, 0, 0]] * 3
    assert one_hot_class(3, 1).tolist() == [[0, 1, 0]]
    calls: list[tuple[Callable[[], np.ndarray], str]] = [
        (lambda: fixed_target(5, 3, 5), "target_id must be an integer from 0 to 4, got 5"),
        (lambda: fixed_target(5, 0, 1), "context must be an integer from 1"),
        (lambda: fixed_target(0, 1, 1), "vocab must be an integer from 1"),
        (lambda: one_hot_class(3, -1), "label must be an integer from 0 to 2, got -1"),
        (lambda: one_hot_class(0, 0), "num_classes must be an integer from 1"),
    ]
    for call, name in calls:
        with pytest.raises(ValueError, match=name):
            call()


def test_the_error_gives_position_id_and_range() -> None:
    with pytest.raises(ValueError) as caught:
        next_token([0, 1, 7, 3], 5, 4, 1)
    assert "the target of seq_ids[1] must be an id of the vocabulary, from 0 to 4, got 7" in str(caught.value)


@pytest.mark.parametrize("make", [*MAKERS, targets, targets_guarded])
@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (
            ([1, 2, 3], 5, 4, 1),
            ValueError,
            "seq_ids must be a flat sequence of context * batch = 4 ids, got shape (3,)",
        ),
        (
            ([[1, 2], [3, 4]], 5, 2, 2),
            ValueError,
            "seq_ids must be a flat sequence of context * batch = 4 ids, got shape (2, 2)",
        ),
        (([], 5, 4, 1), ValueError, "got shape (0,)"),
        (([1.0, 2.0], 5, 2, 1), TypeError, "seq_ids must hold integers, got dtype float64"),
        (([True, False], 5, 2, 1), TypeError, "seq_ids must hold integers, got dtype bool"),
        ((["a", "b"], 5, 2, 1), TypeError, "seq_ids must hold integers"),
        (([None, 1], 5, 2, 1), TypeError, "seq_ids must hold integers"),
        (([2**70, 1], 5, 2, 1), ValueError, "seq_ids must hold integers that fit int64, got"),
        (
            (np.array([2**64 - 1, 1], dtype=np.uint64), 5, 2, 1),
            ValueError,
            "seq_ids must hold ids below 2^31, got 18446744073709551615",
        ),
        (([1, 2], 0, 2, 1), ValueError, "vocab must be an integer from 1"),
        (([1, 2], 5, 0, 1), ValueError, "context must be an integer from 1"),
        (([1, 2], 5, 2, True), TypeError, "batch must be an integer, got True (bool)"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    make: Callable[..., np.ndarray], args: tuple[object, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        make(*args)
    assert says in str(caught.value)

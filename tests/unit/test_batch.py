"""TrainingBatch: its arrays after a fill, and a refused fill that changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toynn import AdamW, SessionError, TrainingBatch
from toynn.llm.labels import fixed_target, next_token

pytestmark = pytest.mark.quick


@settings(deadline=None)
@given(context=st.integers(1, 9), batch=st.integers(1, 4), data=st.data())
def test_a_filled_batch_contains_the_four_arguments_of_a_step(context: int, batch: int, data: st.DataObject) -> None:
    n = context * batch
    ids = data.draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))
    b = TrainingBatch(11, context, batch)
    b.fill(ids, AdamW(lr=0.5).hp(3))
    assert b.seq_ids.dtype == b.positions.dtype == np.int32
    assert b.seq_ids.tolist() == ids
    assert b.positions.tolist() == [t for _ in range(batch) for t in range(context)]
    assert np.array_equal(b.m_labels, next_token(ids, 11, context, batch))
    assert np.array_equal(b.m_hp, AdamW(lr=0.5).hp(3))


def test_hyperparameters_stay_until_fill_gets_new_ones() -> None:
    b = TrainingBatch(5, 2)
    b.fill([1, 2])
    assert np.array_equal(b.m_hp, AdamW().hp(1))
    b.fill([1, 2], AdamW(lr=0.25).hp(1))
    b.fill([3, 4])
    assert b.m_hp[0, 0] == 0.25


def test_hyperparameters_may_be_any_row_of_seven_numbers() -> None:
    b = TrainingBatch(5, 2)
    b.fill([1, 2], [0.001, 0.9, 0.95, 1e-8, 0, 0.9, 0.95])
    assert b.m_hp.shape == (1, 7)
    assert np.array_equal(b.m_hp, AdamW().hp(1))


def test_fill_does_not_change_arrays_returned_earlier() -> None:
    b = TrainingBatch(5, 2)
    given_ids = np.array([1, 2])
    b.fill(given_ids)
    ids, labels = b.seq_ids, b.m_labels
    given_ids[:] = 0
    b.fill([3, 4])
    assert ids.tolist() == [1, 2]
    assert labels.argmax(axis=1).tolist() == [2, 2]


def test_an_empty_batch_has_no_ids_and_zeros_as_in_the_reference() -> None:
    b = TrainingBatch(5, 2)
    assert b.seq_ids.shape == (0,)
    assert b.labels.shape == (2, 5)
    assert b.hp.shape == (1, 7)
    assert not b.labels.any()
    assert not b.hp.any()
    b = TrainingBatch(5, 2)
    for name in ("m_labels", "targets"):
        with pytest.raises(SessionError, match=r"call fill\(seq_ids\) first"):
            getattr(b, name)


def test_hp_and_labels_may_be_assigned() -> None:
    b = TrainingBatch(3, 2)
    b.hp = AdamW(lr=0.5).hp(0)
    b.fill([1, 2])
    assert b.hp[0, 0] == b.m_hp[0, 0] == 0.5
    assert b.labels.argmax(axis=1).tolist() == b.targets.tolist() == [2, 2]
    b.labels = [[0.5, 0.5, 0], [0, 0, 1]]  # type: ignore[assignment]
    assert b.m_labels.tolist() == [[0.5, 0.5, 0], [0, 0, 1]]
    assert b.m_labels.dtype == np.float32
    with pytest.raises(SessionError, match="the batch has no targets"):
        _ = b.targets
    b.labels[1, 2] = 0.25
    assert b.m_labels[1, 2] == 0.25
    for name, value, says in (
        ("hp", [1.0] * 6, "hp must be the seven numbers of AdamW.hp"),
        ("labels", [[1, 0, 0]], "labels must have shape"),
        ("labels", [[1, 0, 0], [-1, 0, 0]], "labels must be finite and at least 0"),
    ):
        with pytest.raises(ValueError, match=says):
            setattr(b, name, value)
    assert b.m_labels[1, 2] == 0.25
    b.fill([1, 2])
    assert b.targets.tolist() == [2, 2]


def test_every_row_of_a_batch_can_have_the_same_target() -> None:
    b = TrainingBatch(7, 2, 2)
    b.hp = AdamW(lr=0.5).hp(0)
    b.fill_fixed_target([1, 2, 3, 4], 6)
    assert b.seq_ids.tolist() == [1, 2, 3, 4]
    assert b.targets.tolist() == [6] * 4
    assert np.array_equal(b.labels, fixed_target(7, 4, 6))
    assert b.hp[0, 0] == 0.5
    for ids, target, says in (([1, 2, 3], 6, "seq_ids"), ([1, 2, 3, 4], 7, "target_id must be an integer from 0 to 6")):
        with pytest.raises(ValueError, match=says):
            b.fill_fixed_target(ids, target)


@pytest.mark.parametrize(
    ("seq_ids", "m_hp", "error", "says"),
    [
        ([1, 2], None, ValueError, "seq_ids must be a flat sequence of context * batch = 3 ids, got shape (2,)"),
        ([5, 1, 2], None, ValueError, "seq_ids[0] must be an id of the vocabulary, from 0 to 4, got 5"),
        ([1, -1, 2], None, ValueError, "seq_ids[1] must be an id of the vocabulary, from 0 to 4, got -1"),
        ([1.0, 2.0, 3.0], None, TypeError, "seq_ids must hold integers"),
        ([1, 2, 3], [1.0] * 6, ValueError, "m_hp must be the seven numbers of AdamW.hp, shape (1, 7), got shape (6,)"),
        ([1, 2, 3], [math.nan] * 7, ValueError, "m_hp must be finite numbers"),
        ([1, 2, 3], [1e39] * 7, ValueError, "m_hp must be finite numbers (as float32)"),
        ([1, 2, 3], ["0.001"] * 7, TypeError, "m_hp must hold real numbers"),
    ],
)
def test_a_fill_with_a_wrong_argument_names_it_and_changes_nothing(
    seq_ids: object, m_hp: object, error: type[Exception], says: str
) -> None:
    b = TrainingBatch(5, 3)
    b.fill([4, 3, 2], AdamW(lr=0.5).hp(1))
    with pytest.raises(error) as caught:
        b.fill(seq_ids, m_hp)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert b.seq_ids.tolist() == [4, 3, 2]
    assert b.m_labels.argmax(axis=1).tolist() == [3, 2, 2]
    assert b.m_hp[0, 0] == 0.5


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((0, 2, 1), "vocab must be an integer from 1"),
        ((5, 0, 1), "context must be an integer from 1"),
        ((5, 2, 0), "batch must be an integer from 1"),
        ((5, 2**16, 2**16), "context * batch must be below 2^31, got 65536 * 65536"),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(args: tuple[int, int, int], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        TrainingBatch(*args)
    assert says in str(caught.value)

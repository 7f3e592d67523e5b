"""AdamW: the seven hyperparameters of a step, with and without bias correction, and the errors for wrong settings."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toynn import AdamW

pytestmark = pytest.mark.quick


def test_the_default_hyperparameters_are_those_of_the_reference() -> None:
    row = AdamW().hp(1)
    assert row.shape == (1, 7)
    assert row.dtype == np.float32
    assert row.tobytes() == np.array([0.001, 0.9, 0.95, 1e-8, 0.0, 0.9, 0.95], dtype=np.float32).tobytes()


@settings(deadline=None)
@given(step=st.integers(1, 2**31 - 1))
def test_without_bias_correction_the_step_number_changes_nothing(step: int) -> None:
    assert np.array_equal(AdamW(weight_decay=0.1).hp(step), AdamW(weight_decay=0.1).hp(1))


@settings(deadline=None)
@given(step=st.integers(1, 300), beta1=st.floats(0.0, 0.999), beta2=st.floats(0.0, 0.9999))
def test_with_bias_correction_the_factors_are_1_over_1_minus_beta_to_the_step(
    step: int, beta1: float, beta2: float
) -> None:
    row = AdamW(beta1=beta1, beta2=beta2, bias_correct=True).hp(step)[0]
    for s, beta in ((row[5], beta1), (row[6], beta2)):
        exact = 1 / (1 - Fraction(beta) ** step)  # the result is exact, without rounding
        assert float(s) == pytest.approx(float(exact), rel=1e-6)


def test_with_bias_correction_the_first_step_uses_the_gradient_itself() -> None:
    """At the first step m = (1-beta1) g and v = (1-beta2) g^2. The factor s5 times m is g, and s6 times v is g^2."""
    row = AdamW(bias_correct=True).hp(1)[0].astype(float)
    assert (1 - row[1]) * row[5] == pytest.approx(1.0, rel=1e-6)
    assert (1 - row[2]) * row[6] == pytest.approx(1.0, rel=1e-6)


def test_with_bias_correction_the_factors_approach_one() -> None:
    assert AdamW(bias_correct=True).hp(100_000)[0, 5:].tolist() == [1.0, 1.0]


def test_a_schedule_may_assign_lr_between_steps() -> None:
    adamw = AdamW()
    adamw.lr = 0.0
    assert adamw.hp(2)[0, 0] == 0.0


@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("lr", -0.1, ValueError, "lr must be a finite number, 0 or above (as a float32), got -0.1"),
        ("lr", math.nan, ValueError, "lr must be a finite number, 0 or above (as a float32), got nan"),
        ("lr", math.inf, ValueError, "got inf"),
        ("lr", "fast", TypeError, "lr must be a number, got 'fast'"),
        ("beta1", 1.0, ValueError, "beta1 must be at least 0 and below 1"),
        ("beta1", 1 - 1e-12, ValueError, "beta1 must be at least 0 and below 1 (as a float32)"),
        ("beta2", -0.1, ValueError, "beta2 must be at least 0"),
        ("beta2", math.nan, ValueError, "beta2"),
        ("eps", 0.0, ValueError, "eps must be a finite number above 0"),
        ("eps", 1e-50, ValueError, "eps must be a finite number above 0 (as a float32), got 1e-50"),
        ("weight_decay", -1, ValueError, "weight_decay must be"),
        ("weight_decay", True, TypeError, "weight_decay must be a number, got True"),
        ("bias_correct", 1, TypeError, "bias_correct must be True or False, got 1"),
    ],
)
def test_a_wrong_setting_is_an_error_at_construction_and_at_assignment(
    field: str, value: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as given_:
        AdamW(**{field: value})  # type: ignore[arg-type]
    assert says in str(given_.value)
    adamw = AdamW()
    setattr(adamw, field, value)
    with pytest.raises(error) as assigned:
        adamw.hp(1)
    assert str(assigned.value) == str(given_.value)


def test_step_0_is_legal_without_bias_correction() -> None:
    assert AdamW().hp(0).tobytes() == AdamW().hp(1).tobytes()
    with pytest.raises(ValueError, match="step must be an integer from 1 to 2147483647, got 0"):
        AdamW(bias_correct=True).hp(0)


def test_a_step_index_counts_from_0() -> None:
    adamw = AdamW(bias_correct=True)
    for index in (0, 1, 7):
        assert np.array_equal(adamw.hp_for_step(index), adamw.hp(index + 1))
    for wrong in (-1, 2**31 - 1):
        with pytest.raises(ValueError, match="step_index must be an integer from 0"):
            adamw.hp_for_step(wrong)


def test_the_factories_have_the_settings_of_the_references_recipes() -> None:
    assert AdamW.for_from_scratch() == AdamW()
    assert AdamW.for_lora() == AdamW(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, bias_correct=True)
    assert AdamW.for_lora(0.0005).lr == AdamW.for_from_scratch(lr=0.0005).lr == 0.0005


@pytest.mark.parametrize(("step", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_a_step_number_must_be_an_integer_that_is_not_negative(step: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="step must be an integer"):
        AdamW().hp(step)  # type: ignore[arg-type]

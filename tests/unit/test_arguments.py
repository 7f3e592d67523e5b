"""The checks of values: the accepted values, the type of the returned value, and the errors that name a wrong value."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from toynn import TinyNNError, TinyNNTypeError, TinyNNValueError, arguments
from toynn.arguments import not_finite
from toynn.tinynn.arrays import float_array, int_array


class Loud(str):
    """A str that is equal to everything, and cannot be printed."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise ZeroDivisionError


class Index:
    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), Index()])
def test_an_integer_is_any_value_that_python_accepts_as_an_index(value: Any) -> None:
    for check in (arguments.int32, arguments.int64, lambda name, given: arguments.integer(name, given, 0)):
        assert type(check("n", value)) is int
        assert check("n", value) == 3


@pytest.mark.parametrize(
    "value", [True, np.True_, 3.0, np.float32(3), "3", b"3", None, [3], np.array([3, 4]), Loud("3")]
)
def test_other_values_are_not_integers(value: Any) -> None:
    with pytest.raises(TinyNNTypeError, match=r"^n must be an integer, got "):
        arguments.int32("n", value)


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (arguments.int32, 2**31, "n must be an integer from -2147483648 to 2147483647, got 2147483648"),
        (arguments.int64, -(2**63) - 1, "n must be an integer from -9223372036854775808 to 9223372036854775807, got -"),
        (arguments.int64, 10**5000, "n must be an integer from -9.* to 9.*, got a number of 16610 bits"),
    ],
    ids=["of 32 bits", "of 64 bits", "too long to print"],
)  # fmt: skip
def test_the_error_of_an_integer_out_of_range_shows_the_value(
    check: Callable[[str, object], int], value: int, message: str
) -> None:
    with pytest.raises(TinyNNValueError, match=rf"^{message}"):
        check("n", value)


@pytest.mark.parametrize("value", [2, 2.0, np.int16(2), np.float16(2), np.array(2.0), Decimal(2)])
def test_a_number_is_any_value_that_python_converts_to_float(value: Any) -> None:
    for check in (arguments.float64, arguments.float32, arguments.positive, arguments.not_negative):
        assert type(check("x", value)) is float
        assert check("x", value) == 2.0


@pytest.mark.parametrize(
    "value", [True, np.False_, "2", b"2", 2j, np.complex64(2), None, np.ones(2), np.ma.masked, [2.0]]
)
def test_other_values_are_not_numbers(value: Any) -> None:
    for check in (arguments.float64, arguments.float32, arguments.positive):
        with pytest.raises(TinyNNTypeError, match=r"^x must be a number, got "):
            check("x", value)


def test_infinity_and_nan_are_numbers_but_not_positive_ones() -> None:
    assert arguments.float32("x", math.inf) == math.inf
    assert math.isnan(arguments.float32("x", math.nan))
    for value in (math.inf, math.nan, 0.0, 1e-60, 1e39):
        with pytest.raises(TinyNNValueError, match=r"^x must be a finite number above 0 \(as a float32\), got "):
            arguments.positive("x", value)
    with pytest.raises(TinyNNValueError, match=r"^x must be in the range of a 32-bit float, got 1e"):
        arguments.float32("x", 1e39)
    with pytest.raises(TinyNNValueError, match=r"^x must fit a 64-bit float, got 1000"):
        arguments.float64("x", 10**400)


def test_a_bool_may_come_from_python_or_numpy() -> None:
    assert arguments.boolean("b", np.True_) is True
    for value in (1, 0.0, "True", None):
        with pytest.raises(TinyNNTypeError, match=r"^b must be True or False, got "):
            arguments.boolean("b", value)


def test_a_str_is_compared_by_its_value_even_if_its_class_overrides_comparisons() -> None:
    assert type(arguments.text("t", Loud("v"))) is str
    assert arguments.label("t", Loud("v")) == b"v"
    assert arguments.one_of("t", Loud("a"), ("a", "b")) == "a"
    with pytest.raises(TinyNNValueError, match=r"^t must be one of 'a', 'b', got a value of type Loud"):
        arguments.one_of("t", Loud("c"), ("a", "b"))
    with pytest.raises(TinyNNTypeError, match=r"^t must be a str, got 3"):
        arguments.text("t", 3)


@pytest.mark.parametrize("check", [float_array, int_array])
@pytest.mark.parametrize("value", [None, "12", b"12", {1: 2}, {1}, [True], [1j], [object()], [[1], [1, 2]], [10**30]])
def test_an_array_must_contain_numbers(check: Callable[[str, object, int], Any], value: Any) -> None:
    with pytest.raises(TinyNNError, match=r"^a must (be an array|be a regular array|hold)"):
        check("a", value, 9)


def test_an_array_is_copied_only_if_necessary() -> None:
    for check, dtype in ((float_array, np.float32), (int_array, np.int32)):
        ready = np.arange(6, dtype=dtype).reshape(2, 3)
        assert check("a", ready, 6) is ready
        turned = check("a", ready.T, 6)
        assert turned.flags.c_contiguous
        assert turned.tolist() == ready.T.tolist()
        assert check("a", [], 6).shape == (0,)


@pytest.mark.parametrize("at", [0, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_the_first_number_of_a_large_array_that_is_not_finite_is_found(at: int, wrong: float) -> None:
    values = np.ones((200_001, 1), dtype=np.float32)
    assert not_finite(values) is None
    values[at:] = wrong
    assert not_finite(values) == f"{np.float32(wrong)} at [{at}, 0]"
    assert not_finite(values[::2]) == f"{np.float32(wrong)} at [{(at + 1) // 2}, 0]"

"""The exponential function for sampling: close to the exact value, and the same bits on every machine."""

from __future__ import annotations

import hashlib
import math
from decimal import Context, Decimal

import numpy as np
import numpy.typing as npt
import pytest

from toynn.text.exponential import exp

pytestmark = pytest.mark.quick

Values = npt.NDArray[np.float64]


def spread(n: int) -> Values:
    """Return n values from -708 to 0, most of them small, computed without a C library."""
    part = np.arange(n) / n
    return -708 * part * part * part


def ulps(x: float, y: float) -> float:
    """Return the difference between y and the exact exp(x), in units of the last place of y.

    Decimal's exp is exact enough.
    """
    exact = Context(prec=50).exp(Decimal(x))
    return float(abs(Decimal(y) - exact) / Decimal(math.ulp(y)))


def test_the_error_is_at_most_0_6_ulp() -> None:
    tiny = -(2.0 ** -np.arange(1, 80))
    at_ties = -(np.arange(1, 3000) + 0.5) * math.log(2) / 32  # the arguments at which the reduced argument is largest
    x = np.concatenate([spread(20_000), tiny, at_ties, [-708.0]])
    errors = [ulps(a, b) for a, b in zip(x.tolist(), exp(x).tolist(), strict=True)]
    assert max(errors) < 0.6


def test_the_bits_are_those_recorded() -> None:
    """numpy's exp would fail this test, because it gives other bits on x86-64 with AVX-512 than on aarch64."""
    digest = hashlib.sha256(exp(spread(300_000)).astype("<f8").tobytes()).hexdigest()
    assert digest == "342a1eda65d5af5b50c5490764483df0bef87d16fdfb4e0b4fda3d5e2c246a79"


def test_special_values_have_exact_results() -> None:
    x = np.array([0.0, -0.0, -5e-324, -1e-300, -708.0000001, -1e308, -math.inf])
    assert exp(x).tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert exp(np.array([])).size == 0


def test_the_smallest_result_is_a_normal_number() -> None:
    (smallest,) = exp(np.array([-708.0]))
    assert smallest > np.finfo(np.float64).tiny


def test_the_function_does_not_decrease() -> None:
    x = np.sort(np.concatenate([spread(100_000), -np.arange(1, 3000) * math.log(2) / 32]))
    assert (np.diff(exp(x)) >= 0).all()

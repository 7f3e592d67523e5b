"""AdamW and the sum of squares of a slice have the bits of numpy oracles, and wrong arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stochastic_bf16 import random_bits, rounded
from toynn import AdamW, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn

pytestmark = pytest.mark.quick

F32 = npt.NDArray[np.float32]


def drawn(n: int, seed: int) -> F32:
    return np.random.default_rng([n, seed]).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 1003])
def test_adamw_on_a_slice_has_the_bits_of_its_formula_in_f32(n: int) -> None:
    w, m, g = (drawn(n, i) for i in range(3))
    v = np.abs(drawn(n, 3))
    hp = AdamW(lr=0.1, weight_decay=0.3, bias_correct=True).hp(3)
    alpha, beta1, beta2, eps, decay, beta1h, beta2h = hp.ravel()
    one, factor = np.float32(1.0), np.float32(0.7)
    clipped = g * factor
    want_m = m * beta1 + clipped * (one - beta1)
    want_v = v * beta2 + clipped * clipped * (one - beta2)
    want_w = w * (one - alpha * decay) - alpha * (want_m * beta1h) / (np.sqrt(want_v * beta2h) + eps)
    nn.tnn_slice_adamw(w, m, v, g, hp, float(factor))
    for name, got, want in (("w", w, want_w), ("m", m, want_m), ("v", v, want_v)):
        assert got.tobytes() == want.tobytes(), name


@pytest.mark.parametrize(
    ("size", "first", "end"), [(5000, 0, 64), (5003, 3, 60), (17, 0, 64), (17, 20, 40), (0, 0, 64)]
)
def test_the_squares_of_each_part_are_added_in_four_lanes(size: int, first: int, end: int) -> None:
    limits = [size * part // 64 for part in range(65)]
    whole = drawn(size, 4)
    got = nn.tnn_slice_squares(whole[limits[first] : limits[end]], size, first, end)
    want = np.zeros(64)
    for part in range(first, end):
        of_part = whole[limits[part] : limits[part + 1]].astype(np.float64) ** 2
        lanes, complete = np.zeros(4), of_part.size // 4 * 4
        for at in range(0, complete, 4):
            lanes += of_part[at : at + 4]
        for rest in of_part[complete:]:
            lanes[0] += rest
        want[part] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(("n", "first"), [(0, 0), (1, 5), (8, 0), (1003, 77), (5, 2**31 - 6)])
def test_rounding_has_the_bits_of_the_oracle(n: int, first: int, second: bool) -> None:
    values = drawn(n, 5)
    random = random_bits(7, 12, n, first)
    want = rounded(values, random >> np.uint32(16) if second else random & np.uint32(0xFFFF))
    nn.tnn_slice_round(values, 7, 12, first, second)
    assert values.tobytes() == want.tobytes()


def arguments() -> dict[str, Any]:
    return {**{name: np.zeros(8, dtype=np.float32) for name in "wmvg"}, "hp": np.zeros(7), "factor": 1.0}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            {"w": [1.0]},
            TinyNNTypeError,
            "w must be a writable, contiguous array of float32 .* got list",
        ),
        ({"v": np.zeros(8)}, TinyNNTypeError, r"v must be .* got float64 \(8,\)"),
        ({"m": np.zeros((2, 4), dtype=np.float32)}, TinyNNTypeError, r"m must be .* got float32 \(2, 4\)"),
        ({"g": np.zeros(16, dtype=np.float32)[::2]}, TinyNNTypeError, "g must be a contiguous array"),
        ({"w": np.broadcast_to(np.float32(0), (1,))}, TinyNNTypeError, "w must be a writable"),
        ({"g": np.zeros(7, dtype=np.float32)}, TinyNNValueError, r"g must have as many elements as w \(8\), got 7"),
        ({"hp": np.zeros(6)}, TinyNNValueError, "hp must have 7 numbers, got 6"),
        ({"factor": "x"}, TinyNNTypeError, "factor must be a number, got 'x'"),
    ],
)
def test_wrong_slices_are_refused(change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        nn.tnn_slice_adamw(**{**arguments(), **change})


def test_overlapping_slices_are_refused() -> None:
    given = arguments()
    for name in "mvg":
        with pytest.raises(TinyNNValueError, match=f"{name} must not share memory with another argument"):
            nn.tnn_slice_adamw(**{**given, name: given["w"]})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda g: nn.tnn_slice_squares(g, 64, 9, 16), "g must have the 7 elements of the parts 9 to 15, got 8"),
        (
            lambda g: nn.tnn_slice_squares(g, 64, 9, 8),
            "first and end must be from 0 to 64, and first must be at most end, got 9 and 8",
        ),
        (lambda g: nn.tnn_slice_squares(g, 64, 60, 68), "first and end must be from 0 to 64"),
        (lambda g: nn.tnn_slice_round(g, 1, 1, -1, False), "first must be from 0 to 2147483639, got -1"),
        (lambda g: nn.tnn_slice_round(g, 1, 1, 2**31 - 8, False), "first must be from 0 to 2147483639, got 2147483640"),
        (lambda g: nn.tnn_slice_squares(g, -1, 0, 8), "size must be from 0 to 2147483647, got -1"),
    ],
)
def test_wrong_parts_are_refused(call: Callable[[F32], object], says: str) -> None:
    with pytest.raises(TinyNNValueError, match=says):
        call(np.zeros(8, dtype=np.float32))

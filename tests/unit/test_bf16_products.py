"""Products of bfloat16 operands: every kernel gives the same bits as vdpbf16ps, which a numpy oracle computes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bf16_products import F32, product
from gemm_kernels import kernel, kernels
from toynn import tinynn as nn

KERNELS = kernels()


def bits(x: F32) -> bytes:
    """Return the bits of x, with one form of NaN."""
    return np.where(np.isnan(x), np.float32(np.nan), x).tobytes()


def linear(x: F32, w: F32, *, n_threads: int = 1, bias: F32 | None = None, add: F32 | None = None) -> F32:
    """Return x W^T + bias + add with bfloat16 operands."""
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        tensors = []
        for values in (x, w, bias, add):
            if values is not None:
                declare = nn.tnn_input_1d_f32_persistent if values.ndim == 1 else nn.tnn_input_2d_f32_persistent
                tensors.append(declare(s, *values.shape))
        t_x, t_w = tensors[:2]
        t_bias = tensors[2] if bias is not None else None
        t_add = tensors[-1] if add is not None else None
        nn.tnn_finalize_weights(s)
        for tensor, values in zip(tensors, [one for one in (x, w, bias, add) if one is not None], strict=True):
            nn.tnn_upload_from_float_array(s, tensor, values)
        nn.tnn_tensor_set_bf16_products(t_w)
        y = nn.tnn_fused_linear(s, t_x, [t_w], None if t_bias is None else [t_bias], t_add)
        nn.tnn_realize(s, y)
        nn.tnn_compute(s)
        return nn.download_row_major(s, y, len(x), len(w))


def hostile(draw: np.random.Generator, shape: tuple[int, int], exponents: tuple[int, int]) -> F32:
    """Return random numbers with exponents in a range, and zeros among them."""
    values = draw.standard_normal(shape) * 2.0 ** draw.integers(*exponents, shape)
    return np.where(draw.random(shape) < 0.05, 0.0, values).astype(np.float32)


@pytest.mark.quick
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    "exponents", [(-2, 2), (-75, -52), (-149, 0), (-40, 127)], ids=["usual", "denormal", "tiny", "huge"]
)
def test_every_kernel_has_the_bits_of_the_oracle(name: str, exponents: tuple[int, int]) -> None:
    draw = np.random.default_rng(1)
    with kernel(name), np.errstate(all="ignore"):
        for m, k, n in [(1, 1, 1), (3, 7, 5), (25, 64, 33), (13, 391, 70), (100, 24, 17)]:
            x, w = hostile(draw, (m, k), exponents), hostile(draw, (n, k), exponents)
            assert bits(linear(x, w)) == bits(product(x, w.T)), (m, k, n)


@pytest.mark.parametrize("name", KERNELS)
def test_special_numbers_have_the_bits_of_the_oracle(name: str) -> None:
    specials = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 2.0**-126, -(2.0**-126), 3.39e38, 3.4e38, 1.0, -1.0]
    pairs = np.array(list(itertools.product(specials, repeat=2)), np.float32)
    x = np.concatenate([pairs, pairs[:, :1] * np.ones((1, 2), np.float32)])
    with kernel(name), np.errstate(all="ignore"):
        assert bits(linear(x, pairs)) == bits(product(x, pairs.T))


@pytest.mark.quick
@pytest.mark.parametrize("name", KERNELS)
def test_a_result_is_flushed_only_if_it_is_denormal_after_rounding(name: str) -> None:
    # 2^-126 is the smallest normal number. Sums from 2^-126 - 2^-151 on are rounded to this number, and smaller sums
    # are rounded to denormals. ARM processors flush the results of all these sums to zero. x86 processors flush only
    # the results of the smaller sums.
    least = np.float32(2.0**-126)
    for below, want in ((2.0**-151, least), (2.0**-150, 0.0), (2.0**-152, least), (2.0**-151 * (1 + 2**-7), 0.0)):
        a = np.array([[-(below * 2.0**60), 1.0]], np.float32)
        b = np.array([[2.0**-60, least]], np.float32)
        with kernel(name):
            got = linear(a, b)
        assert got.tobytes() == np.array([[want]], np.float32).tobytes() == product(a, b.T).tobytes(), below


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 110), k=st.integers(1, 800), n=st.integers(1, 150), extras=st.booleans(),
    n_threads=st.integers(1, 3), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_products_of_any_shape_have_the_same_bits_under_every_kernel(
    m: int, k: int, n: int, extras: bool, n_threads: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    x, w = (draw.standard_normal(shape, dtype=np.float32) for shape in ((m, k), (n, k)))
    bias = draw.standard_normal(n, dtype=np.float32) if extras else None
    add = draw.standard_normal((m, n), dtype=np.float32) if extras else None
    results = []
    for name in KERNELS:
        with kernel(name):
            results.append(linear(x, w, n_threads=n_threads, bias=bias, add=add).tobytes())
    assert len(set(results)) == 1
    if m * k * n < 20_000:
        want = product(x, w.T)
        want = want if bias is None or add is None else want + bias + add
        assert results[0] == want.tobytes()

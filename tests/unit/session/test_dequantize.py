"""tnn_dequantize at addresses that are not aligned, as in a slice of a larger array of bytes."""

from __future__ import annotations

import numpy as np
import pytest

import toynn.tinynn as nn

Q4_1 = 3  # a block: two f16 numbers, then 16 bytes with 32 numbers of 4 bits

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("start", range(5))
def test_the_address_of_the_bytes_does_not_matter(start: int) -> None:
    rng = np.random.default_rng(start)
    scale, least = (np.float16(x) for x in rng.normal(size=2))
    packed = rng.integers(0, 256, 16, dtype=np.uint8)
    block = np.concatenate([np.array([scale, least]).view(np.uint8), packed])
    data = np.concatenate([np.zeros(start, np.uint8), block])[start:]

    want = np.concatenate([packed & 15, packed >> 4]).astype(np.float32) * np.float32(scale) + np.float32(least)
    assert nn.tnn_dequantize(Q4_1, data, (32,)).tobytes() == want.tobytes()

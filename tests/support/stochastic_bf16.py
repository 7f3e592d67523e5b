"""An oracle in numpy for stochastic rounding to bfloat16: the same bits as csrc/kernels/stochastic_bf16.h."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint32]


def mixed(x: Bits) -> Bits:
    """Return the hash "lowbias32" of each 32-bit number."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    result: Bits = x ^ (x >> np.uint32(16))
    return result


def random_bits(seed: int, step: int, n: int, first: int = 0) -> Bits:
    """Return 32 random bits for each of the elements first to first + n - 1 of a weight in a step, uint32 (n,)."""
    key = mixed(mixed(np.array([seed], np.uint32)) ^ np.uint32(step))
    return mixed(np.arange(first, first + n, dtype=np.uint32) ^ key)


def rounded(values: Floats, random: Bits) -> Floats:
    """Round finite numbers to bfloat16: up in magnitude if the lower half of their bits exceeds 65535 - random.

    random: numbers below 2^16, in the shape of the values.
    """
    bits = values.view(np.uint32)
    up = bits + random
    up = np.where((up & 0x7F800000) == 0x7F800000, bits, up)
    result: Floats = (up & np.uint32(0xFFFF0000)).view(np.float32)
    return result


def truncated(values: npt.ArrayLike) -> Floats:
    """Return the values without the lower half of their bits: bfloat16 numbers."""
    result: Floats = (np.asarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return result

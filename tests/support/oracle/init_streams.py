"""The two random streams of the initial weights, one value at a time.

This module defines the streams, and toynn must give the same bits. The module uses Python's numbers, because Python's
floats are f64, Python's integers have no limit, and math.log, math.cos and math.sin are the functions of the C library.
numpy's vectorized functions may give other bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def box_muller(uniform: Callable[[], float], n: int, std: float, least_u1: float) -> npt.NDArray[np.float32]:
    """Return n normal random values by the Box-Muller method: for each pair of uniform numbers the value with the
    cosine, then the value with the sine. If n is odd, the last value with a sine is dropped.
    """
    values: list[float] = []
    while len(values) < n:
        u1 = uniform()
        u2 = uniform()
        if u1 < least_u1:
            u1 = least_u1
        r = math.sqrt(-2.0 * math.log(u1))
        theta = 2.0 * math.pi * u2
        values.append(r * math.cos(theta) * std)
        if len(values) < n:
            values.append(r * math.sin(theta) * std)
    return np.array(values, dtype=np.float64).astype(np.float32)


class Lcg31Stream:
    """A stream of uniform numbers (s+1)/2^31, above 0 and at most 1.

    Each number first replaces s by (s*1103515245 + 12345) mod 2^31.
    """

    def __init__(self, seed: int) -> None:
        s = ((seed + 104729) * 2654435761) % 2147483647
        if s <= 0:
            s = seed + 104729
        self.state = s
        for _ in range(8):
            self.uniform()

    def uniform(self) -> float:
        self.state = (self.state * 1103515245 + 12345) % 2**31
        return (self.state + 1) / 2**31

    def gaussian(self, n: int, std: float) -> npt.NDArray[np.float32]:
        return box_muller(self.uniform, n, std, least_u1=0.0)


class XorShift64Stream:
    """The xorshift generator of Marsaglia with the shifts 13, 7 and 17. The state 0 never changes."""

    def __init__(self, seed: int) -> None:
        self.state = seed % 2**64

    def uniform(self) -> float:
        x = self.state
        x ^= (x << 13) % 2**64
        x ^= x >> 7
        x ^= (x << 17) % 2**64
        self.state = x
        return float(x) / 18446744073709551616.0 + 1e-300

    def gaussian(self, n: int, std: float) -> npt.NDArray[np.float32]:
        return box_muller(self.uniform, n, std, least_u1=1e-300)


STREAMS: dict[str, type[Lcg31Stream] | type[XorShift64Stream]] = {
    "lcg31": Lcg31Stream,
    "xorshift64": XorShift64Stream,
}

"""The exponential function for sampling, with the same bits on every machine.

numpy's exp differs in the last bit between CPUs: it has an implementation for each instruction set. This one uses only
additions, multiplications and powers of two, which IEEE 754 defines to the last bit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_LOG2_STEPS = 5
_STEPS = 2**_LOG2_STEPS  # exp(x) = 2^(k / 32) exp(r), with k whole and |r| <= ln 2 / 64
_BLOCK = 4096  # elements computed at once: more would need new memory for each of the operations
_SMALLEST = -708.0  # for a smaller x, exp(x) would not be a normal number, and 0 is returned

_STEPS_PER_E = float.fromhex("0x1.71547652b82fep+5")  # 32 / ln 2
# ln 2 / 32. The first part has 36 bits, so its product with k (15 bits) is exact.
_LOG_STEP, _LOG_STEP_REST = float.fromhex("0x1.62e42fefap-6"), float.fromhex("0x1.cf79abc9e3b3ap-45")


def _powers_of_two() -> tuple[FloatArray, FloatArray]:
    """Return 2^(j / 32) for j = 0 to 31 as the sum of two f64 values, computed with integers."""
    unit = 2**120
    high, rest = [], []
    for j in range(_STEPS):
        power = 2**j * unit**_STEPS
        for _ in range(_LOG2_STEPS):  # five square roots are the 32nd root
            power = math.isqrt(power)
        nearest = power / unit  # a quotient of integers is rounded correctly
        numerator, denominator = nearest.as_integer_ratio()
        high.append(nearest)
        rest.append((power - numerator * (unit // denominator)) / unit)
    return np.array(high), np.array(rest)


_HIGH, _REST = _powers_of_two()


def exp(x: FloatArray) -> FloatArray:
    """Return exp of each element, within 0.6 ulp; x must be flat and at most 0, without NaN. Below -708 it is 0."""
    result = np.empty_like(x)
    for start in range(0, x.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = _exp(x[block])
    return result


def _exp(x: FloatArray) -> FloatArray:
    at = np.maximum(x, _SMALLEST)
    k = np.rint(at * _STEPS_PER_E)
    r = (at - k * _LOG_STEP) - k * _LOG_STEP_REST
    # exp(r) - 1, the Taylor polynomial of degree 6; the next term is below 2^-58
    p = r + r * r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720)))))
    whole = k.astype(np.int32)
    j = whole & (_STEPS - 1)
    y = _HIGH[j] + (_REST[j] + _HIGH[j] * p)
    result: FloatArray = np.where(x < _SMALLEST, 0.0, np.ldexp(y, whole >> _LOG2_STEPS))
    return result

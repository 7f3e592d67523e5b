"""The exponential function for sampling, which returns the same bits on every machine.

numpy.exp has an implementation for each instruction set, and their results differ in the last bit. The function here
uses only additions, multiplications and powers of two. IEEE 754 defines each bit of their results.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_LOG2_STEPS = 5
_STEPS = 2**_LOG2_STEPS  # exp(x) = 2^(k / 32) exp(r), with an integer k and |r| <= ln 2 / 64
_BLOCK = 4096  # elements computed at once; the temporary arrays of larger blocks would take longer to allocate
_SMALLEST = -708.0  # for a smaller x, exp(x) is not a normal f64, so 0 is returned

_STEPS_PER_E = float.fromhex("0x1.71547652b82fep+5")  # 32 / ln 2
# The sum of both numbers is ln 2 / 32. The first number has 36 bits, so its product with k (15 bits) is exact.
_LOG_STEP, _LOG_STEP_REST = float.fromhex("0x1.62e42fefap-6"), float.fromhex("0x1.cf79abc9e3b3ap-45")


def _powers_of_two() -> tuple[FloatArray, FloatArray]:
    """Return 2^(j / 32) for j = 0 to 31 as the sum of two f64 values. The calculation uses integers."""
    unit = 2**120
    high, rest = [], []
    for j in range(_STEPS):
        power = 2**j * unit**_STEPS
        for _ in range(_LOG2_STEPS):  # five square roots give the 32nd root
            power = math.isqrt(power)
        nearest = power / unit  # Python rounds a quotient of integers correctly
        numerator, denominator = nearest.as_integer_ratio()
        high.append(nearest)
        rest.append((power - numerator * (unit // denominator)) / unit)
    return np.array(high), np.array(rest)


_HIGH, _REST = _powers_of_two()


def exp(x: FloatArray) -> FloatArray:
    """Return exp of each element of x, with an error below 0.6 ulp, and 0 for an element below -708.

    x: array (n,) of values of at most 0, without NaN.
    """
    result = np.empty_like(x)
    for start in range(0, x.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = _exp(x[block])
    return result


def _exp(x: FloatArray) -> FloatArray:
    at = np.maximum(x, _SMALLEST)
    k = np.rint(at * _STEPS_PER_E)
    r = (at - k * _LOG_STEP) - k * _LOG_STEP_REST
    # p is the Taylor polynomial of degree 6 of exp(r) - 1; the next term is below 2^-58.
    p = r + r * r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720)))))
    whole = k.astype(np.int32)
    j = whole & (_STEPS - 1)
    y = _HIGH[j] + (_REST[j] + _HIGH[j] * p)
    result: FloatArray = np.where(x < _SMALLEST, 0.0, np.ldexp(y, whole >> _LOG2_STEPS))
    return result

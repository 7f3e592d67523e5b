"""Products of bfloat16 operands in numpy, with the same bits as the instruction vdpbf16ps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_LEAST = 2.0**-126  # the smallest normal f32


def rounded(x: npt.ArrayLike) -> F32:
    """Return x rounded to bfloat16, to nearest even, as float32. A NaN stays a NaN."""
    values = np.asarray(x, np.float32)
    bits = values.view(np.uint32)
    even = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    result: F32 = np.where(np.isnan(values), np.float32(np.nan), even.view(np.float32))
    return result


def _flushed(x: F64) -> F64:
    return np.where(np.abs(x) < _LEAST, np.copysign(0.0, x), x)


def _rounded_to_f32(total: F64, error: F64) -> F64:
    """Return total + error, rounded once to 24 bits. A result below the smallest normal f32 becomes 0."""
    toward = np.where(error > 0, np.inf, -np.inf)
    even = (total.view(np.uint64) & np.uint64(1)) == 0
    # round to odd: the next rounding then gives the result of a single rounding
    odd = np.where((error != 0) & even & np.isfinite(total), np.nextafter(total, toward), total)
    scale = np.where(np.abs(odd) < 1.0, 2.0**100, 1.0)  # scaled up, so that no result is denormal in f32
    small = (odd * scale).astype(np.float32).astype(np.float64) / scale
    return _flushed(small)


def fused(a: F64, b: F64, c: F64) -> F64:
    """Return a * b + c as one f32 operation that replaces denormal operands and results by zeros."""
    a, b, c = _flushed(a), _flushed(b), _flushed(c)
    product = a * b  # exact, because each operand has 8 significant bits
    total = product + c
    part = total - product
    error = np.where(np.isfinite(total), (product - (total - part)) + (c - part), 0.0)
    return _rounded_to_f32(total, error)


def product(a: npt.ArrayLike, b: npt.ArrayLike, start: F32 | None = None) -> F32:
    """Return a (m, k) times b (k, n), float32. start: the initial value of each sum, by default 0."""
    x, y = rounded(a).astype(np.float64), rounded(b).astype(np.float64)
    if x.shape[1] % 2:
        x, y = np.pad(x, ((0, 0), (0, 1))), np.pad(y, ((0, 1), (0, 0)))
    total = np.zeros((x.shape[0], y.shape[1])) if start is None else start.astype(np.float64)
    with np.errstate(all="ignore"):
        for p in range(0, x.shape[1], 2):
            for i in (p + 1, p):  # the instruction adds the product with the odd index first
                total = fused(x[:, i : i + 1], y[i : i + 1], total)
        return total.astype(np.float32)

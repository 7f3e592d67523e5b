"""AdamW, rounding and sums of squares for a part of a weight, in arrays of the caller. These calls need no session."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, FloatArray, boolean, float64, int32, int64, kind_of
from toynn.errors import InternalError, TinyNNTypeError, TinyNNValueError
from toynn.tinynn.arrays import float_array, is_ready
from toynn.tinynn.native import ffi, lib

__all__ = ["tnn_slice_adamw", "tnn_slice_round", "tnn_slice_squares"]

PARTS = 64


def tnn_slice_adamw(
    w: FloatArray, m: FloatArray, v: FloatArray, g: FloatArray, hp: npt.ArrayLike, factor: float
) -> None:
    """Update n elements of a weight and of its moments by AdamW in place, with the same bits as `tnn_fused_adamw`.

    Args:
        w, m, v: the elements and their moments, float32 (n,), contiguous and writable. They must not overlap.
        g: the gradient, float32 (n,), contiguous.
        hp: 7 numbers, as `AdamW.hp` returns them.
        factor: multiplies the gradient, to clip the gradient.

    Raises TinyNNValueError or TinyNNTypeError for a wrong argument.
    """
    row, scale = float_array("hp", hp, 7).ravel(), float64("factor", factor)
    if row.size != 7:
        raise TinyNNValueError(f"hp must have 7 numbers, got {row.size}")
    written = [_flat(name, values, writable=True) for name, values in (("w", w), ("m", m), ("v", v))]
    slices = [*written, _flat("g", g, writable=False)]
    for name, one in zip("mvg", slices[1:], strict=True):
        if one.size != slices[0].size:
            raise TinyNNValueError(f"{name} must have as many elements as w ({slices[0].size}), got {one.size}")
    for i, one in enumerate(slices):
        if any(np.may_share_memory(one, other) for other in written[:i]):
            raise TinyNNValueError(
                f"{'wmvg'[i]} must not share memory with another argument, because the call updates w, m and v"
            )
    w_, m_, v_, g_ = (ffi.from_buffer("float[]", one) for one in slices)
    _check(lib.tnn_slice_adamw(w_, m_, v_, g_, slices[0].size, ffi.from_buffer("float[]", row), scale))


def tnn_slice_round(values: FloatArray, seed: int, step: int, first: int, second: bool) -> None:
    """Round numbers to bfloat16 stochastically, in place, as the optimizer steps round moments in bfloat16.

    Args:
        values: a slice of a moment that a step has computed, float32 (n,), contiguous and writable.
        seed: the seed of the random bits.
        step: the number of the step.
        first: the place of the first number in the weight.
        second: True for a second moment; False for a first moment, or the momentum of Muon.

    Raises TinyNNValueError or TinyNNTypeError for a wrong argument.
    """
    rounded = _flat("values", values, writable=True)
    seed, step, at = int32("seed", seed), int32("step", step), int64("first", first)
    if not 0 <= at <= INT31_MAX - rounded.size:
        raise TinyNNValueError(f"first must be from 0 to {INT31_MAX - rounded.size}, got {at}")
    kind = int(boolean("second", second))
    _check(lib.tnn_slice_round(ffi.from_buffer("float[]", rounded), rounded.size, seed, step, at, kind))


def tnn_slice_squares(g: FloatArray, size: int, first: int, end: int) -> npt.NDArray[np.float64]:
    """Return the sums of squares from which `tnn_fused_grad_norm` computes the norm, float64 (64,).

    Args:
        g: the elements of the parts first to end - 1 of the 64 parts of a gradient, float32 (n,), contiguous. Part i
            begins at element size * i // 64 of the gradient.
        size: the number of elements of the whole gradient.

    The sums of all other parts are 0. Raises TinyNNValueError or TinyNNTypeError for a wrong argument.
    """
    values, whole, begin, stop = (
        _flat("g", g, writable=False),
        int64("size", size),
        int32("first", first),
        int32("end", end),
    )
    if not 0 <= whole <= INT31_MAX:
        raise TinyNNValueError(f"size must be from 0 to {INT31_MAX}, got {whole}")
    if not 0 <= begin <= stop <= PARTS:
        raise TinyNNValueError(
            f"first and end must be from 0 to {PARTS}, and first must be at most end, got {begin} and {stop}"
        )
    n = whole * stop // PARTS - whole * begin // PARTS
    if values.size != n:
        raise TinyNNValueError(f"g must have the {n} elements of the parts {begin} to {stop - 1}, got {values.size}")
    sums = np.zeros(PARTS, dtype=np.float64)
    _check(
        lib.tnn_slice_squares(
            ffi.from_buffer("float[]", values), n, whole, begin, stop, ffi.from_buffer("double[]", sums)
        )
    )
    return sums


def _flat(name: str, values: object, *, writable: bool) -> FloatArray:
    """Return the array, if it is one-dimensional, contiguous and float32. Raises TinyNNTypeError otherwise."""
    kind = "a writable, contiguous" if writable else "a contiguous"
    if not is_ready(values, np.float32) or values.ndim != 1 or not (values.flags.writeable or not writable):
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else kind_of(values)
        raise TinyNNTypeError(f"{name} must be {kind} array of float32 with one dimension, got {found}")
    return values


def _check(code: int) -> None:
    if code != lib.TNN_OK:
        raise InternalError(f"bug in toynn: checked arguments were refused with code {code}; please report it")

"""Apply one operator to numpy matrices: a session is made, computes once, and is freed.

Each function takes array-likes of real numbers with the shape (rows, cols), and returns float32. All functions raise
TinyNNValueError for other shapes and for numbers that do not fit f32, and TinyNNTypeError for other dtypes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, FloatArray, float32
from toynn.errors import TinyNNValueError
from toynn.tinynn.arrays import float_array
from toynn.tinynn.calls import operators
from toynn.tinynn.calls.declare import tnn_finalize_weights, tnn_input_2d_f32
from toynn.tinynn.calls.forward import tnn_compute, tnn_realize
from toynn.tinynn.data import download_row_major, upload_row_major
from toynn.tinynn.session import Session, Tensor

__all__ = ["add", "gelu", "matmul", "mul", "rms_norm", "scale", "silu", "softmax", "transpose"]


def matmul(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Return a @ b: (m, k), (k, n) -> (m, n)."""
    x, y = _matrix("a", a), _matrix("b", b)
    if x.shape[1] != y.shape[0]:
        raise TinyNNValueError(f"b must have {x.shape[1]} rows, because the shape of a is {x.shape}, got {y.shape}")
    return _computed(lambda s, t_x, t_y: operators.tnn_matmul(s, t_y, t_x), x, np.ascontiguousarray(y.T))


def add(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Return a + b, for matrices of the same shape."""
    return _computed(operators.tnn_add, *_two(a, b))


def mul(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Return a * b, element by element, for matrices of the same shape."""
    return _computed(operators.tnn_mul, *_two(a, b))


def gelu(a: npt.ArrayLike) -> FloatArray:
    """Return the GELU of each element, by ggml's tanh approximation."""
    return _computed(operators.tnn_gelu, _matrix("a", a))


def silu(a: npt.ArrayLike) -> FloatArray:
    """Return a / (1 + exp(-a))."""
    return _computed(operators.tnn_silu, _matrix("a", a))


def softmax(a: npt.ArrayLike) -> FloatArray:
    """Return the softmax of each row."""
    return _computed(operators.tnn_softmax, _matrix("a", a))


def scale(a: npt.ArrayLike, factor: float) -> FloatArray:
    """Return a * factor."""
    x, f = _matrix("a", a), float32("factor", factor)
    return _computed(lambda s, t: operators.tnn_scale(s, t, f), x)


def transpose(a: npt.ArrayLike) -> FloatArray:
    """Return the transposed matrix: (m, n) -> (n, m)."""
    return _computed(operators.tnn_transpose, _matrix("a", a))


def rms_norm(x: npt.ArrayLike, gamma: npt.ArrayLike, eps: float) -> FloatArray:
    """Return gamma * x / sqrt(mean(x^2) + eps), row by row: (n, d), (d,) -> (n, d)."""
    rows, e = _matrix("x", x), float32("eps", eps)
    factors = float_array("gamma", gamma, INT31_MAX)
    if factors.shape not in ((rows.shape[1],), (1, rows.shape[1])):
        raise TinyNNValueError(
            f"gamma must have shape ({rows.shape[1]},) for x of shape {rows.shape}, got {factors.shape}"
        )
    return _computed(lambda s, t, g: operators.tnn_rms_norm(s, t, g, e), rows, factors.reshape(1, -1))


def _matrix(name: str, value: npt.ArrayLike) -> FloatArray:
    array = float_array(name, value, INT31_MAX)
    if array.ndim != 2 or array.size == 0:
        raise TinyNNValueError(f"{name} must be a matrix of at least one element, got shape {array.shape}")
    return array


def _two(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = _matrix("a", a), _matrix("b", b)
    if x.shape != y.shape:
        raise TinyNNValueError(f"b must have the shape of a, {x.shape}, got {y.shape}")
    return x, y


def _computed(operator: Callable[..., Tensor], *operands: FloatArray) -> FloatArray:
    """Return the operator's result for matrices, in a session of its own."""
    with Session() as s:
        tnn_finalize_weights(s)
        tensors = [tnn_input_2d_f32(s, *one.shape) for one in operands]
        out = operator(s, *tensors)
        tnn_realize(s, out)
        for tensor, one in zip(tensors, operands, strict=True):
            upload_row_major(s, tensor, one)
        tnn_compute(s)
        return download_row_major(s, out, out.ne[1], out.ne[0])

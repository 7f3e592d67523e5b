"""ggml's ids of the dtypes that tensors can have, and the size of a row."""

from __future__ import annotations

from toynn.arguments import int32, int64
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.tinynn.native import lib

__all__ = ["TNN_BF16", "TNN_F16", "TNN_F32", "TNN_I32", "tnn_row_size"]

TNN_F32 = lib.TNN_F32
TNN_F16 = lib.TNN_F16
TNN_I32 = lib.TNN_I32
TNN_BF16 = lib.TNN_BF16


def tnn_row_size(dtype: int, n: int) -> int:
    """Return how many bytes n elements of a row take in a dtype of ggml, for example 0 (F32) or 8 (Q8_0).

    Raises:
        TinyNNTypeError: an unknown dtype.
        TinyNNValueError: n is not a positive multiple of the dtype's block, or above 2^31 - 1.
    """
    size = lib.tnn_row_size(int32("dtype", dtype), int64("n", n))
    if size == -lib.TNN_E_TYPE:
        raise TinyNNTypeError(f"dtype must be one of ggml's dtypes, for example 0 (F32) or 8 (Q8_0), got {dtype}")
    if size < 0:
        raise TinyNNValueError(f"n must be a multiple of the block of dtype {dtype}, from 1 to 2^31 - 1, got {n}")
    return size

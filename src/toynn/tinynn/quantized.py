"""Convert numbers of ggml's types to f32."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, int32, int64, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.tinynn.calls.types import tnn_type_block_nbytes, tnn_type_block_size, tnn_type_name
from toynn.tinynn.memory import new_array
from toynn.tinynn.native import ffi, lib

__all__ = ["tnn_dequantize"]


def tnn_dequantize(dtype: int, data: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> FloatArray:
    """Return stored numbers of a type of ggml as a float32 array. Each NaN becomes the same bits, 0x7fc00000.

    Args:
        dtype: ggml's number of the type.
        data: the stored bytes, one-dimensional and contiguous.
        shape: the shape of the result. Its last dimension is a multiple of the block size of the type.

    Raises:
        TinyNNTypeError: `data` is not such an array.
        TinyNNValueError: the type cannot be converted to f32, or `data` does not have the size of that many numbers.
        TinyNNMemoryError: there is not enough memory for the result.
    """
    kind = int32("dtype", dtype)
    name = tnn_type_name(kind)
    if name is None:
        raise TinyNNValueError(f"dtype = {kind} is not a type that can be converted to f32")
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 1 and data.flags.c_contiguous):
        raise TinyNNTypeError(f"data must be a contiguous one-dimensional array of uint8, got {kind_of(data)}")
    if not isinstance(shape, tuple):
        raise TinyNNTypeError(f"shape must be a tuple, got {kind_of(shape)}")
    sizes = tuple(int64(f"shape[{i}]", size) for i, size in enumerate(shape))
    block, n = tnn_type_block_size(kind), math.prod(sizes)
    if min(sizes, default=0) < 1 or sizes[-1] % block or data.size != n // block * tnn_type_block_nbytes(kind):
        raise TinyNNValueError(f"data has {data.size} bytes, which are not the numbers of shape {sizes} in {name}")
    if data.ctypes.data % 4 != 0:
        # A block has fields of up to 4 bytes, which C may read only at an aligned address.
        aligned = new_array("data", data.size, np.uint8, f"{data.size} bytes at an aligned address")
        aligned[:] = data
        data = aligned
    result = new_array("data", n, np.float32, f"{n} numbers as f32")
    out = ffi.from_buffer("float[]", result, require_writable=True)
    code = lib.tnn_dequantize(kind, ffi.from_buffer("uint8_t[]", data), data.size, out, n)
    if code != lib.TNN_OK:
        raise TinyNNValueError(f"data cannot be converted from {name}")
    return result.reshape(sizes)

"""Convert numbers of ggml's types to f32, and f32 to these types."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, int32, int64, kind_of, not_finite
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.tinynn.calls.types import tnn_type_block_nbytes, tnn_type_block_size, tnn_type_name
from toynn.tinynn.memory import new_array
from toynn.tinynn.native import ffi, lib

__all__ = ["tnn_dequantize", "tnn_quantize"]


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
        raise TinyNNValueError(f"dtype must be the number of a type of ggml that can be converted to f32, got {kind}")
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 1 and data.flags.c_contiguous):
        raise TinyNNTypeError(f"data must be a contiguous one-dimensional array of uint8, got {kind_of(data)}")
    if not isinstance(shape, tuple):
        raise TinyNNTypeError(f"shape must be a tuple, got {kind_of(shape)}")
    sizes = tuple(int64(f"shape[{i}]", size) for i, size in enumerate(shape))
    block, n = tnn_type_block_size(kind), math.prod(sizes)
    if min(sizes, default=0) < 1 or sizes[-1] % block or data.size != n // block * tnn_type_block_nbytes(kind):
        raise TinyNNValueError(
            f"data has {data.size} bytes, which do not fit type {name} and shape {sizes}: each row must consist of "
            f"blocks, each of {block} numbers in {tnn_type_block_nbytes(kind)} bytes"
        )
    if data.ctypes.data % 4 != 0:
        # A block has fields of up to 4 bytes, which C may read only at an aligned address.
        aligned = new_array("data", data.size, np.uint8, f"{data.size} bytes at an aligned address")
        aligned[:] = data
        data = aligned
    result = new_array("data", n, np.float32, f"{n} numbers as f32")
    out = ffi.from_buffer("float[]", result, require_writable=True)
    code = lib.tnn_dequantize(kind, ffi.from_buffer("uint8_t[]", data), data.size, out, n)
    if code != lib.TNN_OK:
        raise TinyNNValueError(
            f"data of the type {name} cannot be converted to f32: ggml refused the {data.size} bytes"
        )
    return result.reshape(sizes)


def tnn_quantize(dtype: int, values: FloatArray) -> npt.NDArray[np.uint8]:
    """Return float32 numbers as the stored bytes of a type of ggml, one-dimensional.

    ggml converts them, without an importance matrix. In quantized types, numbers smaller than 2^-60 count as 0.

    Args:
        dtype: ggml's number of the type.
        values: a contiguous float32 array, whose last dimension is a multiple of the block size of the type.

    Raises:
        TinyNNTypeError: `values` is not such an array.
        TinyNNValueError: ggml cannot convert f32 to the type without tables or an importance matrix; the array is
            empty, or has another last dimension; a number is NaN, infinite, or too large for the type.
        TinyNNMemoryError: there is not enough memory for the result.
    """
    kind = int32("dtype", dtype)
    name = tnn_type_name(kind)
    if not (isinstance(values, np.ndarray) and values.dtype == np.float32 and values.flags.c_contiguous):
        raise TinyNNTypeError(f"values must be a contiguous array of float32, got {kind_of(values)}")
    probe = ffi.new("uint8_t[]", 0)
    if name is None or lib.tnn_quantize(kind, ffi.new("float[]", 0), 0, probe, 0) != lib.TNN_OK:
        described = kind if name is None else f"{kind} ({name})"
        raise TinyNNValueError(f"f32 cannot be converted to dtype = {described}; use for example 8 (q8_0)")
    block = tnn_type_block_size(kind)
    if values.size == 0 or values.ndim == 0 or values.shape[-1] % block:
        raise TinyNNValueError(
            f"values has shape {values.shape}: the last dimension must be a positive multiple of {block} for {name}"
        )
    nbytes = values.size // block * tnn_type_block_nbytes(kind)
    stored = new_array("data", nbytes, np.uint8, f"{values.size} numbers in {name}")
    out = ffi.from_buffer("uint8_t[]", stored, require_writable=True)
    if lib.tnn_quantize(kind, ffi.from_buffer("float[]", values), values.size, out, nbytes) != lib.TNN_OK:
        if (wrong := not_finite(values)) is not None:
            raise TinyNNValueError(f"values must hold only finite numbers to be converted, got {wrong}")
        raise TinyNNValueError(
            f"values contains {float(np.abs(values).max()):g}, which is too large for {name}; use another dtype"
        )
    return stored

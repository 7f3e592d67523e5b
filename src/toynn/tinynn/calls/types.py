# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""The number types of ggml, such as the quantized types of GGUF files. These calls need no session."""

from __future__ import annotations

from toynn.arguments import int32
from toynn.tinynn.native import lib, optional_text


def tnn_type_name(dtype: int) -> str | None:
    """Return ggml's name of a type that can be converted to f32, for example "q4_K", or None."""
    return optional_text(lib.tnn_type_name(int32("dtype", dtype)))


def tnn_type_block_size(dtype: int) -> int:
    """Return how many numbers a block of the type has; 0 if `tnn_type_name` has no name for the type."""
    return lib.tnn_type_block_size(int32("dtype", dtype))


def tnn_type_block_nbytes(dtype: int) -> int:
    """Return the size of a block of the type in bytes; 0 if `tnn_type_name` has no name for the type."""
    return lib.tnn_type_block_nbytes(int32("dtype", dtype))

# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Declare persistent tensors before `tnn_finalize_weights`. Their values are zero until they are uploaded. Declare the
inputs of a graph after `tnn_finalize_weights`. Each input must be uploaded before the graph computes, and keeps its
values for later computes. A session without persistent tensors needs no `tnn_finalize_weights`: the declaration of
the first input does the same.

All these calls raise TinyNNValueError for a size that is not positive or too large, and SessionError if they are called
at the wrong time.
"""

from __future__ import annotations

from toynn.arguments import int32, int64
from toynn.tinynn.native import lib
from toynn.tinynn.session import Session, Tensor, built, status


def tnn_input_1d_f32_persistent(s: Session, n: int) -> Tensor:
    """Declare a weight [n]."""
    return built(s, lib.tnn_input_1d_f32_persistent, int64("n", n))


def tnn_input_2d_f32_persistent(s: Session, rows: int, cols: int) -> Tensor:
    """Declare a weight, a row-major (rows, cols) matrix: its shape is [cols, rows]."""
    return built(s, lib.tnn_input_2d_f32_persistent, int64("rows", rows), int64("cols", cols))


def tnn_input_3d_f32_persistent(s: Session, ne2: int, rows: int, cols: int) -> Tensor:
    """Declare a weight of ne2 row-major (rows, cols) matrices: its shape is [cols, rows, ne2]."""
    return built(s, lib.tnn_input_3d_f32_persistent, int64("ne2", ne2), int64("rows", rows), int64("cols", cols))


def tnn_input_4d_f32_persistent(s: Session, ne3: int, ne2: int, rows: int, cols: int) -> Tensor:
    """Declare a weight of ne3 times ne2 row-major (rows, cols) matrices: its shape is [cols, rows, ne2, ne3]."""
    return built(
        s,
        lib.tnn_input_4d_f32_persistent,
        int64("ne3", ne3),
        int64("ne2", ne2),
        int64("rows", rows),
        int64("cols", cols),
    )


def tnn_input_1d_i32_persistent(s: Session, n: int) -> Tensor:
    """Declare a persistent tensor of ids, i32 [n]."""
    return built(s, lib.tnn_input_1d_i32_persistent, int64("n", n))


def tnn_input_2d_persistent_typed(s: Session, rows: int, cols: int, dtype: int) -> Tensor:
    """Declare a weight of dtype TNN_F32, TNN_F16 or TNN_BF16, a row-major (rows, cols) matrix: its shape is [cols,
    rows].

    Raises:
        TinyNNTypeError: another dtype.
    """
    return built(s, lib.tnn_input_2d_persistent_typed, int64("rows", rows), int64("cols", cols), int32("dtype", dtype))


def tnn_kv_cache(s: Session, rows: int, cols: int, dtype: int) -> Tensor:
    """Declare a cache of keys and values for `tnn_fused_attention_cached`, of dtype TNN_F32 or TNN_F16 and of shape
    [cols, rows].

    A cache is a persistent tensor whose pages get memory from the system when they are first written.

    Raises:
        TinyNNTypeError: another dtype.
    """
    return built(s, lib.tnn_kv_cache, int64("rows", rows), int64("cols", cols), int32("dtype", dtype))


def tnn_rope_freq_factors_alloc(s: Session, n: int) -> Tensor:
    """Declare a weight [n] for the frequency factors of `tnn_rope_ext`.

    The factors are zero until they are uploaded, and division by zero gives infinite angles: upload the factors before
    the graph computes.
    """
    return built(s, lib.tnn_rope_freq_factors_alloc, int64("n", n))


def tnn_input_1d_persistent_mmap(s: Session, n: int, dtype: int, offset: int) -> Tensor:
    """Declare a weight [n] that is mapped from the attached file.

    No call can write to the weight. dtype is ggml's number of the type: F32, F16, BF16, or a quantized type that ggml
    multiplies.

    Args:
        n: number of elements.
        dtype: type of the elements.
        offset: position of the first byte in the file.

    Raises:
        TinyNNTypeError: another dtype.
        TinyNNValueError: the tensor ends beyond the file, the offset is not aligned, or a row is not a whole number of
            blocks.
        SessionError: no file is attached.
    """
    return built(s, lib.tnn_input_1d_persistent_mmap, int64("n", n), int32("dtype", dtype), int64("offset", offset))


def tnn_input_2d_persistent_mmap(s: Session, rows: int, cols: int, dtype: int, offset: int) -> Tensor:
    """Declare a weight [cols, rows] that is mapped from the attached file; see `tnn_input_1d_persistent_mmap`.

    Args:
        rows: number of rows.
        cols: elements of a row.
        dtype: type of the elements.
        offset: position of the first byte in the file.
    """
    return built(
        s,
        lib.tnn_input_2d_persistent_mmap,
        int64("rows", rows),
        int64("cols", cols),
        int32("dtype", dtype),
        int64("offset", offset),
    )


def tnn_input_3d_persistent_mmap(s: Session, matrices: int, rows: int, cols: int, dtype: int, offset: int) -> Tensor:
    """Declare a weight [cols, rows, matrices] that is mapped from the attached file; see
    `tnn_input_1d_persistent_mmap`.

    Args:
        matrices: number of matrices.
        rows: rows of a matrix.
        cols: elements of a row.
        dtype: type of the elements.
        offset: position of the first byte in the file.
    """
    return built(
        s,
        lib.tnn_input_3d_persistent_mmap,
        int64("matrices", matrices),
        int64("rows", rows),
        int64("cols", cols),
        int32("dtype", dtype),
        int64("offset", offset),
    )


def tnn_finalize_weights(s: Session) -> None:
    """Allocate the weights buffer, once, and fill it with zeros.

    Raises:
        TinyNNMemoryError: the memory cannot be allocated; the session stays as it was.
        SessionError: the weights are finalized already.
    """
    status(s, lib.tnn_finalize_weights)


def tnn_input_1d_f32(s: Session, n: int) -> Tensor:
    """Declare an input of the graph, [n]."""
    return built(s, lib.tnn_input_1d_f32, int64("n", n))


def tnn_input_2d_f32(s: Session, rows: int, cols: int) -> Tensor:
    """Declare an input of the graph, a row-major (rows, cols) matrix: its shape is [cols, rows]."""
    return built(s, lib.tnn_input_2d_f32, int64("rows", rows), int64("cols", cols))


def tnn_input_1d_i32(s: Session, n: int) -> Tensor:
    """Declare an input of the graph, i32 [n]."""
    return built(s, lib.tnn_input_1d_i32, int64("n", n))


def tnn_input_1d_i32_ctx(s: Session, n: int) -> Tensor:
    """Declare an input of the graph, i32 [n], as `tnn_input_1d_i32` does.

    The Ruby project toy has both calls.
    """
    return built(s, lib.tnn_input_1d_i32_ctx, int64("n", n))

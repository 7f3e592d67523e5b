"""Stored numbers of ggml's types: random bytes whose values are finite, and their values by the gguf package."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

Bytes = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

# All types that ggml converts to f32 and the gguf package dequantizes.
TYPES = [
    kind
    for kind in GGMLQuantizationType
    if kind.name
    not in ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")  # types only for intermediate values, and integer types
    and kind.name not in ("Q1_0", "Q2_0")  # the gguf package cannot dequantize them
]
ROW = 512  # a multiple of each block size


def values_of(kind: GGMLQuantizationType, stored: Bytes) -> Values:
    """Return the values of rows of stored numbers."""
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(dequantize(stored, kind), dtype=np.float32)


def random_bytes(kind: GGMLQuantizationType, rows: int, seed: int, cols: int = ROW) -> Bytes:
    """Return random bytes, (rows, bytes of a row). Some scales are NaN or infinite."""
    block, nbytes = GGML_QUANT_SIZES[kind]
    return np.random.default_rng(seed).integers(0, 256, (rows, cols // block * nbytes), dtype=np.uint8)


def random_blocks(kind: GGMLQuantizationType, rows: int, seed: int, cols: int = ROW) -> tuple[Bytes, Values]:
    """Return random rows, and their values, which are finite and at most 100: each block is drawn until it fits."""
    block, nbytes = GGML_QUANT_SIZES[kind]
    blocks = random_bytes(kind, rows * cols // block, seed, block)
    numbers = np.random.default_rng(seed + 1)
    while True:
        values = values_of(kind, blocks)
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(values) <= 100).all(axis=1)
        if not wrong.any():
            return blocks.reshape(rows, -1), values.reshape(rows, cols)
        blocks[wrong] = numbers.integers(0, 256, (int(wrong.sum()), nbytes), dtype=np.uint8)

"""Read the weights of an open GGUF file as f32, some rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from toynn.arguments import FloatArray
from toynn.interop.finite_blocks import refuse_not_finite, surely_finite
from toynn.interop.gguf_model import GgufModel
from toynn.interop.rope_order import to_halves
from toynn.interop.toy_format import stored_names
from toynn.model.weights import Weight
from toynn.tinynn import TNN_F32, tnn_dequantize

_PIECE = 1 << 19  # number of values that are converted at once; they stay in the CPU's cache until they are copied


def pieces_of(file: GgufModel, weight: Weight, halves: bool) -> Iterator[FloatArray]:
    """Yield the rows of a weight in toynn's order, some at a time, or a whole vector. The file must have the weight.

    halves: whether the rows of q and k have the order "halves" in the file (see `rope_order`).

    Raises FileFormatError, without the path, if a number is NaN or infinite, or if the file became shorter. Raises
    TinyNNMemoryError or MemoryError if there is not enough memory.
    """
    reorders = weight.rotated_heads > 0 and not halves
    for name in stored_names(weight, file.tensors):
        rows, *cols = file.tensors[name].shape
        together = rows // weight.rotated_heads if reorders else 1  # the rows of a head are reordered together
        step = max(_PIECE // math.prod(cols) // together, 1) * together if cols else rows
        for first in range(0, rows, step):
            n = min(step, rows - first)
            values = _finite_rows(file, name, first, n)
            yield to_halves(values, n // together) if reorders else values


def _finite_rows(file: GgufModel, name: str, first: int, n: int) -> FloatArray:
    """Return n rows of a tensor as float32. Raises FileFormatError if a number is NaN or infinite."""
    tensor = file.tensors[name]
    stored, shape = file.stored_rows(name, first, n), (n, *tensor.shape[1:])
    finite = surely_finite(tensor.type, stored)
    if finite and tensor.type == TNN_F32:
        return stored.view(np.float32).reshape(shape)
    values = tnn_dequantize(tensor.type, stored, shape)
    if not finite:
        refuse_not_finite(name, values, first)
    return values

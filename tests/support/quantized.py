"""Stored numbers of ggml's types: random finite numbers, the values that the gguf package reads, and a model."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from gguf_bytes import F32, STRING, U32, GgufBytes, scalar

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
    """Return random rows, and their values. Blocks are drawn until all values are finite and between -100 and 100."""
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


def quantized_base(kind: GGMLQuantizationType, *, rotated: bool = False) -> GgufBytes:
    """Return a llama model with one layer, whose matrices are stored in this type.

    rotated: the matrices of q and k have this type too; otherwise they are F32.
    """
    d, heads, d_ff, vocab = 256, 4, 256, 8
    file = GgufBytes()
    for key, value in {
        "general.architecture": scalar(STRING, "llama"),
        "llama.block_count": scalar(U32, 1),
        "llama.context_length": scalar(U32, 16),
        "llama.embedding_length": scalar(U32, d),
        "llama.feed_forward_length": scalar(U32, d_ff),
        "llama.attention.head_count": scalar(U32, heads),
        "llama.attention.layer_norm_rms_epsilon": scalar(F32, 1e-5),
        "tokenizer.ggml.model": scalar(STRING, "no_vocab"),
    }.items():
        file.values.append((key, value))
    rows = {"token_embd": vocab, "blk.0.attn_v": d, "blk.0.attn_output": d, "blk.0.ffn_gate": d_ff,
            "blk.0.ffn_up": d_ff, "blk.0.ffn_down": d}  # fmt: skip
    if rotated:
        rows |= {"blk.0.attn_q": d, "blk.0.attn_k": d}
    for seed, (name, n) in enumerate(rows.items()):
        stored, _ = random_blocks(kind, n, 2 * seed, d)
        file.tensors.append((f"{name}.weight", [d, n], int(kind), None, stored.tobytes()))
    rng = np.random.default_rng(1)
    for name in ("attn_q", "attn_k") if not rotated else ():
        values = rng.normal(0, 0.05, d * d).astype("<f4")
        file.tensors.append((f"blk.0.{name}.weight", [d, d], 0, None, values.tobytes()))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        file.tensors.append((f"{name}.weight", [d], 0, None, struct.pack(f"<{d}f", *[0.05] * d)))
    return file

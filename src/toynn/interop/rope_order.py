"""Convert the order of rows within a head of q and k.

RoPE rotates pairs of rows. toynn and Hugging Face pair row i of a head with row i + d_head/2 (NEOX, halves). The
`llama` architecture of llama.cpp pairs row 2i with row 2i + 1 (normal, interleaved). The values are the same.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from toynn.model.config import SmolLM2Config

Floats = npt.NDArray[np.float32]

_TURNED = re.compile(r"^blk\.\d+\.attn_(?P<x>[qk])\.(weight|bias)$")


def turned_heads(name: str, cfg: SmolLM2Config) -> int:
    """How many heads the rows of this weight are, if RoPE turns what it gives; otherwise 0."""
    match = _TURNED.match(name)
    if match is None:
        return 0
    return cfg.n_heads if match["x"] == "q" else cfg.n_kv


def to_interleaved(rows: Floats, n_heads: int) -> Floats:
    """Return a copy of rows (n_heads * d_head, ...) in interleaved order; the input is in halves."""
    halves = rows.reshape(n_heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def to_halves(rows: Floats, n_heads: int) -> Floats:
    """Return a copy of rows (n_heads * d_head, ...) in halves; the input is interleaved."""
    pairs = rows.reshape(n_heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)

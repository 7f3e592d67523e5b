"""Convert the order of the rows within each head of q and k between toynn and llama.cpp.

RoPE rotates pairs of rows. toynn and Hugging Face pair row i of a head with row i + d_head/2 ("NEOX"; this order is
called "halves"). The `llama` architecture of llama.cpp pairs row 2i with row 2i + 1 ("normal"; this order is called
"interleaved"). Only the order of the rows differs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def to_interleaved(rows: Floats, n_heads: int) -> Floats:
    """Return a copy of rows (n_heads * d_head, ...), reordered from halves to interleaved."""
    halves = rows.reshape(n_heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def to_halves(rows: Floats, n_heads: int) -> Floats:
    """Return a copy of rows (n_heads * d_head, ...), reordered from interleaved to halves."""
    pairs = rows.reshape(n_heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)

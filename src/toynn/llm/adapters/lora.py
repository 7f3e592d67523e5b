"""LoRA: the initial values of its matrices. The graph of an adapter is in `llm/per_head/graph.py`.

The random numbers are those of the Ruby project toy: a 31-bit LCG that starts from the raw seed and discards no
numbers. Each initial value uses two uniform numbers, u1 and u2, and is init_scale * sqrt(-2 ln u1) * cos(2 pi u2),
computed in f64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, integer, positive
from toynn.model.weights import ADAPTER_B, Weight

_A, _C, _BITS = 1103515245, 12345, 31
_MASK = (1 << _BITS) - 1


def initial_adapters(seed: int, init_scale: float) -> Callable[[Weight], FloatArray]:
    """Return a function that returns the initial values of a matrix: random numbers for A, zeros for B.

    The numbers for all A come from one random stream, so the function must be called for the matrices in the order of
    their declaration.

    Raises TinyNNValueError or TinyNNTypeError for a wrong argument.
    """
    state = integer("seed", seed, -(2**63), 2**63 - 1) & _MASK
    scale = positive("init_scale", init_scale)

    def values(weight: Weight) -> FloatArray:
        nonlocal state
        if weight.adapter == ADAPTER_B:
            return np.zeros(weight.size, dtype=np.float32)
        states = _lcg31(state, 2 * math.prod(weight.size))
        state = int(states[-1])
        u1, u2 = ((states.reshape(-1, 2).T + 1) / 2.0**_BITS).tolist()
        # Python's log and cos give the same bits as the C library, but numpy's vectorized functions do not always.
        radius = scale * np.sqrt(-2.0 * np.array([math.log(u) for u in u1]))
        drawn: FloatArray = (radius * np.array([math.cos(2.0 * math.pi * u) for u in u2])).astype(np.float32)
        return drawn.reshape(weight.size)

    return values


def _lcg31(state: int, n: int) -> npt.NDArray[np.int64]:
    """Return the n states that follow `state`. The next state after s is (s * 1103515245 + 12345) mod 2^31."""
    # Each pass doubles the number of known states: if s_k = a s_0 + c, then s_(j + k) = a s_j + c.
    states = np.empty(n, dtype=np.uint64)
    states[0] = (state * _A + _C) & _MASK
    a, c, known = _A, _C, 1
    while known < n:
        count = min(known, n - known)
        states[known : known + count] = (states[:count] * np.uint64(a) + np.uint64(c)) & np.uint64(_MASK)
        a, c, known = (a * a) & _MASK, (a * c + c) & _MASK, known + count
    return states.astype(np.int64)

"""The random streams of the reference's initialisation, as C has them. Needs no session."""

from __future__ import annotations

import numpy as np

from toynn.errors import InternalError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError
from toynn.tinynn.arguments import FloatArray, int32, int64, kind_of, real
from toynn.tinynn.native import ffi, lib, text

TNN_RANDOM_LCG31: int = lib.TNN_RANDOM_LCG31
TNN_RANDOM_XORSHIFT64: int = lib.TNN_RANDOM_XORSHIFT64


class RandomState:
    """State of one stream, moved on by `tnn_random_gaussian`."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: int, state: int) -> None:
        self.kind = kind
        self.state = state


def tnn_random_seed(kind: int, seed: int) -> RandomState:
    """A new stream of kind TNN_RANDOM_LCG31 or TNN_RANDOM_XORSHIFT64.

    Raises TinyNNValueError for another kind or a seed beyond int64.
    """
    state = ffi.new("uint64_t *")
    _check(lib.tnn_random_seed(int32("kind", kind), int64("seed", seed), state))
    return RandomState(int32("kind", kind), int(state[0]))


def tnn_random_gaussian(stream: RandomState, std: float, n: int) -> FloatArray:
    """n values of N(0, std^2) as float32 (n,); the stream moves on.

    Each call starts a fresh Box-Muller pair, and an odd n drops the last sine. Raises TinyNNValueError for a negative n
    or a std that is negative or not finite, TinyNNMemoryError without the memory.
    """
    if not isinstance(stream, RandomState):
        raise TinyNNTypeError(f"stream must be a RandomState, got {kind_of(stream)}")
    count, spread = int64("n", n), real("std", std)
    if count < 0:
        raise TinyNNValueError(f"n must be at least 0, got {count}")
    if not 0.0 <= spread < float("inf"):
        raise TinyNNValueError(f"std must be finite and at least 0, got {spread!r}")
    try:
        values = np.empty(count, dtype=np.float32)
    except (MemoryError, ValueError) as error:
        raise TinyNNMemoryError(f"n: no memory for {count} random values") from error
    if count == 0:
        return values
    state = ffi.new("uint64_t *", stream.state)
    buffer = ffi.from_buffer("float[]", values, require_writable=True)
    _check(lib.tnn_random_gaussian(stream.kind, state, spread, buffer, count))
    stream.state = int(state[0])
    return values


def _check(code: int) -> None:
    if code != lib.TNN_OK:
        message = text(lib.tnn_last_error(ffi.NULL))
        raise (TinyNNValueError if code == lib.TNN_E_VALUE else InternalError)(message)

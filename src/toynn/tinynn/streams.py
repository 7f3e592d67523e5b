"""The random streams from which the Ruby project toy draws initial weights. These calls need no session."""

from __future__ import annotations

import numpy as np

from toynn.arguments import FloatArray, float64, int32, int64, integer, kind_of
from toynn.errors import InternalError, TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.tinynn.memory import new_array
from toynn.tinynn.native import ffi, lib

__all__ = ["TNN_RANDOM_LCG31", "TNN_RANDOM_XORSHIFT64", "RandomState", "tnn_random_gaussian", "tnn_random_seed"]

TNN_RANDOM_LCG31 = lib.TNN_RANDOM_LCG31
TNN_RANDOM_XORSHIFT64 = lib.TNN_RANDOM_XORSHIFT64


class RandomState(Initialised):
    """The state of one random stream. `tnn_random_gaussian` advances it."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: int, state: int) -> None:
        self.kind = kind
        self.state = state


def tnn_random_seed(kind: int, seed: int) -> RandomState:
    """Return a new stream of kind TNN_RANDOM_LCG31 or TNN_RANDOM_XORSHIFT64.

    Raises TinyNNValueError for another kind or a seed that does not fit int64.
    """
    state, checked = ffi.new("uint64_t *"), _kind("kind", kind)
    _check(lib.tnn_random_seed(checked, int64("seed", seed), state))
    return RandomState(checked, int(state[0]))


def tnn_random_gaussian(stream: RandomState, std: float, n: int) -> FloatArray:
    """Return n values of N(0, std^2) as float32 (n,), and advance the stream.

    Each call starts a new Box-Muller pair of a cosine and a sine, and an odd n drops the last sine.

    Raises TinyNNValueError for a negative n or a std that is negative or not finite, or TinyNNMemoryError if the memory
    cannot be allocated.
    """
    if not isinstance(stream, RandomState):
        raise TinyNNTypeError(f"stream must be a RandomState, got {kind_of(stream)}")
    count, spread = int64("n", n), float64("std", std)
    if count < 0:
        raise TinyNNValueError(f"n must be at least 0, got {count}")
    if not 0.0 <= spread < float("inf"):
        raise TinyNNValueError(f"std must be finite and at least 0, got {spread!r}")
    values = new_array("n", count, np.float32, f"{count} random values")
    if count == 0:
        return values
    start, kind = integer("stream.state", stream.state, 0, 2**64 - 1), _kind("stream.kind", stream.kind)
    state = ffi.new("uint64_t *", start)
    buffer = ffi.from_buffer("float[]", values, require_writable=True)
    _check(lib.tnn_random_gaussian(kind, state, spread, buffer, count))
    stream.state = int(state[0])
    return values


def _kind(name: str, value: object) -> int:
    kind = int32(name, value)
    if kind not in (TNN_RANDOM_LCG31, TNN_RANDOM_XORSHIFT64):
        raise TinyNNValueError(
            f"{name} must be {TNN_RANDOM_LCG31} (LCG31) or {TNN_RANDOM_XORSHIFT64} (XORSHIFT64), got {kind}"
        )
    return kind


def _check(code: int) -> None:
    if code != lib.TNN_OK:
        raise InternalError(f"bug in toynn: checked arguments were refused with code {code}; please report it")

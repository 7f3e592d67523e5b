"""The random streams of initial weights, as in the Ruby project toy: Box-Muller over a 31-bit LCG or xorshift64."""

from __future__ import annotations

from toynn.arguments import FloatArray, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.tinynn import (
    TNN_RANDOM_LCG31,
    TNN_RANDOM_XORSHIFT64,
    tnn_random_gaussian,
    tnn_random_seed,
)


class GaussianStream(Initialised):
    """A stream of normally distributed numbers, drawn in order."""

    def __init__(self, kind: int, seed: int) -> None:
        self._state = tnn_random_seed(kind, seed)

    def gaussian(self, n: int, std: float) -> FloatArray:
        """Return the next n values of N(0, std^2), float32 (n,). Each call starts a new Box-Muller pair."""
        return tnn_random_gaussian(self._state, std, n)


class Lcg31Stream(GaussianStream):
    """The generator of the Ruby project toy.

    s becomes (s*1103515245 + 12345) mod 2^31, and (s+1)/2^31 is a uniform number.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(TNN_RANDOM_LCG31, seed)


class XorShift64Stream(GaussianStream):
    """The older generator of the Ruby project toy, with which its published curves were recorded.

    With seed 0 it never changes its state.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(TNN_RANDOM_XORSHIFT64, seed)


STREAMS: dict[str, type[Lcg31Stream] | type[XorShift64Stream]] = {
    "lcg31": Lcg31Stream,
    "xorshift64": XorShift64Stream,
}


def make_stream(name: str, seed: int) -> Lcg31Stream | XorShift64Stream:
    """Return a new stream of the kind "lcg31" or "xorshift64". Raises TinyNNValueError for any other name."""
    if not isinstance(name, str):
        raise TinyNNTypeError(f"init_stream must be a str, got {kind_of(name)}")
    if name not in STREAMS:
        raise TinyNNValueError(f"init_stream must be one of {', '.join(STREAMS)}, got {name!r}")
    return STREAMS[name](seed)

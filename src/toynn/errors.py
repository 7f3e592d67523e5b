"""Every exception toynn raises on purpose is a `TinyNNError`, and also the Python class a caller would expect."""

from __future__ import annotations


class TinyNNError(Exception):
    """Base of all toynn errors."""


class SessionError(TinyNNError, RuntimeError):
    """A call in the wrong state or order: use after close, after fork, before realize, or a stale or foreign handle."""


class TinyNNValueError(TinyNNError, ValueError):
    """An argument of the right type with a wrong value: a shape, a length, a range, a number that is not finite."""


class TinyNNTypeError(TinyNNError, TypeError):
    """An argument of the wrong type or dtype."""


class TinyNNMemoryError(TinyNNError, MemoryError):
    """Memory that cannot be had."""


class InternalError(TinyNNError, RuntimeError):
    """ggml reported a failure that toynn's checks did not foresee: a bug of toynn, worth a report."""

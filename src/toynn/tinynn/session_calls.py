"""The calls on a whole session that cannot be generated."""

from __future__ import annotations

from toynn.arguments import boolean, int32, int64, kind_of
from toynn.errors import TinyNNTypeError
from toynn.tinynn.native import lib, text
from toynn.tinynn.session import Session, native_session, status
from toynn.tinynn.thread_count import oversubscribe_from_environment

__all__ = [
    "tnn_last_error",
    "tnn_last_error_code",
    "tnn_reset_for_rebuild",
    "tnn_resize_kv_caches",
    "tnn_session_free",
    "tnn_session_new",
    "tnn_session_new_on",
    "tnn_session_set_n_threads",
]


def tnn_session_new(kind: int = 0, *, n_threads: int | None = None, oversubscribe: bool = False) -> Session:
    """Return a new session; `Session` describes the arguments."""
    return Session(kind, n_threads, oversubscribe)


def tnn_session_new_on(kind: int, device: int, *, n_threads: int | None = None, oversubscribe: bool = False) -> Session:
    """Return a new session on the device with that number; the CPU has only device 0. See `Session`."""
    return Session(kind, n_threads, oversubscribe, device=device)


def tnn_session_free(s: Session) -> None:
    """Free everything that the session owns, as `s.close()` does."""
    if not isinstance(s, Session):
        raise TinyNNTypeError(f"s must be a Session, got {kind_of(s)}")
    s.close()


def tnn_last_error(s: Session) -> str:
    """Return the message of the last call on `s` if the call failed, else ""."""
    native = native_session(s)
    with native.lock:
        return text(lib.tnn_last_error(native.live()))


def tnn_last_error_code(s: Session) -> int:
    """Return the error code of the last call on `s`, or 0 if the call succeeded."""
    native = native_session(s)
    with native.lock:
        return lib.tnn_last_error_code(native.live())


def tnn_session_set_n_threads(s: Session, n: int, oversubscribe: bool = False) -> None:
    """Set the number of threads that compute: 1 to `tnn_available_cores()`, or up to 512 if `oversubscribe` is True.

    Results do not depend on this number. Raises TinyNNValueError for a number outside of this range.
    """
    over = boolean("oversubscribe", oversubscribe) or oversubscribe_from_environment()
    status(s, lib.tnn_session_set_n_threads, int32("n", n), int(over))


def tnn_reset_for_rebuild(s: Session) -> None:
    """Drop all graphs and their tensors, whose handles become stale. The weights stay."""
    native = native_session(s)
    with native.lock:
        native.rebuilds += 1  # counted before the call, so that the cached shapes of tensors become invalid first
        status(s, lib.tnn_reset_for_rebuild)


def tnn_resize_kv_caches(s: Session, rows: int) -> None:
    """Change the number of rows of all caches of the session. Their values become zero.

    Call this after `tnn_finalize_weights` or `tnn_reset_for_rebuild`, before the first tensor of a graph. Raises
    TinyNNValueError for a number of rows that is too large, or SessionError at another time or without caches.
    """
    rows, native = int64("rows", rows), native_session(s)
    with native.lock:
        native.rebuilds += 1  # counted before the call, so that the cached shapes of tensors become invalid first
        status(s, lib.tnn_resize_kv_caches, rows)

"""NativeSession: the C session, its lock and its process. It decides when the memory of the C session is freed."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from toynn.errors import (
    InternalError,
    MappedFileError,
    SessionError,
    TinyNNError,
    TinyNNMemoryError,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn.tinynn.native import ffi, lib, text

if TYPE_CHECKING:
    from toynn._tinynn import SessionPointer

__all__: list[str] = []  # nothing in this module is for users of toynn.tinynn

_EXCEPTIONS: dict[int, type[TinyNNError]] = {
    lib.TNN_E_VALUE: TinyNNValueError,
    lib.TNN_E_TYPE: TinyNNTypeError,
    lib.TNN_E_STATE: SessionError,
    lib.TNN_E_MEMORY: TinyNNMemoryError,
    lib.TNN_E_FILE: MappedFileError,
}


def failure(pointer: SessionPointer, code: int) -> TinyNNError:
    """Return the exception for an error code, with the message of the last call on the session.

    If the session is NULL, use the message of the last call in this thread.
    """
    return _EXCEPTIONS.get(code, InternalError)(text(lib.tnn_last_error(pointer)))


class NativeSession:
    """The C session, and the state that protects it.

    This object exists until the memory of the C session is freed. Its `Session` may be freed earlier.
    """

    __slots__ = ("busy", "closed", "kept", "lock", "pid", "pointer", "rebuilds")

    def __init__(self, pointer: SessionPointer) -> None:
        self.pointer = pointer
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.busy = False  # True while the thread that holds the lock is inside a C call
        self.closed = False
        self.rebuilds = 0  # the number of times the graph was dropped; handles of earlier graphs are stale
        self.kept: list[object] = []  # owners of memory that the C session reads until the session is freed
        _unfreed[id(self)] = self

    def live(self) -> SessionPointer:
        """Return the C session. The caller holds the lock. Raises SessionError after close."""
        if self.closed:
            raise SessionError("the session is closed; make a new one")
        return self.pointer

    def free(self) -> None:
        """Close the session, and free its memory once no call is in progress.

        A signal handler may close the session that its own thread is computing with. A forked child does not free the
        memory before the process ends, because the session's threads do not exist there and its lock may be held
        forever.
        """
        if os.getpid() != self.pid:
            return
        with self.lock:
            self.closed = True
            self.settle()

    def settle(self) -> None:
        """Free the memory of a closed session, unless a call is in progress. The caller holds the lock."""
        if self.closed and not self.busy:
            pointer, self.pointer = self.pointer, ffi.NULL
            lib.tnn_session_free(pointer)
            self.kept.clear()
            _unfreed.pop(id(self), None)

    def leave(self) -> None:
        """Close the session, because the interpreter is ending.

        Wait for a call that runs in a daemon thread, because the code of the call must not be unloaded while the call
        runs. Do not wait for a thread that holds the lock between two calls, because the thread may sleep forever.
        """
        if os.getpid() != self.pid:
            return
        self.closed = True  # from now on, no thread can begin a call, not even the thread that holds the lock
        while not self.lock.acquire(timeout=0.1):
            if not self.busy:
                return  # a thread holds the lock between two calls: the memory stays allocated until the process ends
        self.settle()
        self.lock.release()


# Finalizers do not run while the interpreter ends, so this set finds the sessions that are still open then.
_unfreed: dict[int, NativeSession] = {}
ending = threading.Event()


@atexit.register
def _leave_all() -> None:
    ending.set()
    # Iterates over a copy, because a daemon thread may add a session meanwhile.
    for session in _unfreed.copy().values():
        session.leave()

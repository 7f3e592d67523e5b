"""The native session and what guards it: a lock, the process that made it, and when its memory is freed."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from toynn.errors import (
    InternalError,
    SessionError,
    TinyNNError,
    TinyNNMemoryError,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn.tinynn.native import ffi, lib, text

if TYPE_CHECKING:
    from toynn._tinynn import SessionPointer

__all__: list[str] = []  # users of toynn.tinynn need nothing from here

_EXCEPTIONS: dict[int, type[TinyNNError]] = {
    lib.TNN_E_VALUE: TinyNNValueError,
    lib.TNN_E_TYPE: TinyNNTypeError,
    lib.TNN_E_STATE: SessionError,
    lib.TNN_E_MEMORY: TinyNNMemoryError,
}


def failure(pointer: SessionPointer, code: int) -> TinyNNError:
    """Return the exception for an error code, with the message that C left in the session (for NULL: in the thread)."""
    return _EXCEPTIONS.get(code, InternalError)(text(lib.tnn_last_error(pointer)))


class NativeSession:
    """The native session and the state that guards it. It outlives its `Session` until its memory is freed."""

    __slots__ = ("busy", "closed", "lock", "pid", "pointer", "rebuilds")

    def __init__(self, pointer: SessionPointer) -> None:
        self.pointer = pointer
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.busy = False  # the thread that holds the lock is inside a C call
        self.closed = False
        self.rebuilds = 0  # how often the graph was dropped: handles that were made before may be stale
        _unfreed[id(self)] = self

    def live(self) -> SessionPointer:
        """Return the native session; the caller holds the lock. Raises SessionError after close."""
        if self.closed:
            raise SessionError("the session is closed")
        return self.pointer

    def free(self) -> None:
        """Close the session and free its memory once, after any call in progress.

        A signal handler may close the session that its own thread is computing with. A forked child leaves the memory
        to the end of the process: the session's threads do not exist there, and its lock may be held forever.
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
            _unfreed.pop(id(self), None)

    def leave(self) -> None:
        """Close the session while the interpreter ends.

        Wait for a call in progress in a daemon thread, because its code must not run while it is unloaded. Do not wait
        for a thread that holds the lock between two calls: it may sleep forever.
        """
        if os.getpid() != self.pid:
            return
        self.closed = True  # the thread that holds the lock makes no further call
        while not self.lock.acquire(timeout=0.1):
            if not self.busy:
                return  # the memory is left to the end of the process
        self.settle()
        self.lock.release()


# Finalizers do not run while the interpreter ends, so the sessions that are collected then are found here.
_unfreed: dict[int, NativeSession] = {}
ending = threading.Event()


@atexit.register
def _leave_all() -> None:
    ending.set()
    for session in _unfreed.copy().values():  # a copy: a daemon thread may be making a session
        session.leave()

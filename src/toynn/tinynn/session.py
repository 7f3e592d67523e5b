"""Session and Tensor: native memory with a Python lifetime, and the one funnel every session call goes through."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn

from toynn.arguments import boolean, int32, int64, kind_of
from toynn.errors import (
    InternalError,
    SessionError,
    TinyNNError,
    TinyNNMemoryError,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn.tinynn.native import ffi, lib, text, tnn_available_cores

_EXCEPTIONS: dict[int, type[TinyNNError]] = {
    lib.TNN_E_VALUE: TinyNNValueError,
    lib.TNN_E_TYPE: TinyNNTypeError,
    lib.TNN_E_STATE: SessionError,
    lib.TNN_E_MEMORY: TinyNNMemoryError,
}


def _failure(pointer: Any, code: int) -> TinyNNError:
    """The exception for an error code, with the message C left in the session (or, for NULL, in the thread)."""
    return _EXCEPTIONS.get(code, InternalError)(text(lib.tnn_last_error(pointer)))


class _Owner:
    """The native session with what guards it. Outlives the Session by as much as its finalizer needs."""

    __slots__ = ("busy", "closed", "lock", "pid", "pointer")

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.busy = False  # a call is under way in the thread that holds the lock
        self.closed = False
        _owners[id(self)] = self

    def live(self) -> Any:
        """The native session, for a caller who holds the lock. Raises SessionError after close."""
        if self.closed:
            raise SessionError("the session is closed")
        return self.pointer

    def free(self) -> None:
        """Closes, and frees the native session once, after any call in progress (a signal handler may close the session
        that its own thread is computing with). In a forked child, where its threads do not exist and its lock may be
        held for ever, the memory is left to the end of the process."""
        if os.getpid() != self.pid:
            return
        with self.lock:
            self.closed = True
            self.settle()

    def settle(self) -> None:
        """Frees what was closed, unless a call is under way. The caller holds the lock."""
        if self.closed and not self.busy:
            pointer, self.pointer = self.pointer, ffi.NULL
            lib.tnn_session_free(pointer)
            _owners.pop(id(self), None)

    def leave(self) -> None:
        """Closes as the interpreter ends. A call in progress in a daemon thread is waited for, as code that is being
        unloaded must not run; a thread that holds the lock between two calls is not: it may sleep for ever."""
        if os.getpid() != self.pid:
            return
        self.closed = True  # whoever holds the lock makes no further call
        while not self.lock.acquire(timeout=0.1):
            if not self.busy:
                return  # its memory is left to the end of the process
        self.settle()
        self.lock.release()


# What is not freed yet. A finalizer is deaf once the interpreter ends, so a session that is collected then stays here.
_owners: dict[int, _Owner] = {}
_ending = threading.Event()


@atexit.register
def _leave_all() -> None:
    _ending.set()
    for owner in _owners.copy().values():  # copied at once: a daemon thread may be making a session
        owner.leave()


class Session:
    """A ggml session: persistent weights, and one graph at a time over them.

    Use it as a context manager, or call `close()`; otherwise garbage collection or the end of the interpreter frees it.
    Calls from several threads are serialised by a lock; computing releases the GIL. A forked child cannot use it.

    Args:
        kind: 0, the CPU.
        n_threads: threads that compute. Default: the environment variable TOYNN_N_THREADS, else the cores this process
            may use. Results do not depend on it.
        oversubscribe: allow more threads than cores (as does TOYNN_OVERSUBSCRIBE=1). For tests of determinism only:
            they wait for each other at every node, so it is slow.

    Raises:
        TinyNNValueError: unknown kind, or a number of threads that is not between 1 and the limit.
        TinyNNTypeError: an argument of the wrong type.
        TinyNNMemoryError: no memory for a session.
        SessionError: in a daemon thread, when the interpreter is ending and has closed all sessions.
    """

    __slots__ = ("__weakref__", "_finalizer", "_owner")

    def __init__(self, kind: int = 0, n_threads: int | None = None, oversubscribe: bool = False) -> None:
        threads, over = _thread_count(n_threads, oversubscribe)
        pointer = lib.tnn_session_new(int32("kind", kind))
        if pointer == ffi.NULL:
            raise _failure(ffi.NULL, lib.tnn_last_error_code(ffi.NULL))
        self._owner = _Owner(pointer)
        if _ending.is_set() and threading.current_thread() is not threading.main_thread():
            self._owner.free()  # a daemon thread's, which could no longer be closed; _leave_all closes earlier ones
            raise SessionError("a daemon thread cannot make a session any more: the interpreter is ending")
        self._finalizer = weakref.finalize(self, self._owner.free)
        self._finalizer.atexit = False  # _Owner.leave sees to that
        try:
            status(self, lib.tnn_session_set_n_threads, threads, int(over))
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """True once the session is closed, and where it was never opened."""
        owner = getattr(self, "_owner", None)
        return owner is None or owner.closed

    def close(self) -> None:
        """Frees the weights and the graph now; waits for a call in progress in another thread. Twice is harmless.

        Where Ctrl-C ends the wait, a second call or garbage collection frees them: the finalizer stays.
        """
        owner = getattr(self, "_owner", None)
        if owner is not None:
            owner.free()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TinyNNTypeError("a Session cannot be copied or pickled: it owns native memory")

    def __enter__(self) -> Session:
        with self.exclusive():
            return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<Session closed>"
        return f"<Session at {id(self):#x}>"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Holds the session's lock, so that a sequence of calls is not interleaved with another thread's.

        Raises:
            SessionError: the session is closed, or belongs to the parent of this process.
        """
        owner = _owner(self)
        with owner.lock:
            owner.live()
            yield


class Tensor:
    """Handle of a tensor in a session: cheap, hashable, equal to any other handle of the same tensor.

    It keeps its session alive. After `tnn_reset_for_rebuild` the handles of the dropped graph are stale, and using
    one raises SessionError.
    """

    __slots__ = ("handle", "session")

    def __init__(self, session: Session, handle: int) -> None:
        if not isinstance(session, Session):
            raise TinyNNTypeError(f"session must be a Session, got {kind_of(session)}")
        object.__setattr__(self, "session", session)
        object.__setattr__(self, "handle", int64("handle", handle))

    session: Session
    handle: int

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TinyNNTypeError(f"a Tensor is a handle and never changes: its {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise TinyNNTypeError(f"a Tensor is a handle and never changes: its {name} cannot be deleted")

    def __copy__(self) -> Tensor:
        return self

    @property
    def ne(self) -> tuple[int, int, int, int]:
        """ggml's shape, the fastest-varying dimension first. Raises SessionError for a stale handle."""
        s, t = self.session, self.handle
        return (
            number(s, lib.tnn_tensor_ne0, t),
            number(s, lib.tnn_tensor_ne1, t),
            number(s, lib.tnn_tensor_ne2, t),
            number(s, lib.tnn_tensor_ne3, t),
        )

    @property
    def name(self) -> str:
        """The tensor's name, "" by default. Raises SessionError for a stale handle."""
        return string(self.session, lib.tnn_tensor_name, self.handle)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        return self.session is other.session and self.handle == other.handle

    def __hash__(self) -> int:
        return hash((id(self.session), self.handle))

    def __repr__(self) -> str:
        try:
            return f"<Tensor {self.name!r} ne={list(self.ne)}>"
        except TinyNNError:
            return f"<Tensor stale or closed, handle {self.handle:#x}>"


def _owner(s: object) -> _Owner:
    """What guards the native session of `s`, still to be locked. Raises TinyNNTypeError, or SessionError after fork."""
    if not isinstance(s, Session):
        raise TinyNNTypeError(f"s must be a Session, got {kind_of(s)}")
    owner: _Owner | None = getattr(s, "_owner", None)
    if owner is None:
        raise SessionError("this session was never opened: its __init__ did not run")
    if os.getpid() != owner.pid:
        raise SessionError("this session belongs to the process that made it: make a new one after fork()")
    return owner


def handle(s: Session, name: str, tensor: object) -> int:
    """The number C knows `tensor` by.

    Raises:
        TinyNNTypeError: `s` is not a Session, or `tensor` not a Tensor.
        SessionError: the tensor belongs to another session.
    """
    if not isinstance(s, Session):
        raise TinyNNTypeError(f"s must be a Session, got {kind_of(s)}")
    if not isinstance(tensor, Tensor):
        raise TinyNNTypeError(f"{name} must be a Tensor, got {kind_of(tensor)}")
    if getattr(tensor, "session", None) is not s:  # None: its __init__ did not run
        raise SessionError(f"{name} is a tensor of another session")
    return tensor.handle


def handles(s: Session, name: str, tensors: object) -> list[int]:
    """The numbers C knows the tensors of a list or tuple by; raises as `handle` does, naming the item."""
    if not isinstance(tensors, (list, tuple)):
        raise TinyNNTypeError(f"{name} must be a list or tuple of Tensors, got {kind_of(tensors)}")
    try:
        items = list(tensors)
    except Exception as error:  # of a subclass's __iter__
        raise TinyNNTypeError(f"{name} must be a list or tuple of Tensors: {type(error).__name__}: {error}") from error
    return [handle(s, f"{name}[{i}]", tensor) for i, tensor in enumerate(items)]


def optional_handle(s: Session, name: str, tensor: object) -> int:
    """As `handle`, with 0 for None."""
    return 0 if tensor is None else handle(s, name, tensor)


def _called(s: Session, function: Any, arguments: tuple[Any, ...], convert: Callable[[Any], Any] | None = None) -> Any:
    """Calls a C function on the native session; its result, converted while the session is sure to live.

    Every call leaves its error code in the session: raises the exception for it where there is one.
    """
    owner = _owner(s)
    with owner.lock:
        if owner.busy:  # a signal handler or a finalizer inside a call of its own thread: its error would be the call's
            owner.live()
            raise SessionError(
                "the session is in the middle of a call in this thread: a signal handler or __del__ may close it, "
                "all else must wait until the call returns"
            )
        owner.busy = True  # before the pointer is looked at: who closes the session now leaves freeing it to settle()
        try:
            pointer = owner.live()
            result = function(pointer, *arguments)
            code = lib.tnn_last_error_code(pointer)
            if code != lib.TNN_OK:
                raise _failure(pointer, code)
            return result if convert is None else convert(result)
        finally:
            owner.busy = False
            owner.settle()


def status(s: Session, function: Any, *arguments: Any) -> None:
    """Calls a C function that returns TNN_OK or an error code."""
    _called(s, function, arguments)


def built(s: Session, function: Any, *arguments: Any) -> Tensor:
    """Calls a C function that returns a tensor, or 0 on failure."""
    return Tensor(s, _called(s, function, arguments))


def maybe(s: Session, function: Any, *arguments: Any) -> Tensor | None:
    """Calls a C function that returns a tensor, or 0 both for "there is none" and on failure."""
    result: int = _called(s, function, arguments)
    return Tensor(s, result) if result != 0 else None


def number(s: Session, function: Any, *arguments: Any) -> int:
    """Calls a C function that returns a count, or a negative error code."""
    result: int = _called(s, function, arguments)
    return result


def string(s: Session, function: Any, *arguments: Any) -> str:
    """Calls a C function that returns a string, or NULL on failure."""
    result: str = _called(s, function, arguments, text)
    return result


def _thread_count(n_threads: object, oversubscribe: object) -> tuple[int, bool]:
    """Threads to compute with, from the argument, else the environment, else the cores at hand."""
    over = boolean("oversubscribe", oversubscribe) or _oversubscribe_from_environment()
    if n_threads is not None:
        return _checked_thread_count("n_threads", int32("n_threads", n_threads), over), over
    value = os.environ.get("TOYNN_N_THREADS", "").strip()
    if not value:
        return tnn_available_cores(), over
    name = "the environment variable TOYNN_N_THREADS"
    if not (value.isascii() and value.isdecimal()):
        raise TinyNNValueError(f"{name} must be a whole number, got {value!r:.60}")
    if len(value.lstrip("0")) > 9:
        raise TinyNNValueError(f"{name} is {value:.60}, but this process may use {tnn_available_cores()} core(s)")
    return _checked_thread_count(name, int(value[-9:]), over), over


def _checked_thread_count(name: str, count: int, oversubscribe: bool) -> int:
    cores = tnn_available_cores()
    if count < 1:
        raise TinyNNValueError(f"{name} must be at least 1, got {count}")
    if count > cores and not oversubscribe:
        raise TinyNNValueError(
            f"{name} is {count}, but this process may use {cores} core(s); more threads only wait for each other"
        )
    return count


def _oversubscribe_from_environment() -> bool:
    value = os.environ.get("TOYNN_OVERSUBSCRIBE", "").strip()
    if value not in ("", "0", "1"):
        raise TinyNNValueError(f"the environment variable TOYNN_OVERSUBSCRIBE must be 0 or 1, got {value!r}")
    return value == "1"


def tnn_session_new(kind: int = 0, *, n_threads: int | None = None, oversubscribe: bool = False) -> Session:
    """A new session; see `Session`."""
    return Session(kind, n_threads, oversubscribe)


def tnn_session_free(s: Session) -> None:
    """Frees everything the session owns; the same as `s.close()`."""
    if not isinstance(s, Session):
        raise TinyNNTypeError(f"s must be a Session, got {kind_of(s)}")
    s.close()


def tnn_last_error(s: Session) -> str:
    """Message of the last call on `s` if it failed, else ""."""
    owner = _owner(s)
    with owner.lock:
        return text(lib.tnn_last_error(owner.live()))


def tnn_last_error_code(s: Session) -> int:
    """Code of the last call on `s`: 0 when it succeeded."""
    owner = _owner(s)
    with owner.lock:
        return int(lib.tnn_last_error_code(owner.live()))


def tnn_session_set_graph_capacity(s: Session, n_nodes: int) -> None:
    """Node budget of one graph, forward and backward together; only while no per-graph tensor exists.

    Raises TinyNNValueError for a budget C does not take, SessionError where a graph exists.
    """
    status(s, lib.tnn_session_set_graph_capacity, int64("n_nodes", n_nodes))


def tnn_session_graph_capacity(s: Session) -> int:
    """Node budget of one graph."""
    return number(s, lib.tnn_session_graph_capacity)


def tnn_session_set_n_threads(s: Session, n: int, oversubscribe: bool = False) -> None:
    """Threads that compute, at most the cores this process may use unless `oversubscribe`; results do not depend on it.

    Raises TinyNNValueError for a number out of the limits.
    """
    over = boolean("oversubscribe", oversubscribe) or _oversubscribe_from_environment()
    status(s, lib.tnn_session_set_n_threads, int32("n", n), int(over))


def tnn_session_n_threads(s: Session) -> int:
    """Threads that compute."""
    return number(s, lib.tnn_session_n_threads)


def tnn_session_weights_nbytes(s: Session) -> int:
    """Bytes of the weights buffer; 0 before it is allocated."""
    return number(s, lib.tnn_session_weights_nbytes)


def tnn_session_compute_nbytes(s: Session) -> int:
    """Bytes of the compute buffer of the realized graph; 0 before."""
    return number(s, lib.tnn_session_compute_nbytes)


def tnn_reset_for_rebuild(s: Session) -> None:
    """Drops all per-graph tensors and graphs; their handles become stale. Weights stay."""
    status(s, lib.tnn_reset_for_rebuild)

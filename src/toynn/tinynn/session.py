"""Session and Tensor, which tie native memory to Python objects, and the functions through which every C call goes."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from toynn.arguments import int32, int64, kind_of
from toynn.errors import SessionError, TinyNNError, TinyNNTypeError
from toynn.initialised import Initialised
from toynn.tinynn.native import ffi, lib, text
from toynn.tinynn.native_session import NativeSession, ending, failure
from toynn.tinynn.thread_count import thread_count

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    from toynn._tinynn import CharPointer, SessionPointer, TensorHandle, TensorPointer

    # The arguments of a C call, except its session. mypy compares their types with the header's.
    _Arguments = TypeVarTuple("_Arguments")

__all__ = ["Session", "Tensor"]

_Result = TypeVar("_Result")
_NO_TENSOR: TensorHandle = 0  # type: ignore[assignment]  # in C, this number means that there is no tensor


class Session:
    """A ggml session: persistent weights, and one graph at a time over them.

    Use the session as a context manager, or call `close()`. Otherwise garbage collection or the end of the interpreter
    frees its memory.
    A lock lets one thread at a time make a call. Computing releases the GIL. A forked child cannot use the session.

    Args:
        kind: 0, the CPU.
        n_threads: number of threads that compute. Default: the environment variable TOYNN_N_THREADS, else the number of
            cores that this process may use. Results do not depend on this number.
        oversubscribe: allow more threads than cores, as TOYNN_OVERSUBSCRIBE=1 does. This is slow and only for
            determinism tests.
        device: number of the device; the CPU has only device 0.

    Raises:
        TinyNNValueError: unknown kind or device, or a number of threads that is not between 1 and the limit.
        TinyNNTypeError: an argument of the wrong type.
        TinyNNMemoryError: the memory of a session cannot be allocated.
        SessionError: a daemon thread makes a session while the interpreter is ending and has closed all sessions.
    """

    __slots__ = ("__weakref__", "_finalizer", "_native")

    def __init__(
        self, kind: int = 0, n_threads: int | None = None, oversubscribe: bool = False, *, device: int = 0
    ) -> None:
        threads, over = thread_count(n_threads, oversubscribe)
        pointer = lib.tnn_session_new_on(int32("kind", kind), int32("device", device))
        if pointer == ffi.NULL:
            raise failure(ffi.NULL, lib.tnn_last_error_code(ffi.NULL))
        self._native = NativeSession(pointer)
        if ending.is_set() and threading.current_thread() is not threading.main_thread():
            self._native.free()  # the interpreter has closed all other sessions, and would not close this session
            raise SessionError("a daemon thread cannot make a session while the interpreter is ending")
        self._finalizer = weakref.finalize(self, self._native.free)
        self._finalizer.atexit = False  # at exit, NativeSession.leave frees the session
        try:
            status(self, lib.tnn_session_set_n_threads, threads, int(over))
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """True if the session was closed or never opened."""
        native = getattr(self, "_native", None)
        return native is None or native.closed

    def close(self) -> None:
        """Free the weights and the graph now, after any call in progress in another thread. Closing twice is harmless.

        If Ctrl-C interrupts the wait, a second call or garbage collection frees the memory.
        """
        native = getattr(self, "_native", None)
        if native is not None:
            native.free()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TinyNNTypeError(
            "a Session cannot be copied or pickled, because it owns native memory; make a new Session"
        )

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
        """Hold the session's lock, so that no other thread can make a call between the calls of this thread.

        Raises:
            SessionError: the session is closed, or belongs to the parent of this process.
        """
        native = native_session(self)
        with native.lock:
            native.live()
            yield


class Tensor(Initialised):
    """The handle of a tensor in a session. It is cheap and hashable, and equals any other handle of the same tensor.

    A handle keeps its session alive. After `tnn_reset_for_rebuild` the handles of the dropped graph are stale, and
    using one raises SessionError.
    """

    __slots__ = ("_known_ne", "handle", "session")

    def __init__(self, session: Session, handle: int) -> None:
        if not isinstance(session, Session):
            raise TinyNNTypeError(f"session must be a Session, got {kind_of(session)}")
        object.__setattr__(self, "session", session)
        object.__setattr__(self, "handle", int64("handle", handle))

    session: Session
    handle: TensorHandle
    _known_ne: tuple[int, tuple[int, int, int, int]]  # the session's `rebuilds` when the shape was read, and the shape

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TinyNNTypeError(f"a Tensor is a handle and cannot be changed: its attribute {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise TinyNNTypeError(f"a Tensor is a handle and cannot be changed: its attribute {name} cannot be deleted")

    def __copy__(self) -> Tensor:
        return self

    @property
    def ne(self) -> tuple[int, int, int, int]:
        """The shape in ggml's order, with the fastest-varying dimension first.

        Raises SessionError for a stale handle.
        """
        s, t = self.session, self.handle
        native = native_session(s)
        rebuilds = native.rebuilds
        try:
            known = self._known_ne
            if known[0] == rebuilds and not (native.closed or native.busy):
                # A shape never changes. No graph was dropped after the shape was read, so the handle is not stale.
                return known[1]
        except AttributeError:
            pass  # the shape was not read yet
        ne = (
            number(s, lib.tnn_tensor_ne0, t),
            number(s, lib.tnn_tensor_ne1, t),
            number(s, lib.tnn_tensor_ne2, t),
            number(s, lib.tnn_tensor_ne3, t),
        )
        object.__setattr__(self, "_known_ne", (rebuilds, ne))
        return ne

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


def native_session(s: object) -> NativeSession:
    """Return the native session of `s` without locking it. Raises TinyNNTypeError for another value, or SessionError
    after fork.
    """
    if not isinstance(s, Session):
        raise TinyNNTypeError(f"s must be a Session, got {kind_of(s)}")
    native: NativeSession | None = getattr(s, "_native", None)
    if native is None:
        raise SessionError("this session was never opened; its class must call Session.__init__")
    if os.getpid() != native.pid:
        raise SessionError("this session belongs to the parent process; make a new session after fork()")
    return native


# ---- arguments that are tensors ----


def session_of(name: str, tensor: object) -> Session:
    """Return the session of a tensor, for the calls that take only a tensor.

    Raises TinyNNTypeError for any other value.
    """
    if not isinstance(tensor, Tensor):
        raise TinyNNTypeError(f"{name} must be a Tensor, got {kind_of(tensor)}")
    session: Session | None = getattr(tensor, "session", None)
    if session is None:
        raise SessionError(f"{name} was never initialised; its class must call Tensor.__init__")
    return session


def handle(s: Session, name: str, tensor: object) -> TensorHandle:
    """Return the number that identifies the tensor in C.

    Raises:
        TinyNNTypeError: `s` is not a Session, or `tensor` not a Tensor.
        SessionError: the tensor belongs to another session.
    """
    if not isinstance(s, Session):
        raise TinyNNTypeError(f"s must be a Session, got {kind_of(s)}")
    if not isinstance(tensor, Tensor):
        raise TinyNNTypeError(f"{name} must be a Tensor, got {kind_of(tensor)}")
    if getattr(tensor, "session", None) is not s:  # None: __init__ of the tensor did not run
        raise SessionError(f"{name} is a tensor of another session; pass a tensor of this session")
    return tensor.handle


def optional_handle(s: Session, name: str, tensor: object) -> TensorHandle:
    """Return the number that identifies the tensor in C, or 0 for None. Raises the errors of `handle`."""
    return _NO_TENSOR if tensor is None else handle(s, name, tensor)


def handles(s: Session, name: str, tensors: object) -> tuple[TensorPointer, int]:
    """Return a C array of the handles of a list or tuple of tensors, and its length. Raises the errors of `handle`."""
    if not isinstance(tensors, (list, tuple)):
        raise TinyNNTypeError(f"{name} must be a list or tuple of Tensors, got {kind_of(tensors)}")
    try:
        items = list(tensors)
    except Exception as error:  # a subclass's __iter__ can raise anything
        raise TinyNNTypeError(f"{name} must be a list or tuple of Tensors: {kind_of(error)}: {error}") from error
    found = [handle(s, f"{name}[{i}]", tensor) for i, tensor in enumerate(items)]
    return ffi.new("tnn_tensor[]", found), int32(f"len({name})", len(found))


# ---- calls: one function for each kind of result ----


def _called(
    s: Session,
    function: Callable[..., _Result],
    arguments: tuple[Any, ...],
    may_have_failed: Callable[[_Result], bool],
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """Call a C function on the native session and return its result, converted before the session can be freed.

    may_have_failed: a function that returns whether a result can mean a failure. If it can, the error code that the
        call left in the session decides: TNN_OK means success, any other code raises its exception.
    """
    native = native_session(s)
    with native.lock:
        if native.busy:  # this is a signal handler or a finalizer that interrupted a call of its own thread
            native.live()
            raise SessionError(
                "the session is in the middle of a call in this thread: a signal handler or __del__ may close the "
                "session, but other calls must wait until the call returns"
            )
        # busy is set before the pointer is read: if the session is closed from now on, settle() frees it after the
        # call.
        native.busy = True
        try:
            pointer = native.live()
            result = function(pointer, *arguments)
            if may_have_failed(result):
                code = lib.tnn_last_error_code(pointer)
                if code != lib.TNN_OK:
                    raise failure(pointer, code)
            return result if convert is None else convert(result)
        finally:
            native.busy = False
            native.settle()


_is_negative = (0).__gt__
_is_null = ffi.NULL.__eq__


def status(
    s: Session, function: Callable[[SessionPointer, Unpack[_Arguments]], int], *arguments: Unpack[_Arguments]
) -> None:
    """Call a C function that returns TNN_OK or an error code."""
    _called(s, function, arguments, bool)


def built(
    s: Session, function: Callable[[SessionPointer, Unpack[_Arguments]], TensorHandle], *arguments: Unpack[_Arguments]
) -> Tensor:
    """Call a C function that returns a tensor, or 0 on failure."""
    return Tensor(s, _called(s, function, arguments, operator.not_))


def maybe(
    s: Session, function: Callable[[SessionPointer, Unpack[_Arguments]], TensorHandle], *arguments: Unpack[_Arguments]
) -> Tensor | None:
    """Call a C function that returns a tensor, or 0 if there is none or on failure. Return None if there is none."""
    result: int = _called(s, function, arguments, operator.not_)
    return Tensor(s, result) if result != 0 else None


def number(
    s: Session, function: Callable[[SessionPointer, Unpack[_Arguments]], int], *arguments: Unpack[_Arguments]
) -> int:
    """Call a C function that returns a count, or a negative error code."""
    result: int = _called(s, function, arguments, _is_negative)
    return result


def string(
    s: Session, function: Callable[[SessionPointer, Unpack[_Arguments]], CharPointer], *arguments: Unpack[_Arguments]
) -> str:
    """Call a C function that returns a string, or NULL on failure."""
    result: str = _called(s, function, arguments, _is_null, text)
    return result

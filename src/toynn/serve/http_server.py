"""Run an ASGI application on a socket until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from toynn.errors import TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.serve.limits import Limits

with naming_the_extra():
    import uvicorn
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import H11Protocol

_GRACE = 5  # number of seconds after Ctrl-C within which replies must end


class Listener:
    """A socket on which a server listens.

    host, port: where to listen. A port of 0 chooses a free port. Raises TinyNNValueError for a host that does not
    exist, or OSError if the port is not free.

    is_local: whether only programs on this machine can connect.
    url: the address of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a host name"
            raise TinyNNValueError(f"--host {host!r:.80} cannot be used: {reason}; 127.0.0.1 always works") from None
        family, _, _, _, address = found[0]
        self.is_local = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.socket.bind(address)
            self.socket.listen(128)
        except OSError as error:
            self.socket.close()
            raise OSError(f"cannot listen on {host} port {port}: {error.strerror}; use another --port") from None
        name, self.port = self.socket.getsockname()[:2]
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self.port}"


def run_server(app: ASGIApp, listener: Listener, limits: Limits, started: Callable[[], None]) -> None:
    """Serve an application until Ctrl-C or SIGTERM. The replies that are being sent then have five seconds to end.

    started: called when the server accepts requests. A second Ctrl-C ends the server at once.
    """
    server = server_of(app, limits)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a handler)
        server.force_exit = server.should_exit
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # The server runs in a thread. In the main thread, uvicorn would raise each received signal again when it ends.
    thread = threading.Thread(target=server.run, args=([listener.socket],), name="toynn-server", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            thread.join(0.01)
        started()
        while thread.is_alive():
            thread.join(0.2)
    finally:
        server.should_exit = True
        thread.join(_GRACE + 1)
        for number, handler in before.items():
            signal.signal(number, handler)


def server_of(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """Return a server for an application, without starting the server."""
    config = uvicorn.Config(
        app,
        http=_protocol(limits.client_seconds),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections + 1,
        timeout_keep_alive=int(max(limits.client_seconds, 1)),
        timeout_graceful_shutdown=_GRACE,
    )
    return uvicorn.Server(config)


def _protocol(seconds: float) -> type[H11Protocol]:
    """Return a protocol that disconnects a client that sends no request, or reads no response, for the given time."""

    class Protocol(H11Protocol):
        _no_request: asyncio.TimerHandle | None = None
        _no_reading: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_a_request()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._expect_a_request()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._no_reading = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._no_reading)

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._no_request)
            _cancel(self._no_reading)
            super().connection_lost(exc)

        def _expect_a_request(self) -> None:
            _cancel(self._no_request)
            self._no_request = self.loop.call_later(seconds, self._end_without_request)

        def _end_without_request(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return Protocol


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

"""HTTP servers in threads of the test, and requests without a client library."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from starlette.types import ASGIApp

from toynn.serve.http_server import Listener, server_of
from toynn.serve.limits import Limits


@contextmanager
def running(app: ASGIApp, limits: Limits | None = None) -> Iterator[int]:
    """Run an application on a free port, and yield the port."""
    listener = Listener("127.0.0.1", 0)
    server = server_of(app, limits or Limits())
    thread = threading.Thread(target=server.run, args=([listener.socket],), daemon=True)
    thread.start()
    try:
        yield listener.port
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)
        assert not thread.is_alive()


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in the body. Raise AssertionError if the body does not have the form of OpenAI's errors."""
        content = self.json
        assert content.keys() == {"error"}
        assert content["error"].keys() == {"message", "type", "param", "code"}
        error: dict[str, Any] = content["error"]
        return error


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> Answer:
    """Send a request and return the answer. body: bytes, or a value that is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    answer = Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
    connection.close()
    return answer


def raw_request(port: int, body: bytes, path: str = "/v1/completions") -> socket.socket:
    """Send a POST request, and return the connection without reading the answer."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection

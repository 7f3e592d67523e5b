"""The limits of the server. They keep one client from using all memory, connections or time of the server."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.arguments import integer, positive


@dataclass(frozen=True)
class Limits:
    """The limits of the server.

    body: the largest size of a request body in bytes.
    queue: the largest number of requests that wait while another request is computed; further requests get the status
        429.
    seconds: the longest time of a request, including its time in the queue.
    connections: the largest number of open connections; further requests get the status 503.
    client_seconds: the longest time that a client may take to send a request, and the longest time for which a client
        may read nothing of a response. The server closes the connection to a slower client.

    Raises TinyNNTypeError or TinyNNValueError, which name the field.
    """

    body: int = 1 << 20
    queue: int = 8
    seconds: float = 600.0
    connections: int = 64
    client_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (("body", 1), ("queue", 0), ("connections", 1)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        for name in ("seconds", "client_seconds"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))

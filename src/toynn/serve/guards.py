"""Refuse requests that do not come from the user: requests of web pages of other sites, and requests without the key.

A page of any web site can make the browser of the user send requests to a server on the user's machine. The browser
adds the header Origin, which names the site of the page, to each request that could harm the user. With DNS rebinding,
the host name of the page is made to point to the user's machine. The header Host of the requests then contains this
name.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from toynn.extras import naming_the_extra
from toynn.serve.api_error import ApiError

with naming_the_extra():
    from starlette.datastructures import Headers
    from starlette.types import ASGIApp, Receive, Scope, Send

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class OriginGuard:
    """ASGI middleware that refuses requests with a foreign Host or Origin header.

    hosts: the accepted host names; None: all are accepted.
    origins: the origins of web pages that may use the server. A page of the server itself may use it too.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None, origins: Collection[str] = ()) -> None:
        self._app, self._hosts, self._origins = app, hosts, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._error(Headers(scope=scope))) is not None:
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _error(self, headers: Headers) -> ApiError | None:
        host = headers.getlist("host")
        if len(host) != 1:
            return ApiError(400, "the request must have one Host header")
        if self._hosts is not None and host_name(host[0]) not in self._hosts:
            return ApiError(
                403,
                f"the Host header {host[0]!r:.80} is not a name of this server; use http://localhost or "
                "http://127.0.0.1",
                code="foreign_host",
            )
        for origin in headers.getlist("origin"):
            own = self._hosts is not None and origin.lower() == f"http://{host[0].lower()}"
            if not own and origin not in self._origins:
                return ApiError(
                    403,
                    f"the web page of {origin!r:.80} may not use this server; --allow-origin allows it",
                    code="foreign_origin",
                )
        return None


class KeyGuard:
    """ASGI middleware that refuses requests without the header "Authorization: Bearer KEY"."""

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self._app, self._wanted = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = [value for name, value in scope["headers"] if name == b"authorization"]
            if len(given) != 1 or not hmac.compare_digest(given[0], self._wanted):
                error = ApiError(
                    401,
                    "the request must have the header Authorization: Bearer KEY with the key of this server",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_name(host: str) -> str | None:
    """Return the host name in a Host header, without port and in lower case. None if the header is not valid."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises ValueError for a port that is not a number
    except ValueError:
        return None
    return None if parts.path or parts.username is not None else parts.hostname

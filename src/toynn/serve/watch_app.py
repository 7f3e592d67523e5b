"""The ASGI application of `toynn watch`: a page that follows a run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from toynn.errors import FileFormatError
from toynn.extras import naming_the_extra
from toynn.serve.api_error import json_response
from toynn.serve.guards import LOCAL_NAMES, OriginGuard
from toynn.serve.watch_data import watch_data
from toynn.storage.checkpoint.names import LOG
from toynn.training.run_log import read_log

with naming_the_extra():
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_FILES = {"/": ("watch.html", "text/html"), "/watch.js": ("watch.js", "text/javascript")}
_HEADERS = {
    # The page loads nothing but its own script and data, even if a text in the log looks like HTML.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def watch_app(run: Path) -> Starlette:
    """Return the application for a run."""
    log = _Log(run)

    async def progress(request: Request) -> Response:  # noqa: ARG001 (starlette's signature)
        return json_response(await asyncio.to_thread(log.data), headers=_HEADERS)

    routes = [Route(path, _file(*file)) for path, file in _FILES.items()]
    return Starlette(
        routes=[*routes, Route("/progress", progress)], middleware=[Middleware(OriginGuard, hosts=LOCAL_NAMES)]
    )


def _file(name: str, kind: str) -> Any:
    content = Path(__file__).with_name(name).read_bytes()

    async def answer(request: Request) -> Response:  # noqa: ARG001 (starlette's signature)
        return Response(content, media_type=kind, headers=_HEADERS)

    return answer


class _Log:
    """The log of a run. It is read again only after it has changed."""

    def __init__(self, run: Path) -> None:
        self._run, self._lock = run, threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._data: dict[str, Any] = {}

    def data(self) -> dict[str, Any]:
        """Return the content of the page, or an error that the page shows."""
        with self._lock:
            try:
                status = (self._run / LOG).stat()
                if self._seen != (seen := (status.st_size, status.st_mtime_ns)):
                    self._data, self._seen = watch_data(read_log(self._run)), seen
            except FileNotFoundError:
                self._data, self._seen = watch_data([]), None
            except (FileFormatError, OSError) as error:
                return {"name": self._run.resolve().name, "error": str(error)}
            return {"name": self._run.resolve().name, **self._data}

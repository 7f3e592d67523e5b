"""Errors of the server in the JSON form of OpenAI's API, which the clients of this API understand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toynn.extras import naming_the_extra

with naming_the_extra():
    from starlette.responses import Response

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An error that the server sends to the client.

    status: the HTTP status code.
    message: one sentence.
    param: the name of the field that is wrong.
    code: a name of the error for programs.
    headers: more headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def content(self) -> dict[str, Any]:
        """Return the body of the response."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _TYPES.get(self.status, kind)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """Return the response."""
        return json_response(self.content(), self.status, self.headers)


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON body."""
    return Response(json.dumps(content, allow_nan=False), status, headers, media_type="application/json")

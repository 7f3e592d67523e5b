"""The ASGI application of `toynn serve`: the routes of OpenAI's API for one model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any

from toynn.api.chat_model import continuation, reply_to
from toynn.api.chat_prompt import PromptTooLongError
from toynn.api.reply_stream import ReplyStream
from toynn.api.text_model import TextModel
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.serve.api_error import ApiError, json_response
from toynn.serve.generation_worker import Ended, Failed, GenerationWorker, Job, Refused
from toynn.serve.guards import KeyGuard, OriginGuard
from toynn.serve.limits import Limits
from toynn.serve.reply_bodies import DONE, ReplyBodies, server_event
from toynn.serve.request_fields import GenerationRequest, body_object, chat_request, completion_request

with naming_the_extra():
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send


class ModelApp:
    """The application and the worker of one model.

    name: the name of the model in the API.
    template: the chat template, as for `TextModel.chat`.
    key: the key that every request must have; None for no key.
    hosts, origins: see `OriginGuard`.
    app: the ASGI application.
    """

    def __init__(
        self,
        model: TextModel,
        name: str,
        *,
        limits: Limits,
        template: str | os.PathLike[str] | None = None,
        key: str | None = None,
        hosts: Collection[str] | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self._model, self._name, self._template, self._limits = model, name, template, limits
        self._created = int(time.time())
        self._worker = GenerationWorker(limits.queue)
        self._jobs: set[Job] = set()
        middleware = [Middleware(OriginGuard, hosts=hosts, origins=origins)]
        if origins:
            middleware.append(
                Middleware(
                    CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"]
                )
            )
        if key is not None:
            middleware.append(Middleware(KeyGuard, key=key))
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._one_model),
                Route("/v1/completions", self._completions, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ],
            middleware=middleware,
            exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _unexpected},
        )

    def close(self) -> None:
        """End all replies and the worker."""
        for job in tuple(self._jobs):
            job.cancel()
        self._worker.close()

    # ---- routes ----

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 (starlette's signature)
        return json_response({"status": "ok"})

    async def _models(self, request: Request) -> Response:  # noqa: ARG002 (starlette's signature)
        return json_response({"object": "list", "data": [self._described()]})

    async def _one_model(self, request: Request) -> Response:
        self._check_name(request.path_params["name"])
        return json_response(self._described())

    async def _completions(self, request: Request) -> Response:
        body = body_object(await self._body(request))
        wanted = completion_request(body, self._model.n_ctx, self._model.sampling_defaults)
        return await self._reply(request, wanted)

    async def _chat(self, request: Request) -> Response:
        body = body_object(await self._body(request))
        wanted = chat_request(body, self._model.n_ctx, self._model.sampling_defaults)
        return await self._reply(request, wanted)

    def _described(self) -> dict[str, Any]:
        return {"id": self._name, "object": "model", "created": self._created, "owned_by": "toynn"}

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self._name:
            raise ApiError(
                404,
                f"there is no model {name!r:.80}; this server has the model {self._name!r}",
                param="model",
                code="model_not_found",
            )

    # ---- requests ----

    async def _body(self, request: Request) -> bytes:
        """Return the body of a request. Raises ApiError if it is too large or arrives too slowly."""
        most = self._limits.body
        too_large = ApiError(413, f"the request body must have at most {most} bytes", code="request_too_large")
        size = request.headers.get("content-length", "")
        if size.isascii() and size.isdigit() and int(size[:20]) > most:
            raise too_large

        async def read() -> bytes:
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
            return bytes(body)

        try:
            return await asyncio.wait_for(read(), self._limits.client_seconds)
        except asyncio.TimeoutError:
            seconds = self._limits.client_seconds
            raise ApiError(408, f"the request body did not arrive within {seconds:g} seconds") from None
        except ClientDisconnect:
            raise ApiError(400, "the client closed the connection before the end of the request body") from None

    def _start(self, wanted: GenerationRequest) -> ReplyStream:
        if wanted.messages is not None:
            return reply_to(self._model, wanted.messages, wanted.options, template=self._template)
        return continuation(self._model, wanted.prompt or "", wanted.options)

    async def _reply(self, request: Request, wanted: GenerationRequest) -> Response:
        self._check_name(wanted.model)
        job = Job(lambda: self._start(wanted), asyncio.get_running_loop())
        if not self._worker.submit(job):
            raise ApiError(
                429,
                f"the server is busy: {self._limits.queue} requests wait already; try again later",
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        bodies = ReplyBodies(wanted.messages is not None, self._name, wanted.options.sampling.seed)
        pieces = self._pieces(request, job)
        try:
            # if an error comes before the first piece, the reply can still have another HTTP status
            first = await anext(pieces)
            if wanted.stream:
                return _EventStream(_chunks(first, pieces, bodies, wanted.usage_at_end), pieces)
            text = ""
            stream = first
            while not isinstance(stream, ReplyStream):
                text += stream
                stream = await anext(pieces)
        except BaseException:
            await pieces.aclose()
            raise
        await pieces.aclose()
        return json_response(bodies.whole(text, stream))

    async def _pieces(self, request: Request, job: Job) -> AsyncGenerator[str | ReplyStream, None]:
        """Yield the pieces of a reply, and at the end its stream.

        Cancel the job if the client leaves or the time is over.
        """
        end = time.monotonic() + self._limits.seconds
        gone = asyncio.ensure_future(_disconnected(request))
        self._jobs.add(job)
        try:
            while True:
                event = asyncio.ensure_future(job.events.get())
                try:
                    await asyncio.wait(
                        {event, gone}, timeout=max(end - time.monotonic(), 0), return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    if not event.done():
                        event.cancel()
                if not event.done() or event.cancelled():
                    raise self._interrupted(gone.done())
                match event.result():
                    case Ended(stream):
                        yield stream
                        return
                    case Refused(error) | Failed(error) as failed:
                        raise _error_of(error, refused=isinstance(failed, Refused))
                    case piece:
                        yield piece
        finally:
            self._jobs.discard(job)
            job.cancel()
            gone.cancel()

    def _interrupted(self, gone: bool) -> ApiError:
        if gone:
            return ApiError(400, "the client closed the connection before the end of the reply")
        return ApiError(
            504,
            f"the reply took longer than {self._limits.seconds:g} seconds, the limit of this server",
            code="timeout",
            headers={"x-should-retry": "false"},  # without this header, OpenAI's client would send the request again
        )


async def _chunks(
    first: str | ReplyStream, pieces: AsyncIterator[str | ReplyStream], bodies: ReplyBodies, usage: bool
) -> AsyncIterator[bytes]:
    """Yield the body of a streamed response. An error after the first piece becomes the last event."""
    if (head := bodies.first()) is not None:
        yield head
    event = first
    try:
        while not isinstance(event, ReplyStream):
            yield bodies.piece(event)
            event = await anext(pieces)
    except ApiError as error:
        yield server_event(error.content())
        return
    yield bodies.last(event)
    if usage:
        yield bodies.usage(event)
    yield DONE


class _EventStream(Response):
    """A response of server-sent events. It stops the reply if the client closes the connection early."""

    def __init__(self, chunks: AsyncIterator[bytes], pieces: AsyncGenerator[str | ReplyStream, None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._chunks, self._pieces = chunks, pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (starlette's signature)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._pieces.aclose()


async def _disconnected(request: Request) -> None:
    """Return when the client has closed the connection."""
    with contextlib.suppress(ClientDisconnect):
        while (await request.receive())["type"] != "http.disconnect":
            pass


def _error_of(error: BaseException, *, refused: bool) -> ApiError:
    """Return the error for the client. Print an error on stderr if the client did not cause it."""
    if refused and isinstance(error, PromptTooLongError):
        return ApiError(400, str(error), code="context_length_exceeded")
    if refused and isinstance(error, TinyNNValueError | TinyNNTypeError):
        return ApiError(400, str(error))
    return _internal(error)


def _internal(error: BaseException) -> ApiError:
    message = " ".join(str(error).split()) or "no message"
    print(f"toynn: {type(error).__name__} while a request was answered: {message}", file=sys.stderr, flush=True)
    if isinstance(error, MemoryError):
        return ApiError(503, "the server has too little memory for this request", code="out_of_memory")
    return ApiError(500, "an error in the server; its stderr says more", code="internal_error")


async def _api_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 (starlette's signature)
    assert isinstance(error, ApiError)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: f"there is no {request.url.path!r:.100} here; the paths are /v1/models, /v1/completions and "
        "/v1/chat/completions",
        405: f"{request.url.path} does not take the method {request.method!r:.20}",
    }
    return ApiError(
        error.status_code, messages.get(error.status_code, str(error.detail)), headers=error.headers
    ).response()


async def _unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001 (starlette's signature)
    return _internal(error).response()

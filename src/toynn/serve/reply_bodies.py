"""The bodies of responses in the form of OpenAI's API: whole replies, and the chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from toynn.api.reply_stream import ReplyStream

_REASONS = {"end_of_text": "stop", "stop_string": "stop", "max_tokens": "length", "context_full": "length"}


class ReplyBodies:
    """Makes the JSON objects of one response. chat: whether the response answers a conversation. model: the name of the
    model.

    seed: the seed of the sampling. The response contains the seed, because the server chooses a random seed if the
        request has none.
    """

    def __init__(self, chat: bool, model: str, seed: int) -> None:
        self._chat = chat
        kind = "chat.completion" if chat else "text_completion"
        name = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._head = {"id": name, "object": kind, "created": int(time.time()), "model": model, "seed": seed}

    def whole(self, text: str, stream: ReplyStream) -> dict[str, Any]:
        """Return the body of a response without streaming."""
        content = {"message": {"role": "assistant", "content": text, "refusal": None}} if self._chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason_of(stream)}
        return {**self._head, "choices": [choice], "usage": usage_of(stream)}

    def first(self) -> bytes | None:
        """Return the first chunk of a stream: the role of the message. None if the stream has no such chunk."""
        return self._chunk({"delta": {"role": "assistant", "content": "", "refusal": None}}) if self._chat else None

    def piece(self, text: str) -> bytes:
        """Return the chunk of a piece of the text."""
        return self._chunk({"delta": {"content": text}} if self._chat else {"text": text})

    def last(self, stream: ReplyStream) -> bytes:
        """Return the chunk that says why the reply ended."""
        return self._chunk({"delta": {}} if self._chat else {"text": ""}, reason_of(stream))

    def usage(self, stream: ReplyStream) -> bytes:
        """Return the chunk with the counts of tokens."""
        return server_event({**self._chunk_head(), "choices": [], "usage": usage_of(stream)})

    def _chunk(self, content: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
        return server_event({**self._chunk_head(), "choices": [choice]})

    def _chunk_head(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk"} if self._chat else self._head


DONE = b"data: [DONE]\n\n"


def server_event(content: object) -> bytes:
    """Return a server-sent event with JSON data."""
    return b"data: " + json.dumps(content, allow_nan=False).encode() + b"\n\n"


def reason_of(stream: ReplyStream) -> str | None:
    """Return why a reply ended, by the names of OpenAI's API."""
    return None if stream.finish_reason is None else _REASONS.get(stream.finish_reason)


def usage_of(stream: ReplyStream) -> dict[str, Any]:
    """Return the counts of tokens. cached_tokens: prompt tokens that the model had read before."""
    return {
        "prompt_tokens": stream.prompt_tokens,
        "completion_tokens": stream.reply_tokens,
        "total_tokens": stream.prompt_tokens + stream.reply_tokens,
        "prompt_tokens_details": {"cached_tokens": stream.reused_tokens},
    }

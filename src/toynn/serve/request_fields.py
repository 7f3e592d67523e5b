"""Read the body of a request: check every field, and refuse fields that the server does not support."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from toynn.api.chat_model import checked_stop
from toynn.api.reply_stream import ReplyOptions
from toynn.arguments import boolean, integer, kind_of, text
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.serve.api_error import ApiError
from toynn.text.sampling import Sampling

_ROLES = ("system", "developer", "user", "assistant")
# Fields that the server reads.
_COMMON = ("model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop")
_CHAT = (*_COMMON, "messages", "max_completion_tokens")
_COMPLETION = (*_COMMON, "prompt")
# Fields that say something about the request, but do not change the reply.
_IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
# Fields that are accepted only with a value that changes nothing, because the server does not have these functions.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}


@dataclass(frozen=True)
class GenerationRequest:
    """A request for a reply.

    prompt: a text or token ids to continue; None for a chat.
    messages: the conversation of a chat; None for a completion.
    stream: send each piece as soon as it is known.
    usage_at_end: with stream, send the counts of tokens.
    """

    model: str | None
    options: ReplyOptions
    stream: bool
    usage_at_end: bool
    prompt: str | list[int] | None = None
    messages: list[dict[str, str]] | None = None


def body_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request body. Raises ApiError if the body is not a JSON object in UTF-8."""
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the request body must be JSON in UTF-8: {' '.join(str(error).split()):.200}") from None
    if not isinstance(content, dict):
        raise ApiError(400, f"the request body must be a JSON object, got {kind_of(content)}")
    return content


def completion_request(body: Mapping[str, Any], n_ctx: int, defaults: Sampling) -> GenerationRequest:
    """Return the request of POST /v1/completions. n_ctx: the context length. defaults: the values of the sampling
    settings that the request leaves out. Raises ApiError if a field is missing, unknown or wrong.
    """
    fields = _known(body, _COMPLETION)
    if "prompt" not in fields:
        raise ApiError(400, "prompt is missing; give a text or a list of token ids", param="prompt")
    return _request(fields, n_ctx, defaults, 16, prompt=_prompt(fields["prompt"]))


def chat_request(body: Mapping[str, Any], n_ctx: int, defaults: Sampling) -> GenerationRequest:
    """Return the request of POST /v1/chat/completions. The arguments are those of `completion_request`."""
    fields = _known(body, _CHAT)
    if "messages" not in fields:
        raise ApiError(400, "messages is missing; give a list of messages", param="messages")
    if not isinstance(fields["messages"], list) or not fields["messages"]:
        got = "an empty list" if fields["messages"] == [] else kind_of(fields["messages"])
        _wrong("messages", f"must be a list of at least one message, got {got}")
    if "max_completion_tokens" in fields:
        fields["max_tokens"] = _checked("max_completion_tokens", integer, fields["max_completion_tokens"], 0)
    messages = [_message(f"messages[{i}]", one) for i, one in enumerate(fields["messages"])]
    return _request(fields, n_ctx, defaults, n_ctx, messages=messages)


def _known(body: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that the server reads, without those that are null. Raise ApiError for other fields."""
    fields = {}
    for name, value in body.items():
        if name in names:
            if value is not None:
                fields[name] = value
        elif name in _NEUTRAL:
            if value is not None and not any(_same(value, neutral) for neutral in _NEUTRAL[name]):
                allowed = " or ".join(json.dumps(one) for one in _NEUTRAL[name]) or "null"
                raise ApiError(400, f"{name} is not supported; leave it out, or give {allowed}", param=name)
        elif name not in _IGNORED:
            raise ApiError(400, f"there is no field {name!r:.60} in this request", param=f"{name!r:.60}".strip("'"))
    return fields


def _same(value: object, neutral: object) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _request(
    fields: Mapping[str, Any],
    n_ctx: int,
    defaults: Sampling,
    max_tokens: int,
    *,
    prompt: str | list[int] | None = None,
    messages: list[dict[str, str]] | None = None,
) -> GenerationRequest:
    sampling = {name: getattr(defaults, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    sampling["seed"] = secrets.randbits(31)  # as with OpenAI's API, a request without a seed gets a random seed
    for name in (*sampling,):
        if name in fields:
            sampling[name] = fields[name]
            _checked(name, lambda n, value: Sampling(**{n: value}), fields[name])
    most = _checked("max_tokens", integer, fields.get("max_tokens", max_tokens), 0)
    stop = fields.get("stop", [])
    stop = _checked("stop", lambda _, value: checked_stop(value), [stop] if isinstance(stop, str) else stop)
    stream = _checked("stream", boolean, fields.get("stream", False))
    return GenerationRequest(
        model=_checked("model", text, fields["model"]) if "model" in fields else None,
        options=ReplyOptions(Sampling(**sampling), min(most, n_ctx), stop),
        stream=stream,
        usage_at_end=_include_usage(fields.get("stream_options", {}), stream),
        prompt=prompt,
        messages=messages,
    )


def _include_usage(options: object, stream: bool) -> bool:
    if not isinstance(options, dict):
        _wrong("stream_options", f"must be an object, got {kind_of(options)}")
    if options and not stream:
        _wrong("stream_options", "needs stream = true")
    for name in options:
        if name not in ("include_usage", "include_obfuscation"):
            _wrong("stream_options", f"must have only the field include_usage, got {name!r:.60}")
    if options.get("include_obfuscation"):
        _wrong("stream_options", "does not support include_obfuscation; leave it out")
    return bool(_checked("stream_options", boolean, options.get("include_usage") or False))


def _prompt(value: object) -> str | list[int]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        _wrong("prompt", f"must be a text or a list of token ids, got {kind_of(value)}")
    if isinstance(value[0], str | list):
        _wrong("prompt", f"must be one text, got a list of {len(value)}; send one request for each text")
    return [int(_checked("prompt", integer, one, 0)) for one in value]


def _message(name: str, message: object) -> dict[str, str]:
    if not isinstance(message, dict):
        _wrong("messages", f"must contain objects, but {name} is of type {kind_of(message)}")
    role = message.get("role")
    if role not in _ROLES:
        _wrong("messages", f"must have roles from {', '.join(_ROLES)}, but {name}.role is {role!r:.60}")
    for key, value in message.items():
        if key not in ("role", "content", "name") and value is not None and value != []:
            _wrong("messages", f"must have only the fields role and content, but {name} has {key!r:.60}")
    return {"role": "system" if role == "developer" else role, "content": _content(name, message.get("content"))}


def _content(name: str, content: object) -> str:
    """Return the text of a message. Clients also send it as a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        _wrong("messages", f"must have a text as content, but {name}.content is of type {kind_of(content)}")
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            _wrong("messages", f"can contain only text, but {name}.content has a part of another type")
        texts.append(part["text"])
    return "".join(texts)


def _checked(name: str, check: Any, value: object, *bounds: int) -> Any:
    """Return check(name, value, *bounds). Turn its error into an ApiError that names the field."""
    try:
        return check(name, value, *bounds)
    except (TinyNNTypeError, TinyNNValueError) as error:
        raise ApiError(400, _in_json(str(error)), param=name) from None


def _in_json(message: str) -> str:
    """Return a message about a Python argument with the names that JSON uses."""
    return re.sub(r"\ba str\b", "a string", message.replace("True or False", "true or false"))


def _wrong(name: str, problem: str) -> NoReturn:
    raise ApiError(400, f"{name} {problem}", param=name)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number; use a finite number")

"""Turn the content of a line, an element or a row into a sample: a conversation, a prompt with its completion, a text,
or a pair of which one part is preferred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from toynn.data.sources.strict_json import parsed
from toynn.errors import TinyNNValueError

# The formats of samples. "plain" is a file of plain text, which is divided into documents.
FORMATS = ("messages", "conversations", "prompt", "preference", "alpaca", "text", "plain")
# The fields that show a format, in the order in which the formats are tried.
_SHOWN_BY = {
    "preference": ("chosen", "rejected"),
    "messages": ("messages",),
    "conversations": ("conversations",),
    "prompt": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}
FIELDS = (
    "messages", "conversations", "prompt", "completion", "instruction", "input", "output", "text", "system", "history",
    "tools", "chat_template_kwargs", "chosen", "rejected",
)  # fmt: skip
# A message with these fields and without content says nothing. With other fields, such as "tool_calls", the template
# decides whether the message needs content.
_NOTHING_SAID = {"role", "content", "name"}
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bing", "bard"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
}


@dataclass(frozen=True)
class Chat:
    """A conversation. messages, tools, variables: as in `toynn.text.chat_template.RenderRequest`.

    prompt: the number of messages that form the prompt; only the messages after the prompt are completions. None: not
    known, so every message of the assistant is a completion.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    prompt: int | None = None


@dataclass(frozen=True)
class Completion:
    """A prompt and the text with which a model should continue."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Text:
    """A text. The model should learn each of its tokens."""

    text: str


@dataclass(frozen=True)
class Pair:
    """Two continuations of the same prompt, of which a model should prefer the first one (chosen)."""

    chosen: Chat | Completion
    rejected: Chat | Completion


Sample: TypeAlias = Chat | Completion | Text | Pair


def format_of(record: Mapping[str, Any]) -> str | None:
    """Return the format to which the fields of a record belong, or None if no format has these fields."""
    for form, fields in _SHOWN_BY.items():
        if all(name in record for name in fields):
            return form
    return None


def what_is_missing(form: str, text_field: str) -> str:
    """Return the fields that a record of a format must have, for a message."""
    return " and ".join(map(repr, _SHOWN_BY[form])) if form != "text" else repr(text_field)


def sample_of(record: Mapping[str, Any], form: str, text_field: str = "text") -> Sample:
    """Return the sample of a record.

    form: one of FORMATS, except "plain". text_field: the field with the text, for the format "text".

    Raises TinyNNValueError, whose message says why the record cannot be used.
    """
    if form == "text":
        return Text(_str(record, text_field))
    if form == "prompt":
        return _completion(record)
    if form == "alpaca":
        return _alpaca(record)
    if form == "preference":
        return _pair(record)
    return _messages(record) if form == "messages" else _conversations(record)


def _messages(record: Mapping[str, Any]) -> Chat:
    messages = _list(record, "messages")
    return Chat(_checked_messages("messages", messages), _tools(record), _variables(record))


def _completion(record: Mapping[str, Any]) -> Sample:
    lists = [name for name in ("prompt", "completion") if isinstance(record.get(name), list)]
    if len(lists) == 1:
        raise TinyNNValueError(
            f"'prompt' and 'completion' must both be texts or both be lists of messages, but only "
            f"{lists[0]!r} is a list"
        )
    if lists:
        prompt = _checked_messages("prompt", record["prompt"])
        completion = _checked_messages("completion", record["completion"])
        return Chat([*prompt, *completion], _tools(record), _variables(record), len(prompt))
    found = Completion(_str(record, "prompt"), _str(record, "completion"))
    if not found.completion:
        raise TinyNNValueError("'completion' must not be empty")
    return found


def _pair(record: Mapping[str, Any]) -> Pair:
    """Return a pair. If the record has no prompt, the common beginning of both continuations becomes the prompt.

    This is also done if the prompt is a text but the continuations are lists of messages, or if the prompt is a list
    but the continuations are texts.
    """
    texts = isinstance(record.get("chosen"), str)
    read: Callable[[Mapping[str, Any], str], Any] = _str if texts else _list
    chosen, rejected = read(record, "chosen"), read(record, "rejected")
    prompt: Any = record.get("prompt")
    if prompt is None or isinstance(prompt, str) != texts:
        prompt, chosen, rejected = _common_beginning(chosen, rejected)
    else:
        prompt = _str(record, "prompt") if texts else record["prompt"]
    for name, continuation in (("chosen", chosen), ("rejected", rejected)):
        if not continuation:
            raise TinyNNValueError(f"{name!r} must have text or messages after the prompt, got none")
    if texts:
        return Pair(Completion(prompt, chosen), Completion(prompt, rejected))
    if not isinstance(prompt, list):
        raise TinyNNValueError(_wrong(record, "prompt", "a list of messages"))
    given = _checked_messages("prompt", prompt)
    tools, variables = _tools(record), _variables(record)
    return Pair(
        Chat([*given, *_checked_messages("chosen", chosen)], tools, variables, len(given)),
        Chat([*given, *_checked_messages("rejected", rejected)], tools, variables, len(given)),
    )


def _common_beginning(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Return the common beginning of two texts or lists of messages, and what follows it in each, as TRL does.

    A space before the first difference belongs to the continuations.
    """
    shorter = min(len(chosen), len(rejected))
    at = next((i for i in range(shorter) if chosen[i] != rejected[i]), max(shorter - 1, 0))
    if isinstance(chosen, str) and at > 0 and chosen[at - 1] == " ":
        at -= 1
    return chosen[:at], chosen[at:], rejected[at:]


def _alpaca(record: Mapping[str, Any]) -> Chat:
    messages = []
    if system := _str(record, "system", ""):
        messages.append({"role": "system", "content": system})
    history = record.get("history") or []
    if not isinstance(history, list):
        raise TinyNNValueError(_wrong(record, "history", "a list"))
    for i, pair in enumerate(history):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
            raise TinyNNValueError(f"history[{i}] must be a list of two texts, got {pair!r:.40}")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    question = _str(record, "instruction")
    if given := _str(record, "input", ""):
        question = f"{question}\n\n{given}" if question else given
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": _str(record, "output")}]
    return Chat(messages)


def _conversations(record: Mapping[str, Any]) -> Chat:
    messages = []
    if system := _str(record, "system", ""):
        messages.append({"role": "system", "content": system})
    for i, turn in enumerate(_list(record, "conversations")):
        if not isinstance(turn, dict):
            raise TinyNNValueError(f"conversations[{i}] must be an object, got {turn!r:.40}")
        if "role" in turn and "content" in turn and "from" not in turn:
            messages.append(_checked_messages(f"conversations[{i}]", [turn])[0])
            continue
        speaker = turn.get("from")
        role = _ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise TinyNNValueError(
                f"conversations[{i}]['from'] must be one of {', '.join(_ROLES)}, got {speaker!r:.40}"
            )
        if not isinstance(turn.get("value"), str):
            raise TinyNNValueError(f"conversations[{i}]['value'] must be a text, got {turn.get('value')!r:.40}")
        messages.append({"role": role, "content": turn["value"]})
    return Chat(messages, _tools(record), _variables(record))


def _checked_messages(name: str, messages: list[Any]) -> list[dict[str, Any]]:
    if not messages:
        raise TinyNNValueError(f"{name} must contain at least one message, got none")
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise TinyNNValueError(f"{name}[{i}] must be an object, got {message!r:.40}")
        if not isinstance(message.get("role"), str):
            raise TinyNNValueError(f"{name}[{i}]['role'] must be a text, got {message.get('role')!r:.40}")
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if not (content is None or isinstance(content, str | list)) or not all(isinstance(one, dict) for one in parts):
            raise TinyNNValueError(f"{name}[{i}]['content'] must be a text or a list of objects, got {content!r:.40}")
        if content is None and message.keys() <= _NOTHING_SAID:
            raise TinyNNValueError(
                f"{name}[{i}] must have a 'content' or, for example, 'tool_calls', got {message!r:.60}"
            )
    return messages


def _tools(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    tools = record.get("tools")
    if isinstance(tools, str):  # in many files, the tools are a string that contains JSON
        if not tools.strip():
            return None
        try:
            tools = parsed(tools.encode("utf-8"))
        except (UnicodeEncodeError, TinyNNValueError) as error:
            raise TinyNNValueError(
                f"'tools' must be a list of objects, or a text that contains such a list as JSON: {error}"
            ) from None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise TinyNNValueError(f"'tools' must be a list of objects, got {tools!r:.40}")
    return tools


def _variables(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record.get("chat_template_kwargs")
    if not (found is None or isinstance(found, dict)):
        raise TinyNNValueError(f"'chat_template_kwargs' must be an object, got {found!r:.40}")
    return found or {}


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise TinyNNValueError(_wrong(record, name, "a list"))
    if not value:
        raise TinyNNValueError(f"{name!r} must contain at least one element, got none")
    return value


def _str(record: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = record.get(name)
    if default is not None and value is None:
        return default
    if not isinstance(value, str):
        raise TinyNNValueError(_wrong(record, name, "a text"))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TinyNNValueError(f"{name!r} is not Unicode text: {error.reason} at character {error.start}") from None
    return value


def _wrong(record: Mapping[str, Any], name: str, what: str) -> str:
    if name in record:
        return f"{name!r} must be {what}, got {record[name]!r:.40}"
    keys = ", ".join(map(repr, list(record)[:8])) or "none"
    return f"the sample has no field {name!r}; its fields are {keys:.200}"

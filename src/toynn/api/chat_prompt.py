"""Turn a conversation into the prompt of a reply, and leave out its oldest messages if it is too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from toynn.arguments import kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.text.chat_template import ChatTemplate
from toynn.text.tokenizer_json import check_text

Message: TypeAlias = Mapping[str, str]


class PromptTooLongError(TinyNNValueError):
    """A prompt or a conversation does not fit into the context of the model."""


def checked_messages(messages: object) -> list[dict[str, str]]:
    """Check a conversation and return its messages as new dicts with the keys "role" and "content".

    Raises TinyNNTypeError for a value of the wrong type, or TinyNNValueError for no messages, a key that is missing or
    unknown, or a str that is not Unicode text.
    """
    if not isinstance(messages, list | tuple):
        raise TinyNNTypeError(f"messages must be a list of messages, got {kind_of(messages)}")
    if not messages:
        raise TinyNNValueError("messages must contain at least one message, got none")
    return [_checked(f"messages[{i}]", message) for i, message in enumerate(messages)]


def _checked(name: str, message: object) -> dict[str, str]:
    if not isinstance(message, dict):
        raise TinyNNTypeError(f"{name} must be a dict with the keys 'role' and 'content', got {kind_of(message)}")
    for key in ("role", "content"):
        if key not in message:
            raise TinyNNValueError(f"{name} must have the keys 'role' and 'content', but {key!r} is missing")
        check_text(message[key], f"{name}[{key!r}]")
    if others := [key for key in message if key not in ("role", "content")]:
        raise TinyNNValueError(f"{name} must have only the keys 'role' and 'content', but also has {others[0]!r:.40}")
    return {"role": str(message["role"]), "content": str(message["content"])}


class ReplyFrame(NamedTuple):
    """What a chat template puts around the text of a reply.

    start: the white space between the generation prompt and the reply, for example " ". The model generates it.
    end: the text that ends a reply, for example "<|im_end|>". A model that was trained with the template ends its
        replies with this text, also if its tokenizer has no token for the text.
    """

    start: str = ""
    end: str = ""


def reply_frame(template: ChatTemplate) -> ReplyFrame:
    """Return what a chat template puts around the text of a reply."""
    reply, question = "a reply", {"role": "user", "content": "a question"}
    try:
        text = template.render([question, {"role": "assistant", "content": reply}])
        prompt = template.render([question], add_generation_prompt=True)
    except TinyNNValueError:  # the first reply reports that the template is wrong
        return ReplyFrame()
    before, found, rest = text.rpartition(reply)
    if not found:
        return ReplyFrame()
    start = before.removeprefix(prompt) if before.startswith(prompt) else ""
    return ReplyFrame("" if start.strip() else start, rest.strip())


def fitting(
    messages: Sequence[dict[str, str]], ids_of: Callable[[Sequence[dict[str, str]]], list[int]], most: int
) -> tuple[list[int], int]:
    """Return the prompt of the newest messages that together fit into `most` tokens, and the number of messages left
    out.

    System messages at the start are kept. Other messages are left out, the oldest first, until the rest fits and begins
    with a message of the user. The last message of the user is never left out, even if the prompt then has more tokens.

    ids_of: returns the token ids of a conversation.
    """
    first = next((i for i, one in enumerate(messages) if one["role"] != "system"), len(messages))
    starts = [i for i, one in enumerate(messages) if i > first and one["role"] == "user"]
    ids, dropped = ids_of(messages), 0
    for start in starts:
        if len(ids) <= most:
            break
        ids, dropped = ids_of([*messages[:first], *messages[start:]]), start - first
    return ids, dropped

"""ChatModel: the part of TextModel that replies to conversations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from toynn.api.chat_prompt import Message, PromptTooLongError, checked_messages, fitting, reply_frame
from toynn.api.reply_stream import ChatReply, ReplyOptions, ReplyStream, start_reply
from toynn.api.same_arguments import same_arguments
from toynn.api.sampling_defaults import sampling_defaults
from toynn.arguments import boolean, integer, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.model.foreign_settings import ForeignSettings
from toynn.storage.regular_files import path_of
from toynn.text.chat_template import ChatTemplate
from toynn.text.named_templates import NAMED_TEMPLATES, default_template
from toynn.text.read_tokens import ReadTokens
from toynn.text.sampling import Sampling
from toynn.text.template_tokens import template_tokens
from toynn.text.tokenizer_json import check_text, token_ids
from toynn.wording import spelled

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_STOP_STRINGS = 16
_ROOM = 4  # with drop_oldest, at least 1/4 of the context stays free for the reply


class KeptTemplate(NamedTuple):
    """A chat template that was read.

    state: the time of the last change and the size of the template's file, when the file was read. None: the template
        does not come from a file.
    """

    state: tuple[int, int] | None
    template: ChatTemplate


class ChatModel(Initialised):
    """The methods `chat` and `chat_stream` of `TextModel`. `TextModel` sets the attributes."""

    decoder: LlamaDecoder
    tokenizer: Tokenizer
    start_id: int | None
    end_id: int | None
    end_ids: tuple[int, ...]
    path: Path
    foreign: ForeignSettings
    _never: npt.NDArray[np.int64]
    _read: ReadTokens
    _templates: dict[str | None, KeptTemplate]

    def chat_template(self, template: str | os.PathLike[str] | None = None) -> ChatTemplate:
        """Return a chat template. template: as for `chat`; None: the template of the model.

        A file is read again after it has changed, but not after it was removed. Raises the errors of `chat` for its
        argument `template`.
        """
        if template is None or (isinstance(template, str) and template in NAMED_TEMPLATES):
            key, state = template, None
        else:
            path = path_of("template", template)
            key, state = str(path), _state_of(path)
        kept = self._templates.get(key)
        if kept is not None and state in (kept.state, None):
            return kept.template
        made = KeptTemplate(state, self._new_template(template))
        if kept is not None:
            kept.template.close()
        self._templates[key] = made
        return made.template

    def _new_template(self, template: str | os.PathLike[str] | None) -> ChatTemplate:
        source, label = self.foreign.chat_template, f"the chat template of {self.path}"
        if template is not None:
            from toynn.api.template_files import given_templates  # a slow import, which most models do not need

            source = default_template(given_templates(template, "template"), "template")
            label = f"the chat template {os.fspath(template)!r}"
        elif not source:
            option, names = spelled("template=...", "--template"), " or ".join(map(repr, NAMED_TEMPLATES))
            raise TinyNNValueError(
                f"{self.path} has no chat template; give one with {option}: {names}, or the path of a Jinja file"
            )
        tokens = template_tokens(self.tokenizer, self.start_id, self.end_id, self.foreign)
        return ChatTemplate(source, special_tokens=tokens, name=label)

    @property
    def n_ctx(self) -> int:
        """The context length, in tokens."""
        return self.decoder.n_ctx

    @property
    def sampling_defaults(self) -> Sampling:
        """The sampling settings of `chat`: those that the model recommends, otherwise the defaults of toynn."""
        return sampling_defaults(self.foreign)

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        template: str | os.PathLike[str] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
        greedy: bool = False,
        stop: Sequence[str] = (),
        drop_oldest: bool = False,
    ) -> ReplyStream:
        """Return an iterator over the pieces of the reply that `chat` returns.

        The iterator yields each piece as soon as the piece is computed.

        The arguments and errors are those of `chat`. The method `stop` of the iterator ends the reply early.
        SessionError is also raised if the model was used for another text between two pieces.
        """
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        wanted: dict[str, Any] = {"seed": seed, **{name: value for name, value in given.items() if value is not None}}
        sampling = replace(self.sampling_defaults, **wanted)
        if boolean("greedy", greedy):
            sampling = Sampling.greedy()
        most = self.n_ctx if max_tokens is None else integer("max_tokens", max_tokens, 0)
        options = ReplyOptions(sampling, most, checked_stop(stop))
        return reply_to(self, messages, options, template=template, drop_oldest=boolean("drop_oldest", drop_oldest))

    @same_arguments(chat_stream)
    def chat(self, *args: Any, **options: Any) -> ChatReply:
        """Return the reply of the model to a conversation. The same arguments give the same reply.

        The result is a str with the attributes of `ReplyStream`, for example `finish_reason`. If the previous
        conversation began with the same tokens, these tokens are not read again. This does not change the reply.

        Args:
            messages: the conversation: dicts with the keys "role" ("system", "user" or "assistant") and "content".
            template: for a model without a chat template, or with a wrong one: "chatml", or the path of a Jinja file, a
                tokenizer_config.json or another model. Default: the template of the model.
            max_tokens: the largest number of new tokens. Default: until the context is full.
            temperature, top_k, top_p, min_p: how each token is sampled; see `toynn.Sampling`. Default:
                `sampling_defaults`.
            seed: random seed of the sampling.
            greedy: always take the most likely token; the sampling settings then have no effect.
            stop: strings that end the reply. The reply does not contain them.
            drop_oldest: if the conversation leaves less than a quarter of the context to the reply, leave out its
                oldest messages, but not the system message at the start. `dropped_messages` is their number.

        Raises:
            TinyNNValueError: the model has no chat template and none is given, or the given path has none; the
                conversation does not fit into the context; the template refuses the conversation; a setting is out of
                range.
            FileFormatError: the chat template is not valid. OSError: the file of the template cannot be read.
            TinyNNTypeError: an argument has the wrong type.
            SessionError: the model is closed.
        """
        return ChatReply(self.chat_stream(*args, **options))

    def _prompt_ids(self, prompt: str) -> list[int]:
        """Return the tokens that the model reads before it generates: at least one and at most n_ctx."""
        raise NotImplementedError


def reply_to(
    model: ChatModel,
    messages: object,
    options: ReplyOptions,
    *,
    template: str | os.PathLike[str] | None = None,
    drop_oldest: bool = False,
) -> ReplyStream:
    """Return the reply of a model to a conversation. The arguments and errors are those of `ChatModel.chat_stream`."""
    conversation, rules = checked_messages(messages), model.chat_template(template)

    def ids_of(part: Sequence[dict[str, str]]) -> list[int]:
        text = rules.render(part, add_generation_prompt=True)
        return token_ids(model.tokenizer, [text], "messages")[0]

    most = model.n_ctx - model.n_ctx // _ROOM if drop_oldest else model.n_ctx
    ids, dropped = fitting(conversation, ids_of, most) if drop_oldest else (ids_of(conversation), 0)
    if not ids:
        raise TinyNNValueError("the chat template renders the messages as an empty text; use another template")
    if len(ids) > model.n_ctx:
        raise PromptTooLongError(
            f"the conversation has {len(ids)} tokens, but the context length is {model.n_ctx}; shorten the messages"
        )
    frame = reply_frame(rules)
    token = model.tokenizer.token_to_id(frame.end) if frame.end else None
    end_ids = model.end_ids if token is None else (*model.end_ids, token)
    end = frame.end if token is None else ""
    stream = _started(model, ids, replace(options, turn_start=frame.start, turn_end=end), end_ids)
    stream.dropped_messages = dropped
    return stream


def continuation(model: ChatModel, prompt: str | Sequence[int], options: ReplyOptions) -> ReplyStream:
    """Return the text that continues a prompt. Its tokens are those that `TextModel.stream` would choose.

    prompt: a text, or the token ids that the model reads. Raises the errors of `TextModel.stream` for the prompt.
    """
    if isinstance(prompt, str):
        return _started(model, model._prompt_ids(prompt), options, model.end_ids)
    vocab = model.decoder.cfg.vocab
    ids = [integer(f"prompt[{i}]", token, 0, vocab - 1) for i, token in enumerate(prompt)]
    if not ids:
        raise TinyNNValueError("prompt must have at least one token, got none")
    if len(ids) > model.n_ctx:
        raise PromptTooLongError(f"prompt must have at most {model.n_ctx} tokens (the context length), got {len(ids)}")
    return _started(model, ids, options, model.end_ids)


def _state_of(path: Path) -> tuple[int, int] | None:
    """Return the time of the last change and the size of a file; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def checked_stop(stop: object) -> tuple[str, ...]:
    """Return the stop strings of a reply. Raises TinyNNTypeError or TinyNNValueError if they are wrong."""
    if not isinstance(stop, list | tuple):
        raise TinyNNTypeError(f"stop must be a list of strings, got {kind_of(stop)}")
    if len(stop) > _MOST_STOP_STRINGS:
        raise TinyNNValueError(f"stop must have at most {_MOST_STOP_STRINGS} strings, got {len(stop)}")
    for i, one in enumerate(stop):
        check_text(one, f"stop[{i}]")
        if not one:
            raise TinyNNValueError(f"stop[{i}] must not be empty")
    return tuple(stop)


def _started(model: ChatModel, ids: Sequence[int], options: ReplyOptions, end_ids: tuple[int, ...]) -> ReplyStream:
    return start_reply(model._read, model.tokenizer, ids, options, end_ids=end_ids, never=model._never)

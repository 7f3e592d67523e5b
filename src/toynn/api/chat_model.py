"""ChatModel: the part of TextModel that replies to conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toynn.api.chat_prompt import Message, PromptTooLongError, checked_messages, fitting, turn_end_of
from toynn.api.reply_stream import ChatReply, ReplyOptions, ReplyStream, start_reply
from toynn.api.sampling_defaults import sampling_defaults
from toynn.arguments import boolean, integer, kind_of, one_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.engine import LlamaDecoder
from toynn.model.foreign_settings import ForeignSettings
from toynn.text.chat_template import ChatTemplate
from toynn.text.named_templates import NAMED_TEMPLATES
from toynn.text.read_tokens import ReadTokens
from toynn.text.sampling import Sampling
from toynn.text.template_tokens import template_tokens
from toynn.text.tokenizer_json import check_text, token_ids
from toynn.wording import spelled

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_STOP_STRINGS = 16
_ROOM = 4  # with drop_oldest, the reply has room for at least 1/4 of the context


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
    _templates: dict[str | None, ChatTemplate]

    def chat_template(self, name: str | None = None) -> ChatTemplate:
        """Return the chat template with this name. None: the template of the model.

        Raises TinyNNValueError for an unknown name, and if the model has no template; TinyNNTypeError.
        """
        if name is not None:
            name = one_of(spelled("template", "--template"), name, tuple(NAMED_TEMPLATES))
        if name not in self._templates:
            self._templates[name] = self._new_template(name)
        return self._templates[name]

    def _new_template(self, name: str | None) -> ChatTemplate:
        source, label = self.foreign.chat_template, f"the chat template of {self.path}"
        if name is not None:
            source, label = NAMED_TEMPLATES[name], f"the chat template {name!r}"
        elif not source:
            named = " or ".join(
                f"{spelled('template=', '--template ')}{spelled(repr(one), one)}" for one in NAMED_TEMPLATES
            )
            raise TinyNNValueError(f"{self.path} has no chat template; choose one with {named}")
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

    def chat(
        self,
        messages: Sequence[Message],
        *,
        template: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
        greedy: bool = False,
        stop: Sequence[str] = (),
        drop_oldest: bool = False,
    ) -> ChatReply:
        """Return the reply of the model to a conversation. The same arguments give the same reply.

        The result is a str with the attributes of `ReplyStream`, for example `finish_reason`. If the previous
        conversation began with the same tokens, these tokens are not read again. This does not change the reply.

        Args:
            messages: the conversation: dicts with the keys "role" ("system", "user" or "assistant") and "content".
            template: "chatml", for a model without a chat template. Default: the template of the model.
            max_tokens: the largest number of new tokens. Default: until the context is full.
            temperature, top_k, top_p, min_p: how each token is sampled; see `toynn.Sampling`. Default:
                `sampling_defaults`.
            seed: random seed of the sampling.
            greedy: always take the most likely token; the sampling settings then have no effect.
            stop: strings that end the reply. The reply does not contain them.
            drop_oldest: if the conversation leaves less than a quarter of the context to the reply, leave out its
                oldest messages, but not the system message at the start. `dropped_messages` is their number.

        Raises:
            TinyNNValueError: the model has no chat template and none is given; the conversation does not fit into the
                context; the template refuses the conversation; a setting is out of range.
            TinyNNTypeError: an argument has the wrong type.
            SessionError: the model is closed.
        """
        return ChatReply(
            self.chat_stream(
                messages,
                template=template,
                max_tokens=max_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                seed=seed,
                greedy=greedy,
                stop=stop,
                drop_oldest=drop_oldest,
            )
        )

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        template: str | None = None,
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
        """Return an iterator over the reply that `chat` returns, which yields each piece as soon as it is computed.

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

    def _prompt_ids(self, prompt: str) -> list[int]:
        """Return the tokens that the model reads before it generates: at least one and at most n_ctx."""
        raise NotImplementedError


def reply_to(
    model: ChatModel,
    messages: object,
    options: ReplyOptions,
    *,
    template: str | None = None,
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
        raise TinyNNValueError("the chat template makes an empty text of the messages; use another template")
    if len(ids) > model.n_ctx:
        raise PromptTooLongError(
            f"the conversation has {len(ids)} tokens, but the context length is {model.n_ctx}; shorten the messages"
        )
    turn_end = turn_end_of(rules)
    token = model.tokenizer.token_to_id(turn_end) if turn_end else None
    if token is None:
        stream = _started(model, ids, replace(options, turn_end=turn_end), model.end_ids)
    else:
        stream = _started(model, ids, options, (*model.end_ids, token))
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
        raise PromptTooLongError(f"prompt must have at most {model.n_ctx} tokens, the context length, got {len(ids)}")
    return _started(model, ids, options, model.end_ids)


def checked_stop(stop: object) -> tuple[str, ...]:
    """Check the stop strings of a reply and return them. Raises TinyNNTypeError, TinyNNValueError."""
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

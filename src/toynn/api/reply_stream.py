"""ReplyStream: generated text that can be stopped, with stop strings, counts of tokens and reuse of the context."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from toynn.arguments import instance_of
from toynn.text.incremental_decoder import IncrementalDecoder
from toynn.text.read_tokens import ReadTokens
from toynn.text.sampling import Sampling, generate
from toynn.text.stop_strings import StopStrings, WithoutStart

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ReplyReason: TypeAlias = Literal["end_of_text", "max_tokens", "context_full", "stop_string", "stopped"]
_PART = 512  # after this number of prompt tokens, the stream checks whether `stop` was called


class ReplyStream(Iterator[str]):
    """The result of `TextModel.chat_stream`: an iterator over the pieces of a reply.

    Each piece consists of whole characters.

    finish_reason: why the reply ended. It is None until the last piece was returned, then one of

    - "end_of_text": the model chose an end token (one of `TextModel.end_ids`).
    - "stop_string": one of the stop strings occurred. The reply ends before this string.
    - "max_tokens": max_tokens tokens were generated.
    - "context_full": conversation and reply fill the context.
    - "stopped": `stop` was called.

    prompt_tokens: number of tokens of the prompt.
    reused_tokens: number of prompt tokens that the model had read before and did not read again.
    reply_tokens: number of tokens generated so far.
    dropped_messages: number of the oldest messages that were left out, because the conversation would not have fit into
        the context.
    """

    finish_reason: ReplyReason | None = None
    prompt_tokens: int = 0
    reused_tokens: int = 0
    reply_tokens: int = 0
    dropped_messages: int = 0
    _pieces: Iterator[str] = iter(())
    _stopped: bool = False

    def stop(self) -> None:
        """End the reply after the current token. Another thread or a signal handler may call this method."""
        self._stopped = True

    def __next__(self) -> str:
        return next(self._pieces)


class ChatReply(str):
    """The result of `TextModel.chat`: the reply as a str, with the attributes of a `ReplyStream` that has ended."""

    __slots__ = ("dropped_messages", "finish_reason", "prompt_tokens", "reply_tokens", "reused_tokens")

    finish_reason: ReplyReason | None
    prompt_tokens: int
    reused_tokens: int
    reply_tokens: int
    dropped_messages: int

    def __new__(cls, stream: ReplyStream) -> ChatReply:
        instance_of("stream", stream, ReplyStream)
        made = super().__new__(cls, "".join(stream))
        for name in cls.__slots__:
            setattr(made, name, getattr(stream, name))
        return made


@dataclass(frozen=True)
class ReplyOptions:
    """How a reply is generated. stop: strings that end the reply. max_tokens: the largest number of new tokens.

    turn_start: the white space with which the chat template begins a reply. The reply does not contain it.
    turn_end: the text with which the chat template ends a reply, if the tokenizer has no token for it; otherwise "".
    """

    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...] = ()
    turn_start: str = ""
    turn_end: str = ""


def start_reply(
    read: ReadTokens,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    options: ReplyOptions,
    *,
    end_ids: Collection[int],
    never: npt.NDArray[np.int64],
) -> ReplyStream:
    """Return the reply to the prompt `ids`. The model reads the prompt when the first piece is requested.

    read: the tokens that the decoder has read before.
    end_ids: the tokens that end the reply.
    never: token ids that are never sampled.
    """
    stream = ReplyStream()
    stream.prompt_tokens = len(ids)
    stream._pieces = _pieces(stream, read, IncrementalDecoder(tokenizer, ids), list(ids), options, end_ids, never)
    return stream


def _pieces(
    stream: ReplyStream,
    read: ReadTokens,
    texts: IncrementalDecoder,
    ids: list[int],
    options: ReplyOptions,
    end_ids: Collection[int],
    never: npt.NDArray[np.int64],
) -> Iterator[str]:
    stops = StopStrings([one for one in (*options.stop, options.turn_end) if one])
    start = WithoutStart(options.turn_start)
    if _read_prompt(stream, read, ids):
        tokens = generate(read.decoder, ids[-1:], options.sampling, options.max_tokens, end_ids, never=never)
        for token in tokens:
            ids.append(token)
            read.note(ids)
            stream.reply_tokens += 1
            if piece := stops.add(start.add(texts.add(token))):
                yield piece
            if stops.stop is not None or stream._stopped:
                break
        if (reason := tokens.finish_reason) == "stop_token":
            read.note(ids)  # the decoder has now read the last yielded token too
        stream.finish_reason = "end_of_text" if reason == "stop_token" else reason
    if rest := stops.add(start.add(texts.finish()) + start.finish()) + stops.finish():
        yield rest
    if stops.stop is not None:
        stream.finish_reason = "end_of_text" if stops.stop == options.turn_end else "stop_string"
    elif stream.finish_reason is None:
        stream.finish_reason = "stopped"


def _read_prompt(stream: ReplyStream, read: ReadTokens, ids: list[int]) -> bool:
    """Read the prompt except for its last token, which `generate` reads. Return False if the reply was stopped."""
    stream.reused_tokens = read.reuse(ids)
    for start in range(stream.reused_tokens, len(ids) - 1, _PART):
        if stream._stopped:
            return False
        read.decoder.feed(ids[start : min(start + _PART, len(ids) - 1)])
        read.note(ids)
    return not stream._stopped

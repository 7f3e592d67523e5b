"""Encode rendered samples as token ids, and mark the tokens that count for the loss."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from toynn.data.samples.rendering import Place, Refused, Rendered, render
from toynn.data.samples.settings import SampleSettings
from toynn.data.samples.templates import ChatTemplates
from toynn.data.sources import Chat
from toynn.errors import TinyNNMemoryError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.text.tokenizer_json import token_spans

with naming_the_extra():
    from tokenizers import Tokenizer

_START, _END = itemgetter(0), itemgetter(1)
_BATCH, _BATCH_TEXT = 64, 1 << 20  # largest numbers of samples and of characters that are encoded together


@dataclass(frozen=True)
class Encoded:
    """A sample as tokens. ids: int32 (n,). counted: uint8 (n,), 1 for a token that counts for the loss, otherwise 0.

    truncated: whether the sample was too long.
    dropped: why the sample is left out, or "".
    rendered: the sample as text; None for a part of a plain text.
    """

    place: Place
    ids: npt.NDArray[np.int32]
    counted: npt.NDArray[np.uint8]
    text_bytes: int
    truncated: bool = False
    dropped: str = ""
    rendered: Rendered | None = None


class Encoder:
    """Encodes samples. eos_id: the token that ends a text, or None. templates: the chat templates, or None."""

    def __init__(
        self, tokenizer: Tokenizer, eos_id: int | None, templates: ChatTemplates | None, settings: SampleSettings
    ) -> None:
        self._tokenizer, self._end, self._templates = tokenizer, [] if eos_id is None else [eos_id], templates
        self._settings = settings

    def encoded(self, rendered: Iterable[Rendered | Refused]) -> Iterator[Encoded | Refused]:
        """Yield each sample as tokens, cut to the largest length. A refused sample is yielded unchanged."""
        batch: list[Rendered] = []
        characters = 0
        for one in rendered:
            if not isinstance(one, Rendered):
                yield from self._of(batch)
                yield one
                batch, characters = [], 0
                continue
            batch.append(one)
            characters += len(one.text)
            if len(batch) == _BATCH or characters >= _BATCH_TEXT:
                yield from self._of(batch)
                batch, characters = [], 0
        yield from self._of(batch)

    def _of(self, batch: list[Rendered]) -> Iterator[Encoded | Refused]:
        found = token_spans(self._tokenizer, [one.text for one in batch], "texts") if batch else []
        for one, (ids, offsets) in zip(batch, found, strict=True):
            yield self._cut_or_error(self._marked(one, ids, offsets))

    def _cut_or_error(self, encoded: Encoded) -> Encoded | Refused:
        try:
            return self._cut(encoded)
        except (TinyNNValueError, TinyNNMemoryError) as error:  # the chat template refuses the shorter conversation
            return Refused(encoded.place, error)

    def _marked(self, one: Rendered, ids: list[int], offsets: list[tuple[int, int]]) -> Encoded:
        """Return the tokens of a sample. A token is marked if it overlaps a part of the text that counts."""
        end = self._end if one.ends else []
        if one.spans is None:
            counted = np.ones(len(ids) + len(end), dtype=np.uint8)
        else:
            counted = np.zeros(len(ids) + len(end), dtype=np.uint8)
            counted[len(ids) :] = 1
            # bisect works, because both the starts and the ends of the tokens are in rising order
            for first, last in one.spans:
                begin = bisect_right(offsets, first, key=_END)
                counted[begin : bisect_left(offsets, last, begin, key=_START)] = 1
        all_ids = np.array([*ids, *end], dtype=np.int32)
        return Encoded(one.place, all_ids, counted, len(one.text.encode("utf-8")), rendered=one)

    def _cut(self, encoded: Encoded) -> Encoded:
        """Return the sample with at most max_tokens tokens, and say why it is left out if it cannot be used."""
        most, truncate = self._settings.max_tokens, self._settings.truncate
        if most is not None and encoded.ids.size > most:
            if truncate == "left":
                encoded = replace(encoded, ids=encoded.ids[-most:], counted=encoded.counted[-most:], truncated=True)
            else:
                encoded = self._with_fewer_turns(encoded, most) if truncate == "turns" else encoded
                if encoded.ids.size > most:
                    return replace(encoded, dropped="too long")
        return encoded if encoded.counted.any() else replace(encoded, dropped="no token counts")

    def _with_fewer_turns(self, encoded: Encoded, most: int) -> Encoded:
        """Drop the oldest turns until the sample fits. If the last turn alone does not fit, return this turn."""
        while encoded.ids.size > most and (shorter := self.without_oldest_turn(encoded)) is not None:
            encoded = shorter
        return encoded

    def without_oldest_turn(self, encoded: Encoded) -> Encoded | None:
        """Return a conversation without its oldest turn, or None if the sample has only one turn or is not a
        conversation.

        A turn is a message of the user and all messages up to the next message of the user. Messages of the system at
        the start are kept. Raises TinyNNValueError or TinyNNMemoryError if the chat template refuses the shorter
        conversation.
        """
        one = encoded.rendered
        if one is None or not isinstance(one.sample, Chat) or (shorter := _without_oldest_turn(one.sample)) is None:
            return None
        (found,) = render([(one.place, shorter)], self._templates, self._settings)
        if not isinstance(found, Rendered):
            raise found.error
        ((ids, offsets),) = token_spans(self._tokenizer, [found.text], "texts")
        return replace(self._marked(found, ids, offsets), truncated=True)


def _without_oldest_turn(chat: Chat) -> Chat | None:
    """Return the conversation without its oldest turn, or None if it has only one turn."""
    roles = [message["role"] for message in chat.messages]
    first = next((i for i, role in enumerate(roles) if role != "system"), len(roles))
    end = len(roles) if chat.prompt is None else chat.prompt
    following = next((i for i in range(first + 1, end) if roles[i] == "user"), None)
    if following is None:
        return None
    prompt = None if chat.prompt is None else chat.prompt - (following - first)
    return replace(chat, messages=[*chat.messages[:first], *chat.messages[following:]], prompt=prompt)

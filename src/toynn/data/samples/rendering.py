"""Render samples as texts, with the parts of a text that count for the loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from toynn.data.samples.settings import SampleSettings
from toynn.data.samples.templates import ChatTemplates
from toynn.data.sources import Chat, Completion, Pair, Sample, Text
from toynn.errors import TinyNNMemoryError, TinyNNValueError
from toynn.text.chat_template import RenderRequest
from toynn.wording import spelled

_BATCH = 64  # number of samples that are rendered together


class Place(NamedTuple):
    """The place of a sample in its source: its number, from 0, and the number of its line or row."""

    sample: int
    line: int


class Refused(NamedTuple):
    """A sample that the chat template refuses, with the error."""

    place: Place
    error: TinyNNValueError | TinyNNMemoryError


@dataclass(frozen=True)
class Rendered:
    """A sample as text.

    spans: the parts text[start:end] that count, as pairs (start, end); None: the whole text.
    ends: whether the end token follows the text.
    """

    place: Place
    sample: Sample
    text: str
    spans: list[tuple[int, int]] | None
    ends: bool


def render(
    samples: Iterable[tuple[Place, Sample]], templates: ChatTemplates | None, settings: SampleSettings
) -> Iterator[Rendered | Refused]:
    """Yield each sample as text, or the error of the chat template.

    Raises FileFormatError if the template is not valid, or TinyNNValueError for a conversation without a template.
    """
    samples = iter(samples)
    while batch := list(itertools.islice(samples, _BATCH)):
        chats = [sample for _, sample in batch if isinstance(sample, Chat)]
        if chats and templates is None:
            use = spelled("chat_template='chatml'", "--chat-template chatml")
            raise TinyNNValueError(
                "chat_template: the samples are conversations, but the tokenizer comes without a chat template; "
                f"give a chat template, for example {use}"
            )
        found = iter(templates.render_all([_request(chat, settings) for chat in chats]) if templates else [])
        for place, sample in batch:
            if isinstance(sample, Chat):
                one = next(found)
                if isinstance(one, Exception):
                    yield Refused(place, one)
                else:
                    spans = None if settings.loss == "all" else _chosen(one.spans, settings)
                    yield Rendered(place, sample, one.text, spans, False)
            elif isinstance(sample, Pair):
                raise AssertionError(
                    "bug in toynn: a pair was not divided into sequences before it was rendered; please report it"
                )
            else:
                yield _of_text(place, sample, settings)


def _request(chat: Chat, settings: SampleSettings) -> RenderRequest:
    spans = "none" if settings.loss == "all" else "generated" if chat.prompt is None else "completion"
    return RenderRequest(
        chat.messages, tools=chat.tools, variables=chat.variables, spans=spans, prompt=chat.prompt or 0
    )


def _of_text(place: Place, sample: Completion | Text, settings: SampleSettings) -> Rendered:
    if isinstance(sample, Text):
        return Rendered(place, sample, sample.text, None, True)
    text = sample.prompt + sample.completion
    return Rendered(place, sample, text, None if settings.loss == "all" else [(len(sample.prompt), len(text))], True)


def _chosen(spans: list[tuple[int, int]], settings: SampleSettings) -> list[tuple[int, int]]:
    """Join adjacent spans and leave out empty ones. If settings.loss is "last", return only the last span."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif end > start:
            joined.append((start, end))
    return joined[-1:] if settings.loss == "last" else joined

"""SampleTask: rendering and encoding blocks of samples, in this process or in the workers of a job."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from toynn.data.samples.encoding import Encoded, Encoder
from toynn.data.samples.pairs import EncodedPair, encoded_pairs, sequences_of
from toynn.data.samples.rendering import Place, Refused, render
from toynn.data.samples.settings import SampleSettings
from toynn.data.samples.templates import ChatTemplates
from toynn.data.sources import DataSource, Sample, Skipped
from toynn.extras import naming_the_extra

with naming_the_extra():
    from tokenizers import Tokenizer

_BLOCK = 64  # number of samples in a block

Result: TypeAlias = Encoded | EncodedPair | Refused


@dataclass(frozen=True)
class SampleBlock:
    """Consecutive samples of a source with their places, and the messages about the broken items that were found while
    the samples were read.
    """

    samples: list[tuple[Place, Sample]]
    broken: list[str]


class _TooManyBrokenError(Exception):
    """More items are broken than tolerated. The last block has the messages about these items."""


class _Messages(Skipped):
    """Collects the messages about broken items until they are taken."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._found: list[str] = []

    def add(self, message: str) -> None:
        self._found.append(message)
        if len(self._found) > self.most:
            raise _TooManyBrokenError

    def taken(self) -> list[str]:
        found, self._found = self._found, []
        return found


def placed(source: DataSource, skipped: Skipped) -> Iterator[tuple[Place, Sample]]:
    """Yield the samples of a source with their places."""
    for index, (number, sample) in enumerate(source.samples(skipped)):
        yield Place(index, number), sample


def sample_blocks(source: DataSource, tolerated: int) -> Iterator[SampleBlock]:
    """Yield the samples of a source in blocks. If more than `tolerated` items are broken, the last block has the
    messages about these items.
    """
    messages = _Messages(tolerated)
    samples = placed(source, messages)
    while True:
        try:
            block = list(itertools.islice(samples, _BLOCK))
        except _TooManyBrokenError:
            yield SampleBlock([], messages.taken())
            return
        broken = messages.taken()
        if not block and not broken:
            return
        yield SampleBlock(block, broken)


@dataclass(frozen=True)
class SampleTask:
    """Renders and encodes blocks of samples.

    eos_id: the token that ends a text, or None.
    templates: the chat templates by name; {} for none. template_tokens: the variables bos_token and others.
    pairs: true if the samples are preference pairs.
    """

    tokenizer: Tokenizer
    eos_id: int | None
    settings: SampleSettings
    templates: Mapping[str, str]
    template_tokens: Mapping[str, str]
    pairs: bool

    @contextmanager
    def opened(self) -> Iterator[Callable[[SampleBlock], list[Result]]]:
        """Yield the function that encodes a block. It uses chat templates, which are closed at the end."""
        with ExitStack() as stack:
            chat = None
            if self.templates:
                chat = stack.enter_context(ChatTemplates(self.templates, self.template_tokens))
            yield self.encoder(chat)

    def encoder(self, chat: ChatTemplates | None) -> Callable[[SampleBlock], list[Result]]:
        """Return the function that encodes a block with these chat templates."""
        # pairs are shortened later, so that both sequences of a pair lose the same tokens
        settings = replace(self.settings, max_tokens=None) if self.pairs else self.settings
        encoder = Encoder(self.tokenizer, self.eos_id, chat, settings)

        def encode(block: SampleBlock) -> list[Result]:
            sequences = encoder.encoded(render(sequences_of(block.samples), chat, self.settings))
            if not self.pairs:
                return [_without_text(one) for one in sequences]
            most, truncate = self.settings.max_tokens, self.settings.truncate
            return [_without_text(one) for one in encoded_pairs(sequences, most, truncate, encoder)]

        return encode


def _without_text(result: Result) -> Result:
    """Return a result without the rendered text, so that workers do not send the text to process 0."""
    if isinstance(result, Encoded):
        return replace(result, rendered=None)
    if isinstance(result, EncodedPair):
        chosen, rejected = (replace(one, rendered=None) for one in result.parts)
        return replace(result, chosen=chosen, rejected=rejected)
    return result

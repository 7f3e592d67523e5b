"""TextTask: the encoding of texts, as a task for the workers of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from toynn.extras import naming_the_extra
from toynn.text.documents import Batch, TextEncoder

with naming_the_extra():
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TextTask:
    """Encodes batches of texts: see `TextEncoder`."""

    tokenizer: Tokenizer

    @contextmanager
    def opened(self) -> Iterator[Callable[[Batch], list[list[int]]]]:
        """Yield the function that encodes a batch."""
        yield TextEncoder(self.tokenizer).encode

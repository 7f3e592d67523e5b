"""Text in, text out: a trained model with its tokenizer. Needs the extra toynn[cli]."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from toynn.arguments import integer
from toynn.errors import TinyNNValueError
from toynn.llm.engine import LlamaDecoder
from toynn.storage.checkpoint import load_checkpoint
from toynn.text.sampling import Sampling, generate
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    """How well a model foretells a text.

    tokens: that were foretold, each given those before it (at most n_ctx of them). text_bytes: of the text in UTF-8.
    """

    tokens: int
    text_bytes: int
    nats: float

    @property
    def loss(self) -> float:
        """Mean over the tokens of -log p, in nats."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.text_bytes


def load_tokenizer(content: bytes, where: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises TinyNNValueError naming `where` it comes from."""
    try:
        return parsed_tokenizer(content)
    except TinyNNValueError as error:
        raise TinyNNValueError(f"the tokenizer of {where} cannot be used: {error}") from None


class TextModel:
    """A checkpoint's model and tokenizer.

    Args:
        path: a run, or one checkpoint.
        which: of a run, the "latest" checkpoint or the "best".
        n_ctx: tokens that it can hold in mind; default: the model's own.
        n_threads: as for `Session`.

    Raises what `load_checkpoint` raises, and TinyNNValueError where there is no tokenizer that fits.
    """

    def __init__(
        self, path: Path, which: str = "latest", *, n_ctx: int | None = None, n_threads: int | None = None
    ) -> None:
        checkpoint = load_checkpoint(path, which)
        model = checkpoint.model
        if model.tokenizer is None:
            raise TinyNNValueError(f"{checkpoint.path} has no tokenizer.json: it cannot read or write text")
        self.step = checkpoint.step
        self.tokenizer = load_tokenizer(model.tokenizer, str(checkpoint.path))
        needed = ids_needed(self.tokenizer)
        if needed > model.shape.vocab:
            raise TinyNNValueError(
                f"the tokenizer of {checkpoint.path} needs {needed} ids, the model's vocabulary has {model.shape.vocab}"
            )
        self.start_id = model.bos_id
        self.end_id = model.eos_id
        self.decoder = LlamaDecoder(model.shape, model.weights, n_ctx=n_ctx, n_threads=n_threads)

    def encode(self, text: str) -> list[int]:
        """The text's token ids, without special tokens around them.

        Raises TinyNNTypeError, and TinyNNValueError for a str that is no Unicode text (it has lone surrogates).
        """
        return token_ids(self.tokenizer, [text])[0]

    def continue_text(self, prompt: str, sampling: Sampling, max_tokens: int) -> Iterator[str]:
        """Pieces of the text that continues the prompt, as they come; a piece ends where its characters are whole.

        Ends at the token that ends a text, after max_tokens, or where the context is full. An empty prompt starts a new
        text.

        The model holds one text in mind: another `continue_text` or `evaluate` on the way ends this one.

        Raises TinyNNValueError for a prompt that overfills the context or is no Unicode text, and where an empty one
        has no token to start from; SessionError when another text took the model's mind.
        """
        ids = token_ids(self.tokenizer, [prompt], "prompt")[0]
        if not ids:
            if self.start_id is None:
                raise TinyNNValueError("the prompt is empty, and the model knows no token that a text starts with")
            ids = [self.start_id]
        if len(ids) > self.decoder.n_ctx:
            raise TinyNNValueError(
                f"the prompt has {len(ids)} tokens, more than the {self.decoder.n_ctx} that the model holds in mind"
            )
        self.decoder.rewind()
        stop = () if self.end_id is None else (self.end_id,)
        made: list[int] = []
        shown = ""
        for token in generate(self.decoder, ids, sampling, max_tokens, stop):
            made.append(token)
            text: str = self.tokenizer.decode(made, skip_special_tokens=False)
            if text.endswith("\ufffd"):  # a character whose last bytes are still to come
                continue
            if text != shown:
                yield text[len(shown) :]
                shown = text
        rest: str = self.tokenizer.decode(made, skip_special_tokens=False)
        if rest != shown:
            yield rest[len(shown) :]

    def evaluate(self, text: str, window: int | None = None) -> Evaluation:
        """How well the model foretells the text, in windows of so many tokens (default: n_ctx), each on its own.

        Windows meet in one token, so that every token but the text's first is foretold once. The token
        that texts start with stands in front where the model has one: then the first is foretold too.

        Raises TinyNNValueError for a text too short to foretell anything, or a window out of 1..n_ctx.
        """
        window = self.decoder.n_ctx if window is None else integer("window", window, 1, self.decoder.n_ctx)
        ids = self.encode(text)
        if self.start_id is not None:
            ids = [self.start_id, *ids]
        if len(ids) < 2:
            raise TinyNNValueError("the text is too short: there is no token to foretell")
        nats = 0.0
        for start in range(0, len(ids) - 1, window):
            losses = self.decoder.score(ids[start : start + window + 1])
            nats += float(np.sum(losses, dtype=np.float64))
        return Evaluation(len(ids) - 1, len(text.encode("utf-8")), nats)

    def close(self) -> None:
        """Frees the model. Twice is harmless."""
        self.decoder.close()

    def __enter__(self) -> TextModel:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

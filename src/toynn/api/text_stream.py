"""Generated text, as a stream of pieces or as one str. Both have the attribute `finish_reason`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toynn.arguments import instance_of
from toynn.arguments import text as checked_text
from toynn.extras import naming_the_extra
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.text.incremental_decoder import IncrementalDecoder
from toynn.text.sampling import FinishReason, TokenStream

with naming_the_extra():
    from tokenizers import Tokenizer

__all__ = ["GeneratedText", "TextStream"]  # end_of_text is not in this list, because only toynn.api uses it


class TextStream(Iterator[str]):
    """The result of `TextModel.stream`: an iterator over the pieces of a text. A piece consists of whole characters.

    finish_reason: why the text ended. It is None until the last piece was returned, then one of

    - "end_of_text": the model chose an end token (one of `TextModel.end_ids`).
    - "max_tokens": max_tokens tokens were generated.
    - "context_full": prompt and text fill the context. With `rolling=True` the text continues instead.
    """

    finish_reason: FinishReason | None = None
    _tokens: TokenStream = TokenStream(iter(()))
    _pieces: Iterator[str] = iter(())

    def __init__(self, decoder: LlamaDecoder, tokens: TokenStream, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        instance_of("decoder", decoder, LlamaDecoder)
        instance_of("tokens", tokens, TokenStream)
        instance_of("tokenizer", tokenizer, Tokenizer)
        self._tokens = tokens
        self._pieces = _pieces(decoder, tokens, IncrementalDecoder(tokenizer, prompt))

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration:
            self.finish_reason = end_of_text(self._tokens.finish_reason)
            raise


def end_of_text(reason: FinishReason | None) -> FinishReason | None:
    """Return the finish reason of a text. reason: the finish reason of its tokens."""
    return "end_of_text" if reason == "stop_token" else reason


class GeneratedText(str):
    """The result of `TextModel.generate`: a str with the attribute finish_reason, which says why the text ended.

    finish_reason: "end_of_text", "max_tokens" or "context_full"; see `TextStream`.
    """

    __slots__ = ("finish_reason",)

    finish_reason: FinishReason | None

    def __new__(cls, text: str = "", finish_reason: FinishReason | None = None) -> GeneratedText:
        made = super().__new__(cls, checked_text("text", text))
        made.finish_reason = finish_reason
        return made


def _pieces(decoder: LlamaDecoder, tokens: TokenStream, texts: IncrementalDecoder) -> Iterator[str]:
    # This line runs when the first piece is requested; until then, the model can be used for another text.
    decoder.rewind()
    for token in tokens:
        if piece := texts.add(token):
            yield piece
    if rest := texts.finish():
        yield rest

"""Generated text: a stream of its pieces, and the whole of it, each with the reason why it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toynn.arguments import instance_of
from toynn.arguments import text as checked_text
from toynn.extras import naming_the_extra
from toynn.llm.engine import LlamaDecoder
from toynn.text.incremental_decoder import IncrementalDecoder
from toynn.text.sampling import FinishReason, TokenStream

with naming_the_extra():
    from tokenizers import Tokenizer


class TextStream(Iterator[str]):
    """The pieces of a text that `TextModel.stream` generates, each of whole characters, and why the text ended.

    finish_reason: None until the text has ended by itself, then one of

    - "end_of_text": the model ended the text: its next token is one of its end tokens (`TextModel.end_ids`).
    - "max_tokens": max_tokens tokens were generated.
    - "context_full": prompt and text fill the context, so the model cannot continue; `rolling=True` does not end there.
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
            reason = self._tokens.finish_reason
            self.finish_reason = "end_of_text" if reason == "stop_token" else reason
            raise


class GeneratedText(str):
    """The text that `TextModel.generate` returns: a str that also says why it ended.

    finish_reason: as for `TextStream`.
    """

    __slots__ = ("finish_reason",)

    finish_reason: FinishReason | None

    def __new__(cls, text: str = "", finish_reason: FinishReason | None = None) -> GeneratedText:
        made = super().__new__(cls, checked_text("text", text))
        made.finish_reason = finish_reason
        return made


def _pieces(decoder: LlamaDecoder, tokens: TokenStream, texts: IncrementalDecoder) -> Iterator[str]:
    decoder.rewind()  # only when the first piece is requested, so that another text can be read until then
    for token in tokens:
        if piece := texts.add(token):
            yield piece
    if rest := texts.finish():
        yield rest

"""GeneratingModel: the part of TextModel that continues texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toynn.api.chat_model import ChatModel
from toynn.api.chat_prompt import PromptTooLongError
from toynn.api.same_arguments import same_arguments
from toynn.api.text_stream import GeneratedText, TextStream, end_of_text
from toynn.arguments import boolean, integer, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.text.batch_generation import generate_each
from toynn.text.documents import prompt_ids
from toynn.text.incremental_decoder import IncrementalDecoder
from toynn.text.sampling import Sampling, generate
from toynn.text.token_rules import TokensAround


class GeneratingModel(ChatModel):
    """The methods `stream`, `generate` and `generate_batch` of `TextModel`. `TextModel` sets the attributes."""

    _around: TokensAround

    def _separators(self, separator: str | None = None) -> tuple[str, ...]:
        """Return the separator lines of a text. separator: the user's choice; "": no separator; None: the default."""
        raise NotImplementedError

    def stream(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.0,
        seed: int = 0,
        greedy: bool = False,
        rolling: bool = False,
    ) -> TextStream:
        """Return an iterator over the pieces of the text that `generate` returns.

        The iterator yields each piece as soon as the piece is computed.

        A piece consists of whole characters. After the last piece, the attribute `finish_reason` of the iterator says
        why the text ended. The arguments and errors are those of `generate`. SessionError is also raised if the model
        was used for another text between two pieces.
        """
        sampling = _sampling(Sampling(temperature, top_k, top_p, min_p, seed), greedy)
        max_tokens, rolling = integer("max_tokens", max_tokens, 0), boolean("rolling", rolling)
        ids = self._prompt_ids(prompt)
        keep = len(self._around.before) or int(ids[0] == self.start_id)
        tokens = generate(
            self.decoder, ids, sampling, max_tokens, self.end_ids, rolling=rolling, keep=keep, never=self._never
        )
        return TextStream(self.decoder, tokens, self.tokenizer, ids)

    @same_arguments(stream)
    def generate(self, *args: Any, **options: Any) -> GeneratedText:
        """Return a generated continuation, without the prompt itself. The same arguments give the same text.

        Generation ends when the model chooses an end token (`end_ids`), after max_tokens tokens, or when the context is
        full. The result is a str with the attribute `finish_reason`: "end_of_text", "max_tokens" or "context_full". An
        empty prompt starts a new text. Ids that are not tokens of the tokenizer are never sampled.

        The tokens that the tokenizer's own rules put around a text are added to the prompt, as in transformers and
        llama.cpp.

        Args:
            max_tokens: the largest number of new tokens.
            temperature, top_k, top_p, min_p, seed: how each token is sampled; see `toynn.Sampling`.
            greedy: always take the most likely token; the sampling settings then have no effect.
            rolling: do not end when the context is full. Instead the model reads the last n_ctx // 2 tokens again as
                its new context, and forgets the tokens before. Start tokens at the beginning of the prompt are kept:
                they become the first of these n_ctx // 2 tokens.

        Raises:
            TinyNNValueError: a setting is out of range; the prompt is longer than the context or is not Unicode text;
                the prompt is empty, but the model has no start token.
            TinyNNTypeError: an argument has the wrong type.
            SessionError: the model is closed.
        """
        pieces = self.stream(*args, **options)
        return GeneratedText("".join(pieces), pieces.finish_reason)

    def generate_batch(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.0,
        seed: int = 0,
        greedy: bool = False,
    ) -> list[GeneratedText]:
        """Return the continuation of each prompt: the text that `generate` returns for this prompt alone.

        Several prompts are computed at the same time. This takes less time than computing one prompt after another,
        because the weights are read once for all prompts. The arguments are those of `generate`.

        Raises the errors of `generate`. An error about a prompt names its number, counted from 0.
        """
        sampling = _sampling(Sampling(temperature, top_k, top_p, min_p, seed), greedy)
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise TinyNNTypeError(f"prompts must be a sequence of strings, got {kind_of(prompts)}")
        ids = [self._numbered_ids(i, prompt) for i, prompt in enumerate(prompts)]
        found = generate_each(self.decoder, ids, sampling, max_tokens, self.end_ids, never=self._never)
        texts = []
        for prompt, one in zip(ids, found, strict=True):
            decoder = IncrementalDecoder(self.tokenizer, prompt)
            pieces = [decoder.add(token) for token in one.tokens]
            texts.append(GeneratedText("".join([*pieces, decoder.finish()]), end_of_text(one.finish_reason)))
        return texts

    def _numbered_ids(self, i: int, prompt: str) -> list[int]:
        """Return the tokens of a prompt. An error begins with the number of the prompt."""
        try:
            return self._prompt_ids(prompt)
        except (TinyNNValueError, TinyNNTypeError) as error:
            raise type(error)(f"prompts[{i}]: {error}") from None

    def _prompt_ids(self, prompt: str) -> list[int]:
        """Return the tokens that the model reads before it generates: at least one and at most n_ctx."""
        ids = prompt_ids(self.tokenizer, prompt, self._separators(), self.end_id)
        ids = [*self._around.before, *ids, *(self._around.after if ids else ())]
        if not ids:
            if self.start_id is None:
                raise TinyNNValueError(
                    "the prompt has no tokens, and the model has no start token that could begin a text; give a "
                    "prompt with text"
                )
            ids = [self.start_id]
        if len(ids) > self.n_ctx:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens, but the context length is {self.n_ctx}; shorten the prompt"
            )
        return ids


def _sampling(settings: Sampling, greedy: bool) -> Sampling:
    """Return the sampling settings. Wrong settings are refused even if `greedy` is true."""
    return Sampling.greedy() if boolean("greedy", greedy) else settings

"""TextModel: a trained model with its tokenizer, which reads, writes and scores text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from pathlib import Path
from types import TracebackType
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from toynn.api.evaluation import Evaluation, TokenScore, window_losses
from toynn.api.save_model import model_name, save_model
from toynn.api.text_stream import GeneratedText, TextStream
from toynn.arguments import boolean, integer, kind_of
from toynn.errors import TinyNNError, TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.engine import LlamaDecoder
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import Checkpoint
from toynn.text.documents import packed_ids, prompt_ids, separators_of
from toynn.text.incremental_decoder import token_texts
from toynn.text.sampling import Sampling, generate
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import ids_needed, ids_without_token, load_tokenizer, text_of, token_ids
from toynn.tinynn.memory import want_memory

_BYTES_OF_ID = 48  # a Python integer in a list, and the copy that the tokenizers library makes


class TextModel(Initialised):
    """A trained model with its tokenizer. `toynn.load` makes one from a path.

    Args:
        source: the model as values, with the path it was read from.
        n_ctx: context length: the largest number of tokens of a prompt and its continuation. Default: the model's own.
        n_threads: threads to compute with. Default: the number of cores that this process may use.

    Attributes:
        path: the checkpoint, file or folder that the model was read from. step: its training step, 0 if unknown.
        shape: its sizes and variants, a `ModelShape`. n_parameters: number of weights.
        tokenizer: the tokenizer, an object of the tokenizers library. tokenizer_json: the bytes of its file.
        decoder: the engine below, a `toynn.LlamaDecoder`.
        start_id: the token that a document may start with. end_id: the token that ends one. None: there is none.
        end_ids: all tokens before which generation ends, end_id first.

    One text is continued at a time: `generate`, `stream`, `score` and `evaluate` forget what was read before, and a
    `stream` that another call interrupts raises SessionError. `close` frees the memory; every later call then raises
    SessionError. Use the model as a context manager to close it.

    Raises TinyNNValueError if the model has no tokenizer, one that needs more ids than the model has, or if n_ctx or
    n_threads is out of range; TinyNNTypeError; TinyNNMemoryError.
    """

    def __init__(self, source: Checkpoint, *, n_ctx: int | None = None, n_threads: int | None = None) -> None:
        if not isinstance(source, Checkpoint):
            raise TinyNNTypeError(f"source must be a Checkpoint, got {type(source).__name__}; toynn.load takes a path")
        model = source.model
        if model.tokenizer is None:
            raise TinyNNValueError(f"{source.path} has no tokenizer.json, so it cannot read or write text")
        self.path, self.step, self.shape = source.path, source.step, model.shape
        self.n_parameters = sum(values.size for values in model.weights.values())
        self.tokenizer = load_tokenizer(model.tokenizer, str(source.path))
        self.tokenizer_json = model.tokenizer
        needed = ids_needed(self.tokenizer)
        if needed > model.shape.vocab:
            raise TinyNNValueError(
                f"the tokenizer of {source.path} needs {needed} ids, but the model's vocabulary has {model.shape.vocab}"
            )
        self._around = tokens_around(self.tokenizer)
        self.start_id = model.bos_id
        self.end_id = model.eos_id
        self.end_ids = model.end_ids
        self._foreign, self._other_eos_ids = model.foreign, model.other_eos_ids
        without_token = set(ids_without_token(self.tokenizer, model.shape.vocab))
        self._never = np.array(sorted(without_token.difference(self.end_ids)), dtype=np.int64)
        self.decoder = LlamaDecoder(model.shape, model.weights, n_ctx=n_ctx, n_threads=n_threads)

    @property
    def n_ctx(self) -> int:
        """The context length, in tokens."""
        return self.decoder.n_ctx

    def __repr__(self) -> str:
        shape = self.shape
        return (
            f"<toynn.TextModel {str(self.path)!r}: {shape.architecture}, {self.n_parameters / 1e6:.2f} M parameters, "
            f"{shape.n_layers} layers, vocabulary {shape.vocab}, context {self.n_ctx}, step {self.step}>"
        )

    # ---- tokens ----

    def encode(self, text: str, *, special_tokens: bool = False) -> list[int]:
        """Return the token ids of a text.

        special_tokens: with the tokens that the tokenizer's own rules put around a text, for example a token that
            begins it. `generate` reads its prompt with them, as transformers and llama.cpp do.

        Raises TinyNNTypeError, and TinyNNValueError for a str that is not Unicode text (it has lone surrogates).
        """
        ids = token_ids(self.tokenizer, [text])[0]
        return [*self._around.before, *ids, *self._around.after] if boolean("special_tokens", special_tokens) else ids

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Return the text of token ids, special tokens included.

        Raises TinyNNTypeError, TinyNNMemoryError, and TinyNNValueError for an id outside the vocabulary.
        """
        vocab = self.shape.vocab
        try:
            if isinstance(ids, Sized):
                want_memory("ids", _BYTES_OF_ID * len(ids), f"{len(ids)} token ids")
            given = [integer(f"ids[{i}]", token, 0, vocab - 1) for i, token in enumerate(ids)]
        except TinyNNError:
            raise
        except Exception as error:  # not iterable, or what its methods raise
            raise TinyNNTypeError(f"ids must be a sequence of token ids, got {kind_of(ids)}") from error
        return text_of(self.tokenizer, given)

    # ---- writing ----

    def generate(
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
    ) -> GeneratedText:
        """Return a continuation of the prompt, without the prompt itself. The same arguments give the same text.

        It ends before a token that ends a document (`end_ids`), after max_tokens, or when the context is full. The
        result is a str with the attribute `finish_reason`: "end_of_text", "max_tokens" or "context_full". An empty
        prompt starts a new text. Ids for which the tokenizer has no token are never sampled.

        The tokens that the tokenizer's own rules put around a text are added to the prompt, as in transformers and
        llama.cpp.

        Args:
            max_tokens: the largest number of new tokens.
            temperature, top_k, top_p, min_p, seed: how each token is sampled; see `toynn.Sampling`.
            greedy: always take the most likely token; the sampling settings then have no effect.
            rolling: go on when the context is full: the last half of it (n_ctx // 2 tokens) is read again as the new
                context, and the model no longer knows what stood before. The tokens that the tokenizer puts in front
                of a prompt, or the token that starts a text if the prompt begins with it, stay in front of the half
                and count as a part of it.

        Raises:
            TinyNNValueError: a setting that is out of range; a prompt that is longer than the context or is not Unicode
                text; an empty prompt if the model has no token that starts a text.
            TinyNNTypeError: an argument of the wrong type.
            SessionError: the model is closed.
        """
        pieces = self.stream(
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            greedy=greedy,
            rolling=rolling,
        )
        return GeneratedText("".join(pieces), pieces.finish_reason)

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
        """Return an iterator over the text of `generate`, in pieces of whole characters, as the tokens are computed.

        When it has ended, its attribute `finish_reason` says why. The arguments and errors are those of `generate`.
        SessionError is also raised if the model was used for another text between two pieces.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, seed)
        if boolean("greedy", greedy):
            sampling = Sampling.greedy()
        max_tokens, rolling = integer("max_tokens", max_tokens, 0), boolean("rolling", rolling)
        ids = self._prompt_ids(prompt)
        keep = len(self._around.before) or int(ids[0] == self.start_id)
        tokens = generate(
            self.decoder, ids, sampling, max_tokens, self.end_ids, rolling=rolling, keep=keep, never=self._never
        )
        return TextStream(self.decoder, tokens, self.tokenizer, ids)

    def _prompt_ids(self, prompt: str) -> list[int]:
        """Return what the model reads before it generates: at least one token, and at most n_ctx."""
        ids = prompt_ids(self.tokenizer, prompt, self._separators(), self.end_id)
        ids = [*self._around.before, *ids, *(self._around.after if ids else ())]
        if not ids:
            if self.start_id is None:
                raise TinyNNValueError(
                    "the prompt is empty, but the model has no token that starts a text; give a prompt"
                )
            ids = [self.start_id]
        if len(ids) > self.n_ctx:
            raise TinyNNValueError(
                f"the prompt has {len(ids)} tokens, more than the context length {self.n_ctx}; shorten it"
            )
        return ids

    # ---- scoring ----

    def score(
        self, text: str, window: int | None = None, stride: int | None = None, *, separator: str | None = None
    ) -> list[TokenScore]:
        """Return each predicted token of a text with the logarithm of its probability.

        The sum of the `log_prob` is the log-likelihood of the text. The arguments and errors are those of `evaluate`,
        which gives the figures for the whole text.
        """
        ids, _, losses = self._losses(text, window, stride, separator)
        return [
            TokenScore(token, text, -float(loss))
            for token, text, loss in zip(
                ids[1:], token_texts(self.tokenizer, ids)[1:], np.concatenate(losses), strict=True
            )
        ]

    def evaluate(
        self, text: str, window: int | None = None, stride: int | None = None, *, separator: str | None = None
    ) -> Evaluation:
        """Return the loss, perplexity and bits per byte of a text, computed in windows of `window` tokens.

        A text with separator lines is a list of documents, as `toynn.prepare` reads a file: a separator line is not
        scored, and the token that ends a document is predicted after each.

        Each window is predicted on its own, and every token but the first is counted once. The tokens that the
        tokenizer's own rules put around a text are added. If they put none in front, the token that starts a document
        stands there if the model has one, and the first token is counted too.

        Args:
            window: tokens of a window, 1 to n_ctx. Default: n_ctx.
            stride: tokens by which a window begins after the one before it, 1 to window. Of all windows but the first,
                only the last `stride` tokens count, so that each is predicted from at least window - stride tokens
                before it. A smaller stride takes window / stride times as long, and normally gives a lower loss.
                Default: window, so that windows do not overlap.
            separator: the line that separates documents; "": none. Lines of other separators are then text. Default:
                <|endoftext|>, and the text of the model's end token.

        Raises TinyNNValueError for a text with fewer than two tokens, a str that is not Unicode text, a window or
        stride out of range, or, without a separator argument, lines of a known separator such as </s> that would be
        taken for text; TinyNNTypeError; SessionError if the model is closed.
        """
        ids, text_bytes, losses = self._losses(text, window, stride, separator)
        nats = 0.0
        for one in losses:
            nats += float(np.sum(one, dtype=np.float64))
        return Evaluation(len(ids) - 1, text_bytes, nats)

    def _losses(
        self, text: str, window: int | None, stride: int | None, separator: str | None
    ) -> tuple[list[int], int, list[npt.NDArray[np.float32]]]:
        """Return the ids of the text, the start token included, the bytes of its documents, and the losses that count.

        The losses are a list with an array for each window.
        """
        window = self.n_ctx if window is None else integer("window", window, 1, self.n_ctx)
        stride = window if stride is None else integer("stride", stride, 1, window)
        separators = self._separators(separator)
        ids, text_bytes = packed_ids(self.tokenizer, text, separators, self.end_id, chosen=separator is not None)
        if self._around.before:
            ids = [*self._around.before, *ids]
        elif self.start_id is not None:
            ids = [self.start_id, *ids]
        if self._around.after and ids[-len(self._around.after) :] != self._around.after:
            ids += self._around.after
        if len(ids) < 2:
            raise TinyNNValueError(f"the text is too short: predicting needs at least 2 tokens, got {len(ids)}")
        return ids, text_bytes, window_losses(self.decoder, ids, window, stride)

    def _separators(self, separator: str | None = None) -> tuple[str, ...]:
        """Return the lines that separate documents: the given one, or the default ones."""
        return separators_of(separator, None if self.end_id is None else self.tokenizer.id_to_token(self.end_id))

    # ---- saving ----

    def trained_model(self) -> TrainedModel:
        """Return the model as plain values: shape, weights and tokenizer. Raises SessionError if it is closed."""
        return TrainedModel(
            self.shape,
            self.decoder.download_weights(),
            self.tokenizer_json,
            eos_id=self.end_id,
            bos_id=self.start_id,
            other_eos_ids=self._other_eos_ids,
            foreign=self._foreign,
        )

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 (the name that users know from other libraries)
        dtype: str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the model as a run, a GGUF file or a Hugging Face folder, and return its path.

        Args:
            format: "run" for a run of toynn, which `toynn.load` and `toynn.train(init=...)` take; "gguf" for llama.cpp;
                "hf" for transformers; "toy" for a GGUF file of the reference, the Ruby project toy. Default: "gguf" if
                the path ends in .gguf, otherwise "run".
            dtype: type of the weights in a GGUF file: "f32", "f16", "bf16" or "q8_0". Default: "f32".
            overwrite: replace a file or Hugging Face folder of that path, or add a checkpoint to a run.

        Warns (UserWarning) if the file differs from what was asked for, for example in the type of a tensor.

        Raises:
            TinyNNValueError: a path that is there already, a format or dtype that does not exist or does not fit the
                path, or a model that the format cannot hold.
            TinyNNTypeError, SessionError (the model is closed, or another process writes the run), OSError.
        """
        model = self.trained_model()
        name = model_name(model, self.path)
        return save_model(model, path, step=self.step, kind=format, dtype=dtype, overwrite=overwrite, name=name).path

    # ---- lifetime ----

    def close(self) -> None:
        """Free the model's memory. Closing twice is harmless."""
        self.decoder.close()

    def __enter__(self) -> TextModel:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

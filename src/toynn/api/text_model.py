"""TextModel: a trained model with its tokenizer, which generates and scores text."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Set, Sized
from pathlib import Path
from types import TracebackType
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from toynn.api.base_model import decoder_of
from toynn.api.evaluation import Evaluation, TokenScore, top_log_probs, window_losses
from toynn.api.generating_model import GeneratingModel
from toynn.api.save_model import model_name, save_model
from toynn.arguments import boolean, instance_of, integer, kind_of
from toynn.errors import TinyNNError, TinyNNTypeError, TinyNNValueError
from toynn.llm.adapters.merge import merged
from toynn.llm.adapters.model_on_base import adapter_of
from toynn.llm.adapters.open_base import OpenBase
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes
from toynn.parallel.processes import Processes
from toynn.storage.checkpoint import Checkpoint
from toynn.text.documents import PackedText, packed_ids, separators_of
from toynn.text.incremental_decoder import token_texts
from toynn.text.read_tokens import ReadTokens
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import load_tokenizer, needed_and_unused_ids, text_of, token_ids
from toynn.tinynn.memory import want_memory

_BYTES_OF_ID = 48  # bytes of memory for each id: a Python integer in a list, and a copy in the tokenizers library


class TextModel(GeneratingModel):
    """A trained model with its tokenizer. `toynn.load` makes one from a path.

    Args:
        source: the model as a `Checkpoint`: weights, tokenizer, and the path that they were read from.
        base: the open base of an adapter, or of a model whose weights are mapped from a file. `close` closes the base.
        n_ctx: context length: the largest number of tokens of a prompt and its continuation. Default and maximum: the
            context length that the model was trained with.
        cache: type of the cached keys and values, "f32" or "f16"; see `toynn.load`.
        n_threads: number of threads. Default: the number of cores that this process may use.

    Attributes:
        path: the checkpoint, file or folder that the model was read from. step: number of training steps that the model
            has taken, 0 if unknown.
        shape: the sizes and variants of the model, a `ModelShape`. n_parameters: number of parameters.
        tokenizer: the tokenizer, an object of the tokenizers library. tokenizer_json: the bytes of its file.
        decoder: the engine that computes the model, a `toynn.LlamaDecoder`.
        start_id: the token that starts a document; None if the model has no such token.
        end_id: the token that ends a document; None if the model has no such token.
        end_ids: all tokens that end generation, end_id first.
        foreign: settings that were imported with the model, among them the chat template.

    The model works on one text at a time: `generate`, `stream`, `score` and `evaluate` start with an empty context, and
    `chat` keeps the tokens with which both this conversation and the previous one begin. If one of
    these methods is called while a `stream` or a `chat_stream` is not finished, the next piece of this stream raises
    SessionError. `close` frees the memory; every later call raises SessionError. A `with` block closes the model at its
    end.

    Raises TinyNNValueError if the model has no tokenizer, if the tokenizer has more ids than the model's vocabulary, or
    if n_ctx, cache or n_threads is out of range; TinyNNTypeError for an argument of the wrong type; or
    TinyNNMemoryError if there is not enough memory.
    """

    def __init__(
        self,
        source: Checkpoint,
        *,
        base: OpenBase | None = None,
        n_ctx: int | None = None,
        cache: str = "f32",
        n_threads: int | None = None,
    ) -> None:
        if not isinstance(source, Checkpoint):
            raise TinyNNTypeError(f"source must be a Checkpoint, got {type(source).__name__}; toynn.load takes a path")
        model = source.contents
        if model.tokenizer is None:
            raise TinyNNValueError(
                f"{source.path} has no tokenizer.json, so it cannot read or write text; use a model with a tokenizer"
            )
        self.path, self.step, self.shape = source.path, source.step, model.shape
        self.n_parameters = sum(math.prod(size) for size in weight_shapes(model.shape).values())
        self.tokenizer = load_tokenizer(model.tokenizer, str(source.path))
        self.tokenizer_json = model.tokenizer
        needed, unused = needed_and_unused_ids(self.tokenizer, model.shape.vocab)
        if needed > model.shape.vocab:
            raise TinyNNValueError(
                f"the tokenizer of {source.path} needs {needed} ids, but the vocabulary of the model has only "
                f"{model.shape.vocab}; use the tokenizer that the model was trained with"
            )
        self._around = tokens_around(self.tokenizer)
        self.start_id = model.bos_id
        self.end_id = model.eos_id
        self.end_ids = model.end_ids
        self.foreign, self._other_eos_ids = model.foreign, model.other_eos_ids
        self._separator = None if source.training is None else source.training.progress.separator
        self._never = np.array([one for one in unused if one not in self.end_ids], dtype=np.int64)
        self._contents, self._base = model, base
        self.decoder = decoder_of(source, base, n_ctx=n_ctx, cache=cache, n_threads=n_threads)
        self._read = ReadTokens(self.decoder)
        self._templates = {}

    def __repr__(self) -> str:
        shape = self.shape
        return (
            f"<toynn.TextModel {str(self.path)!r}: {shape.architecture}, {self.n_parameters / 1e6:.2f} M parameters, "
            f"{shape.n_layers} layers, vocabulary {shape.vocab}, context {self.n_ctx}, step {self.step}>"
        )

    # ---- tokens ----

    def encode(self, text: str, *, special_tokens: bool = False) -> list[int]:
        """Return the token ids of a text.

        special_tokens: add the tokens that the tokenizer's own rules put around a text, for example a start token.
            `generate` adds them to its prompt, as transformers and llama.cpp do.

        Raises TinyNNTypeError for a value that is not a str, or TinyNNValueError for a str with lone surrogates, which
        is not Unicode text.
        """
        ids = token_ids(self.tokenizer, [text])[0]
        return [*self._around.before, *ids, *self._around.after] if boolean("special_tokens", special_tokens) else ids

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Return the text of token ids, including the text of special tokens.

        Raises TinyNNTypeError for ids of the wrong type; TinyNNValueError for an id outside the vocabulary; or
        TinyNNMemoryError if there is not enough memory.
        """
        vocab = self.shape.vocab
        if isinstance(ids, str | bytes | bytearray | memoryview | Mapping | Set):
            raise TinyNNTypeError(f"ids must be a sequence of token ids, got {kind_of(ids)}")
        try:
            if isinstance(ids, Sized):
                want_memory("ids", _BYTES_OF_ID * len(ids), f"{len(ids)} token ids")
            given = [integer(f"ids[{i}]", token, 0, vocab - 1) for i, token in enumerate(ids)]
        except TinyNNError:
            raise
        except Exception as error:  # ids is not iterable, or one of its methods raises
            raise TinyNNTypeError(f"ids must be a sequence of token ids, got {kind_of(ids)}") from error
        return text_of(self.tokenizer, given)

    # ---- scoring ----

    def next_tokens(self, prompt: str = "", k: int = 5) -> list[TokenScore]:
        """Return the k most likely tokens after the prompt, each with the logarithm of its probability (float64).

        The prompt is read as `generate` reads it. Raises the errors of `generate`, and TinyNNValueError for a k that is
        not from 1 to the size of the vocabulary.
        """
        ids, k = self._prompt_ids(prompt), integer("k", k, 1, self.shape.vocab)
        self.decoder.rewind()
        found = top_log_probs(self.decoder.feed(ids), k)
        return [TokenScore(token, text_of(self.tokenizer, [token]), log_prob) for token, log_prob in found]

    def score(
        self, text: str, window: int | None = None, stride: int | None = None, *, separator: str | None = None
    ) -> list[TokenScore]:
        """Return each predicted token of a text with the natural logarithm of its probability.

        The sum of all `log_prob` is the log-likelihood of the text. The arguments and errors are those of `evaluate`,
        which returns the loss of the whole text.
        """
        (ids, *_), losses = self._losses(text, window, stride, separator)
        return [
            TokenScore(token, text, -float(loss))
            for token, text, loss in zip(
                ids[1:], token_texts(self.tokenizer, ids)[1:], np.concatenate(losses), strict=True
            )
        ]

    def evaluate(
        self,
        text: str,
        window: int | None = None,
        stride: int | None = None,
        *,
        separator: str | None = None,
        processes: Processes | None = None,
    ) -> Evaluation:
        """Return the loss, perplexity and bits per byte of a text, computed in windows of `window` tokens.

        Separator lines divide the text into documents, as `toynn.prepare` divides a file. A separator line is not
        scored. Instead, the model's end token is predicted after each document.

        The model sees one window at a time. Every token except the first is predicted and counted once. The tokens that
        the tokenizer's own rules put around a text are added. If the rules put no token before a text, but the model
        has a start token, this token is put there. Then the first token of the text is predicted too.

        Args:
            window: number of tokens of a window, 1 to n_ctx. Default: n_ctx.
            stride: each window begins this many tokens after the window before, 1 to window. In all windows except the
                first, only the last `stride` tokens count, so each token is predicted from at least window - stride
                tokens. A smaller stride takes window / stride times as long, and normally gives a lower loss. Default:
                window, so that windows do not overlap.
            separator: the line that separates documents; lines of other separators are then text. "": no separator.
                Default: the separator with which the data of the run was prepared. If that is not known: <|endoftext|>
                and the text of the model's end token.
            processes: the processes of a job that divide the windows among themselves (`processes_of_job` of
                toynn.parallel.processes); all of them call this method and get the same result. Default: none.

        Raises TinyNNValueError for a text with fewer than two tokens, a str that is not Unicode text, or a window or
        stride out of range. With the default <|endoftext|>, TinyNNValueError is also raised for a text with lines of
        another known separator, for example </s>. Raises TinyNNTypeError for an argument of the wrong type, or
        SessionError if the model is closed.
        """
        if processes is not None:
            instance_of("processes", processes, Processes)
        packed, losses = self._losses(text, window, stride, separator, processes)
        nats = 0.0
        for one in losses:
            nats += float(np.sum(one, dtype=np.float64))
        return Evaluation(len(packed.ids) - 1, packed.text_bytes, nats, packed.documents)

    def _losses(
        self,
        text: str,
        window: int | None,
        stride: int | None,
        separator: str | None,
        processes: Processes | None = None,
    ) -> tuple[PackedText, list[npt.NDArray[np.float32]]]:
        """Return the encoded text with its start token, and the losses in nats, one array for each window."""
        window = self.n_ctx if window is None else integer("window", window, 1, self.n_ctx)
        stride = window if stride is None else integer("stride", stride, 1, window)
        chosen = separator is not None or self._separator is not None
        packed = packed_ids(self.tokenizer, text, self._separators(separator), self.end_id, chosen=chosen)
        ids = packed.ids
        if self._around.before:
            ids = [*self._around.before, *ids]
        elif self.start_id is not None:
            ids = [self.start_id, *ids]
        if self._around.after and ids[-len(self._around.after) :] != self._around.after:
            ids += self._around.after
        if len(ids) < 2:
            raise TinyNNValueError(f"the text is too short: it must have at least 2 tokens, got {len(ids)}")
        (losses,) = window_losses(self.decoder, [ids], window, stride, processes)
        return packed._replace(ids=ids), losses

    def _separators(self, separator: str | None = None) -> tuple[str, ...]:
        """Return the separator lines: the given separator, the separator of the run's data, or <|endoftext|> and the
        end token.
        """
        separator = self._separator if separator is None else separator
        return separators_of(separator, None if self.end_id is None else self.tokenizer.id_to_token(self.end_id))

    # ---- saving ----

    def trained_model(self) -> TrainedModel:
        """Return the shape, the weights and the tokenizer of the model. Raises SessionError if the model is closed.

        The weights of an adapter are added to those of its base.
        """
        adapter = adapter_of(self._contents)
        weights = self.decoder.download_weights()
        model = TrainedModel(
            self.shape,
            {name: weights[name] for name in weight_shapes(self.shape)},
            self.tokenizer_json,
            eos_id=self.end_id,
            bos_id=self.start_id,
            other_eos_ids=self._other_eos_ids,
            foreign=self.foreign,
        )
        return model if adapter is None else merged(model, adapter)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 (the name that users know from other libraries)
        dtype: str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the model as a run, a GGUF file or a Hugging Face folder, and return the path.

        Args:
            format: "run" for a run of toynn, which `toynn.load` and `toynn.train(init=...)` accept; "gguf" for
                llama.cpp; "hf" for transformers; "toy" for a GGUF file of the Ruby project toy. Default:
                "gguf" if the path ends in .gguf, otherwise "run".
            dtype: type of the weights in a GGUF file: "f32", "f16", "bf16", "q8_0", "q4_K" or another name in
                `toynn.interop.GGUF_DTYPES`. A Hugging Face folder can have the first three. Default: "f32".
            overwrite: if the path exists, replace the GGUF file or Hugging Face folder, or add a checkpoint to the run.

        Warns (UserWarning) if the written model differs from the request, for example in the type of a tensor.

        Raises:
            TinyNNValueError: the path exists already and overwrite is false; format or dtype is unknown or does not fit
                the path; the format cannot store this model.
            TinyNNTypeError: an argument has the wrong type. OSError: a file cannot be written.
            SessionError: the model is closed, or another process is writing the run.
        """
        model = self.trained_model()
        name = model_name(model, self.path)
        return save_model(model, path, step=self.step, kind=format, dtype=dtype, overwrite=overwrite, name=name).path

    # ---- lifetime ----

    def close(self) -> None:
        """Free the model's memory. Closing twice is harmless."""
        self.decoder.close()
        if self._base is not None:
            self._base.close()
        for kept in self._templates.values():
            kept.template.close()

    def __enter__(self) -> TextModel:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

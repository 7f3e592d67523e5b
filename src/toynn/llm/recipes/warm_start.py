"""WarmStart: a new model that reads the frozen embedding of another model, the donor, through a projection lens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from toynn.arguments import FloatArray, instance_of
from toynn.errors import FileFormatError, SessionError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.llm.recipes.recipe import Recipe
from toynn.model.config import SmolLM2Config
from toynn.model.weights import EMBEDDING
from toynn.storage.regular_files import path_of
from toynn.tinynn import Tensor

if TYPE_CHECKING:
    from toynn.interop.gguf_model import GgufModel

_WIDTH = "llama.embedding_length"


class WarmStart(Recipe):
    """A recipe that trains a model from random weights, with a frozen embedding that can come from a GGUF file.

        cfg.donor_d_in = WarmStart.donor_embed_width(path)
        recipe.realize_scratch(cfg, opts)  # opts.untied must be True
        recipe.realize_warm(path, cfg)  # may be left out: then the embedding is random
        recipe.build()

    Then call `step` for each step, then `close`. As a context manager it closes itself. The lens can be set too, for
    example to principal components: it is the tensor `ws_cache.t_seq_w_proj`.

    ws_step_index: a number for the caller's use. It starts at 0, and the recipe neither reads nor changes it.
    """

    _how_to_realize = "call realize_scratch(cfg, opts) and build()"

    def __init__(self, *, pin: bool = False) -> None:
        """Make a recipe. pin: keep every gradient, so that `ws_cache.gradient` can read it."""
        super().__init__(pin=pin)
        self.ws_step_index = 0

    @staticmethod
    def donor_embed_width(path: str | os.PathLike[str]) -> int:
        """Return the width of the embedding in a GGUF file: the value of its key `llama.embedding_length`.

        Raises FileFormatError if the file is not a GGUF file, or has no such key with a positive integer. Raises
        OSError if the file cannot be read.
        """
        with _donor(path) as donor:
            return _width_of(donor)

    def realize_scratch(self, cfg: SmolLM2Config, opts: RecipeOptions) -> None:
        """Draw all weights of the model. Call `build` before the first step.

        Raises:
            ValueError, TypeError: cfg, opts or one of their fields is wrong; the message names it.
            SessionError: the recipe is already realized. TinyNNMemoryError: there is not enough memory.
            After any of these errors except SessionError, the recipe is closed and can be realized again.
        """
        self._engine.realize(cfg, self._require_new(opts))

    def realize_warm(self, path: str | os.PathLike[str], cfg: SmolLM2Config) -> None:
        """Set the frozen embedding to the first cfg.vocab rows of the embedding in a GGUF file, of any type.

        cfg: the same configuration as for `realize_scratch`. Its donor_d_in must be the width of the file's embedding.

        Raises:
            TinyNNValueError: the file's embedding has another width than cfg.donor_d_in, or cfg differs from the cfg of
                `realize_scratch`.
            FileFormatError: the file is damaged, is not a GGUF file, or has too few rows. OSError: the file cannot be
                read.
            SessionError: before `realize_scratch`, or the model has no lens.
        """
        instance_of("cfg", cfg, SmolLM2Config)
        if not self._engine.realized:
            raise SessionError("the recipe is not realized: call realize_scratch(cfg, opts) first")
        own = self._engine.cfg
        if own.donor_d_in == 0:
            raise SessionError("the model has no projection lens: set cfg.donor_d_in before realize_scratch")
        for name in ("vocab", "donor_d_in"):
            if (given := getattr(cfg, name)) != getattr(own, name):
                raise TinyNNValueError(f"cfg.{name} must be {getattr(own, name)}, as in realize_scratch, got {given}")
        with _donor(path) as donor:
            width = _width_of(donor)
            if width != cfg.donor_d_in:
                raise TinyNNValueError(
                    f"the donor {path} must have an embedding of width {cfg.donor_d_in}, got {width}"
                )
            self._engine.upload_donor(_embedding_of(donor, cfg.vocab, width), cfg.vocab * width)

    def build(self) -> None:
        """Build the training step. Raises SessionError before `realize_scratch`."""
        self.build_training_step()

    @property
    def ws_cache(self) -> LlamaSeqEngine:
        """The engine. It has the weights of the model after the call of `realize_scratch`."""
        return self._engine

    @property
    def ws_t_loss(self) -> Tensor | None:
        """The loss in the training graph; None before `build`."""
        return self._t_loss

    @property
    def ws_t_labels(self) -> Tensor | None:
        """The labels, an input of the training graph; None before `build`."""
        return self._t_labels

    @property
    def ws_t_hp(self) -> Tensor | None:
        """The hyperparameters, an input of the training graph; None before `build`."""
        return self._t_hp


def _donor(path: str | os.PathLike[str]) -> GgufModel:
    """Open a donor. Raises FileFormatError if it is damaged, or OSError if it cannot be read."""
    with naming_the_extra("interop"):
        from toynn.interop.gguf_model import GgufModel
    return GgufModel(path_of("path", path))


def _width_of(donor: GgufModel) -> int:
    """Return the width of the donor's embedding: the value of its key `llama.embedding_length`.

    Raises FileFormatError if the donor has no such key, or if the value is not a positive integer.
    """
    from toynn.interop.file_errors import naming

    with naming(donor.path):
        width = donor.values.whole(_WIDTH)
        if width < 1:
            raise FileFormatError(f"{_WIDTH} must be a positive integer, got {width}")
        return width


def _embedding_of(donor: GgufModel, rows: int, width: int) -> FloatArray:
    """Return the first rows of the donor's embedding as float32 (rows, width).

    Raises FileFormatError if the file has no such embedding, or the embedding has another width or too few rows.
    """
    from toynn.interop.file_errors import naming

    with naming(donor.path):
        if EMBEDDING not in donor.tensors:
            raise FileFormatError(f"the tensor {EMBEDDING!r} is missing")
        shape = donor.tensor(EMBEDDING).shape
        if len(shape) != 2 or shape[1] != width:
            raise FileFormatError(f"the tensor {EMBEDDING!r} must have rows of {_WIDTH} = {width}, got {shape}")
        if shape[0] < rows:
            raise FileFormatError(f"{EMBEDDING!r} must have at least cfg.vocab = {rows} rows, got {shape[0]}")
        return donor.read(EMBEDDING, 0, rows)

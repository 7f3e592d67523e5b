"""Recipe: the base class of recipes. A model is realized, then trained one step at a time."""

from __future__ import annotations

from abc import ABC
from types import TracebackType
from typing import TypeVar

import numpy.typing as npt

from toynn.arguments import boolean, kind_of
from toynn.errors import SessionError, TinyNNTypeError
from toynn.initialised import Initialised
from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.tinynn import Tensor

Self = TypeVar("Self", bound="Recipe")


class Recipe(Initialised, ABC):
    """A model that is realized once, and then trained one step at a time.

    Each recipe gives its engine and the handles of its training graph under the names of the Ruby project toy.
    """

    def __init__(self, *, pin: bool = False) -> None:
        """Make a recipe. pin: keep every gradient, so that the engine's `gradient` can read it."""
        self._pin = boolean("pin", pin)
        self._engine = LlamaSeqEngine()
        self._t_loss: Tensor | None = None
        self._t_labels: Tensor | None = None
        self._t_hp: Tensor | None = None

    def build_training_step(self) -> None:
        """Build the training graph again, after the engine ran `forward`. Weights and moments stay.

        Raises SessionError before realize.
        """
        self._t_loss, self._t_labels, self._t_hp = self._engine.build_training_step(pin=self._pin)

    def step(
        self,
        seq_ids: npt.ArrayLike,
        positions: npt.ArrayLike,
        m_labels: npt.ArrayLike,
        m_hp: npt.ArrayLike,
        is_first: bool,
    ) -> float:
        """Take one optimizer step. Return the loss before the step. All arguments are checked before anything changes.

        A loss that is not finite is returned unchanged. It means that the weights have diverged, and the caller decides
        what to do.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            positions: integers (T*B,), each from 0 to ctx - 1.
            m_labels: (T*B, vocab), finite and not negative. In the fused layout pass targets instead: integers (T*B,),
                as `labels.targets` returns them.
            m_hp: (1, 7), as `AdamW.hp` returns it.
            is_first: set the moments to zero before the step, as the first step of a run needs.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: before the training graph is built, or after the engine's `forward` (call
                `build_training_step`).
        """
        if self._t_loss is None:
            raise SessionError(f"the recipe is not realized: {self._how_to_realize} first")
        first = boolean("is_first", is_first)
        return self._engine.train_step(seq_ids, m_labels, m_hp, positions=positions, reset_moments=first)[0]

    _how_to_realize = "call realize(cfg, opts)"

    def _require_new(self, opts: object) -> RecipeOptions:
        """Check the options, and return them. Raises SessionError if the recipe is already realized."""
        if self._engine.realized:
            raise SessionError("the recipe is already realized: call close() first, or make a new recipe")
        if not isinstance(opts, RecipeOptions):
            raise TinyNNTypeError(f"opts must be a RecipeOptions, got {kind_of(opts)}")
        opts.validate()
        return opts

    def close(self) -> None:
        """Free the model and everything that it holds.

        The recipe can then be realized again. A second call does nothing.
        """
        engine, self._t_loss, self._t_labels, self._t_hp = self._engine, None, None, None
        engine.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

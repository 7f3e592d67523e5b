"""FromScratch: a model trained from random weights, one step at a time."""

from __future__ import annotations

from types import TracebackType

import numpy.typing as npt

from toynn.arguments import boolean, kind_of
from toynn.errors import SessionError, TinyNNTypeError
from toynn.initialised import Initialised
from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine
from toynn.llm.layout import require_trainable
from toynn.llm.options import RecipeOptions
from toynn.model.config import SmolLM2Config
from toynn.tinynn import Tensor


class FromScratch(Initialised):
    """A recipe that trains a model from random weights.

    Call `realize` once, then `step` for each step, then `close`. As a context manager it closes itself.

    Attributes:
        fs_cache: the engine, realized by `realize`.
        fs_t_loss, fs_t_labels, fs_t_hp: handles in the training graph; None until realized.
        fs_step_index: a number for the caller's use. It starts at 0, and the recipe neither reads nor changes it.
    """

    def __init__(self, *, pin: bool = False) -> None:
        """Make a recipe. pin: keep every gradient, so that `fs_cache.gradient` can read it."""
        self._pin = boolean("pin", pin)
        self.fs_cache = LlamaSeqEngine()
        self.fs_t_loss: Tensor | None = None
        self.fs_t_labels: Tensor | None = None
        self.fs_t_hp: Tensor | None = None
        self.fs_step_index = 0

    def realize(self, cfg: SmolLM2Config, opts: RecipeOptions) -> None:
        """Draw the model's weights and build its training step.

        Raises:
            ValueError, TypeError: cfg, opts or one of their fields is wrong, for example a weight_dtype other than 0.
                The message names it.
            SessionError: the recipe is already realized. TinyNNMemoryError: there is not enough memory.
            After any of them except SessionError the recipe is closed and can be realized again.
        """
        if self.fs_cache.realized:
            raise SessionError("the recipe is already realized: call close() first, or make a new recipe")
        if not isinstance(opts, RecipeOptions):
            raise TinyNNTypeError(f"opts must be a RecipeOptions, got {kind_of(opts)}")
        opts.validate()
        require_trainable(opts.weight_dtype)
        self.fs_cache.realize(cfg, opts)
        try:
            self.build_training_step()
        except BaseException:
            self.close()
            raise

    def build_training_step(self) -> None:
        """Build the training graph again, after the engine ran `forward`. Weights and moments stay.

        Raises SessionError before realize.
        """
        self.fs_t_loss, self.fs_t_labels, self.fs_t_hp = self.fs_cache.build_training_step(pin=self._pin)

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
            SessionError: before realize, or after `fs_cache.forward` (call `build_training_step`).
        """
        if self.fs_t_loss is None:
            raise SessionError("the recipe is not realized: call realize(cfg, opts) first")
        first = boolean("is_first", is_first)
        return self.fs_cache.train_step(seq_ids, m_labels, m_hp, positions=positions, reset_moments=first)[0]

    def close(self) -> None:
        """Free the model and everything that it holds.

        The recipe can then be realized again. A second call does nothing.
        """
        engine, self.fs_t_loss, self.fs_t_labels, self.fs_t_hp = self.fs_cache, None, None, None
        engine.close()

    def __enter__(self) -> FromScratch:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

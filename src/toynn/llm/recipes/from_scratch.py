"""FromScratch: a model trained from random weights, one step at a time."""

from __future__ import annotations

from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.llm.recipes.recipe import Recipe
from toynn.model.config import SmolLM2Config
from toynn.tinynn import Tensor


class FromScratch(Recipe):
    """A recipe that trains a model from random weights.

    Call `realize` once, then `step` for each step, then `close`. As a context manager it closes itself.

    fs_step_index: a number for the caller's use. It starts at 0, and the recipe neither reads nor changes it.
    """

    def __init__(self, *, pin: bool = False) -> None:
        """Make a recipe. pin: keep every gradient, so that `fs_cache.gradient` can read it."""
        super().__init__(pin=pin)
        self.fs_step_index = 0

    def realize(self, cfg: SmolLM2Config, opts: RecipeOptions) -> None:
        """Draw the model's weights and build its training step.

        Raises:
            ValueError, TypeError: cfg, opts or one of their fields is wrong; the message names it.
            SessionError: the recipe is already realized. TinyNNMemoryError: there is not enough memory.
            After any of these errors except SessionError, the recipe is closed and can be realized again.
        """
        self._engine.realize(cfg, self._require_new(opts))
        try:
            self.build_training_step()
        except BaseException:
            self.close()
            raise

    @property
    def fs_cache(self) -> LlamaSeqEngine:
        """The engine. It can compute after the call of `realize`."""
        return self._engine

    @property
    def fs_t_loss(self) -> Tensor | None:
        """The loss in the training graph; None before `realize`."""
        return self._t_loss

    @property
    def fs_t_labels(self) -> Tensor | None:
        """The labels, an input of the training graph; None before `realize`."""
        return self._t_labels

    @property
    def fs_t_hp(self) -> Tensor | None:
        """The hyperparameters, an input of the training graph; None before `realize`."""
        return self._t_hp

"""LoRA: a model whose base is frozen, with a trained low-rank adapter on each query head."""

from __future__ import annotations

from toynn.errors import TinyNNValueError
from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.llm.recipes.recipe import Recipe
from toynn.model.config import SmolLM2Config
from toynn.model.trained_model import TrainedModel
from toynn.tinynn import TNN_F32, Tensor


class LoRA(Recipe):
    """A recipe that trains adapters: q = W h + B (A h) for each query head, with A (rank, d_model), B (d_head, rank).

    Call `realize` once, then `step` for each step, then `close`. As a context manager it closes itself. The recipe uses
    the per_head layout.

    lora_step_index: a number for the caller's use. It starts at 0, and the recipe neither reads nor changes it.
    """

    _how_to_realize = "call realize(gguf_handle, cfg, rank, opts)"

    def __init__(self, *, pin: bool = False) -> None:
        """Make a recipe. pin: keep every gradient, so that `lora_cache.gradient` can read it."""
        super().__init__(pin=pin)
        self.lora_step_index = 0

    def realize(self, gguf_handle: object, cfg: SmolLM2Config, rank: int, opts: RecipeOptions) -> None:
        """Declare the base and its adapters, set the adapters to their initial values, and build the training step.

        Args:
            gguf_handle: the base: a GgufBase, whose file is mapped, or a TrainedModel.
            cfg: the shape of the base; only ctx may differ from it.
            rank: rank of the adapters, from 1 to head_dim.
            opts: t_seq, t_batch, untied, qkv_bias and n_threads are used; seed and init_scale apply to A.

        Raises:
            ValueError, TypeError: an argument is wrong; the message names it.
            SessionError: the recipe is already realized. TinyNNMemoryError: there is not enough memory.
            After any of these errors except SessionError, the recipe is closed and can be realized again.
        """
        opts = self._require_new(opts)
        if opts.weight_dtype != TNN_F32:
            raise TinyNNValueError(f"weight_dtype must be 0, because a base keeps its types, got {opts.weight_dtype}")
        if opts.layout != "per_head":
            raise TinyNNValueError(
                f'layout must be "per_head", the only layout that this recipe supports, got {opts.layout!r}'
            )
        engine = self._engine
        engine.enable_lora_q(rank)
        engine.enable_lora_q_adamw()
        realize = engine.realize_for_q8_copy if isinstance(gguf_handle, TrainedModel) else engine.realize_for_mmap
        realize(
            gguf_handle, cfg, opts.t_seq, opts.untied, opts.qkv_bias, t_batch=opts.t_batch, n_threads=opts.n_threads
        )
        try:
            engine.upload_lora_q_init(opts.seed, opts.init_scale)
            self.build_training_step()
        except BaseException:
            self.close()
            raise

    @property
    def lora_cache(self) -> LlamaSeqEngine:
        """The engine. It can compute after the call of `realize`."""
        return self._engine

    @property
    def lora_t_loss(self) -> Tensor | None:
        """The loss in the training graph; None before `realize`."""
        return self._t_loss

    @property
    def lora_t_labels(self) -> Tensor | None:
        """The labels (T*B, vocab), an input of the training graph; None before `realize`."""
        return self._t_labels

    @property
    def lora_t_hp(self) -> Tensor | None:
        """The hyperparameters (7,), an input of the training graph; None before `realize`."""
        return self._t_hp

"""FromScratch: a model trained from random weights, one step at a time."""

from __future__ import annotations

from types import TracebackType

import numpy.typing as npt

from toynn.arguments import boolean, kind_of
from toynn.errors import SessionError, TinyNNTypeError
from toynn.llm.engine.inputs import checked_hp, checked_labels, checked_positions, checked_targets, checked_token_ids
from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine
from toynn.llm.engine.model import require_trainable
from toynn.llm.options import RecipeOptions
from toynn.model.config import SmolLM2Config
from toynn.tinynn import (
    Tensor,
    download_row_major,
    tnn_compute_backward,
    tnn_compute_profiled,
    tnn_graph_node,
    tnn_graph_reset,
    tnn_graph_reset_grads_only,
    tnn_tensor_op_name,
    upload_int_array,
    upload_row_major,
)


class FromScratch:
    """Realize it once, then step it; `close` it, or use it as a context manager.

    Attributes:
        fs_cache: the engine, realized by `realize`.
        fs_t_loss, fs_t_labels, fs_t_hp: handles in the training graph; None until realized.
        fs_step_index: 0, for the caller to carry; nothing here reads or changes it.
    """

    def __init__(self, *, pin: bool = False) -> None:
        """pin: keep every gradient for `fs_cache.gradient`; see `LlamaSeqEngine.build_training_step`."""
        self._pin = boolean("pin", pin)
        self.fs_cache = LlamaSeqEngine()
        self.fs_t_loss: Tensor | None = None
        self.fs_t_labels: Tensor | None = None
        self.fs_t_hp: Tensor | None = None
        self.fs_step_index = 0

    def realize(self, cfg: SmolLM2Config, opts: RecipeOptions) -> None:
        """Draws the model and builds its training step.

        Raises:
            ValueError, TypeError: cfg, opts or one of their fields, by name; weight_dtype other than 0 among them.
            SessionError: already realized. TinyNNMemoryError: no memory.
            After any of them but SessionError the recipe is closed and can be realized again.
        """
        if self.fs_cache.realized:
            raise SessionError("the recipe is already realized: make a new recipe, or close() this one first")
        if not isinstance(cfg, SmolLM2Config):
            raise TinyNNTypeError(f"cfg must be a SmolLM2Config, got {kind_of(cfg)}")
        if not isinstance(opts, RecipeOptions):
            raise TinyNNTypeError(f"opts must be RecipeOptions, got {kind_of(opts)}")
        opts.validate()
        require_trainable(opts.weight_dtype)
        self.fs_cache.realize_for_random_init(
            cfg,
            opts.t_seq,
            opts.t_batch,
            opts.weight_dtype,
            opts.untied,
            opts.qkv_bias,
            opts.seed,
            opts.init_scale,
            init_stream=opts.init_stream,
            n_threads=opts.n_threads,
            layout=opts.layout,
        )
        try:
            self.build_training_step()
        except BaseException:
            self.close()
            raise

    def build_training_step(self) -> None:
        """Builds the training graph anew, for a recipe whose engine ran `forward` since. Weights and moments stay.

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
        """One optimizer step; the loss before it, widened from f32. All arguments are checked before anything changes.

        A loss that is not finite is returned as it is: the weights have diverged, and the caller decides.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            positions: integers (T*B,), each from 0 to ctx - 1.
            m_labels: (T*B, vocab), finite and not negative. In the fused layout the targets instead: integers
                (T*B,), as `labels.targets` makes them.
            m_hp: (1, 7), as `AdamW.hp` makes it.
            is_first: also clear the moments, as the first step of a training does.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument, by name.
            SessionError: before realize, or after `fs_cache.forward` (call `build_training_step`).
        """
        return self._step(seq_ids, positions, m_labels, m_hp, is_first, None)

    def profiled_step(
        self,
        seq_ids: npt.ArrayLike,
        positions: npt.ArrayLike,
        m_labels: npt.ArrayLike,
        m_hp: npt.ArrayLike,
        is_first: bool,
    ) -> tuple[float, list[tuple[str, str, float]]]:
        """The same step, to the same bits, node by node: the loss, and operator, tensor name and seconds of each node.

        `toynn.profile` shows it. Raises as `step` does.
        """
        times: list[tuple[str, str, float]] = []
        return self._step(seq_ids, positions, m_labels, m_hp, is_first, times), times

    def _step(
        self,
        seq_ids: npt.ArrayLike,
        positions: npt.ArrayLike,
        m_labels: npt.ArrayLike,
        m_hp: npt.ArrayLike,
        is_first: bool,
        times: list[tuple[str, str, float]] | None,
    ) -> float:
        engine = self.fs_cache
        t_loss, t_labels, t_hp = self.fs_t_loss, self.fs_t_labels, self.fs_t_hp
        if not engine.realized or t_loss is None or t_labels is None or t_hp is None:
            raise SessionError("the recipe is not realized: call realize(cfg, opts) first")
        cfg, rows = engine.cfg, engine.seq_t * engine.seq_b
        ids = checked_token_ids(seq_ids, rows, cfg.vocab)
        at = checked_positions(positions, rows, cfg.ctx)
        fused = engine.layout == "fused"
        labels = (checked_targets if fused else checked_labels)(m_labels, rows, cfg.vocab)
        hp = checked_hp(m_hp)
        first = boolean("is_first", is_first)

        s = engine.sess
        with s.exclusive():
            if not engine.realized:
                raise SessionError("the recipe was closed while this step waited for its turn")
            if engine.training_loss != t_loss:
                raise SessionError("the training graph was dropped by forward(): call build_training_step() first")
            if fused and times is None:
                return engine.train_step(ids, labels, hp, positions=at, reset_moments=first)[0]
            upload_int_array(s, engine.t_seq_positions, at)
            if first:
                tnn_graph_reset(s)
            else:
                tnn_graph_reset_grads_only(s)
            upload_int_array(s, engine.t_seq_token_ids, ids)
            if fused:
                upload_int_array(s, t_labels, labels)
            else:
                upload_row_major(s, t_labels, labels)
            upload_row_major(s, t_hp, hp)
            if times is None:
                tnn_compute_backward(s)
            else:
                for i, seconds in enumerate(tnn_compute_profiled(s).tolist()):
                    node = tnn_graph_node(s, i)
                    times.append((tnn_tensor_op_name(s, node), node.name, seconds))
            return float(download_row_major(s, t_loss, 1, 1)[0, 0])

    def close(self) -> None:
        """Frees the model and all it holds. Twice is harmless; afterwards the recipe can be realized again."""
        self.fs_t_loss = self.fs_t_labels = self.fs_t_hp = None
        self.fs_cache.close()

    def __enter__(self) -> FromScratch:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

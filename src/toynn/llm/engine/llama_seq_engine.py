"""LlamaSeqEngine: a llama model on a session, and its forward and training graphs over whole sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType

import numpy.typing as npt

from toynn.config import SmolLM2Config
from toynn.errors import SessionError, TinyNNTypeError, TinyNNValueError
from toynn.init_streams import make_stream
from toynn.llm.archs import LlamaArch
from toynn.llm.engine.inputs import batch_positions, block_causal_mask, checked_positions, checked_token_ids
from toynn.llm.primitives import Rope
from toynn.llm.weights import Weight, WeightTable
from toynn.options import RecipeOptions
from toynn.tinynn import (
    TNN_F32,
    Session,
    Tensor,
    download_row_major,
    tnn_build_backward,
    tnn_build_forward_only,
    tnn_compute,
    tnn_cross_entropy_loss,
    tnn_extend_backward_graph,
    tnn_finalize_weights,
    tnn_input_1d_f32,
    tnn_input_1d_f32_persistent,
    tnn_input_1d_i32,
    tnn_input_1d_i32_persistent,
    tnn_input_2d_f32,
    tnn_input_2d_f32_persistent,
    tnn_opt_step_adamw,
    tnn_pin_all_graph_b_nodes,
    tnn_realize,
    tnn_realize_backward,
    tnn_reset_for_rebuild,
    tnn_session_set_graph_capacity,
    tnn_set_loss,
    tnn_set_output,
    tnn_tensor_grad,
    tnn_tensor_ne0,
    tnn_tensor_set_name,
    upload_int_array,
    upload_row_major,
)
from toynn.tinynn.arguments import FloatArray, boolean, kind_of

_MAX_GRAPH_NODES = 1 << 21


@dataclass
class _Model:
    """What lives as long as the session."""

    session: Session
    cfg: SmolLM2Config
    options: RecipeOptions
    table: WeightTable
    arch: LlamaArch
    token_ids: Tensor
    mask: Tensor | None
    freq_factors: Tensor | None


@dataclass
class _Graph:
    """What lives until the next rebuild; t_loss is None for a forward graph."""

    positions: Tensor
    taps: dict[str, Tensor]
    t_loss: Tensor | None = None
    pinned: bool = False


class LlamaSeqEngine:
    """Life: `realize_for_random_init`, then either graph as often as needed, then `close` (or `with`).

    `build_training_step` and `forward` build different graphs over the same weights and moments, and the engine holds
    one at a time: each drops the other's, handles included. After a `forward`, training needs `build_training_step`
    again.
    """

    def __init__(self) -> None:
        self._model: _Model | None = None
        self._graph: _Graph | None = None

    # ---- life ----

    def realize_for_random_init(
        self,
        cfg: SmolLM2Config,
        t_seq: int,
        t_batch: int,
        weight_dtype: int,
        untied: bool,
        qkv_bias: bool,
        seed: int,
        init_scale: float,
        *,
        init_stream: str = "lcg31",
        n_threads: int | None = None,
        oversubscribe: bool = False,
    ) -> None:
        """Declares the model on a new session and draws its weights; every weight but a donor's embedding is trainable.

        Args:
            cfg: the model's shape.
            t_seq, t_batch: length and number of the sequences of one step; t_seq at most cfg.ctx.
            weight_dtype: 0 = F32, 1 = F16, 30 = BF16 for the matrices. Only F32 can be trained.
            untied: a head of its own instead of the embedding's weights.
            qkv_bias: biases on q, k and v.
            seed, init_scale, init_stream: the random start.
            n_threads, oversubscribe: as for `Session`.

        Raises:
            ValueError, TypeError: an argument, by name. SessionError: already realized. TinyNNMemoryError: no memory.
            After any of them the engine is closed and can be realized again.
        """
        if self._model is not None:
            raise SessionError("the engine is already realized: close() it first, or make a new one")
        if not isinstance(cfg, SmolLM2Config):
            raise TinyNNTypeError(f"cfg must be a SmolLM2Config, got {kind_of(cfg)}")
        options = RecipeOptions(
            t_seq, t_batch, weight_dtype, untied, qkv_bias, seed, init_scale, init_stream, n_threads
        )
        options.validate()
        if options.t_seq > cfg.ctx:
            raise TinyNNValueError(f"t_seq must be at most cfg.ctx = {cfg.ctx}, got {options.t_seq}")
        if cfg.donor_d_in > 0 and not options.untied:
            raise TinyNNValueError(f"donor_d_in = {cfg.donor_d_in} needs untied=True: a donor cannot be the head")
        session = Session(0, n_threads, oversubscribe)
        try:
            self._model = _declare(session, cfg, options)
            self._model.table.draw(make_stream(options.init_stream, options.seed))
        except BaseException:
            self._model = None
            session.close()
            raise

    @property
    def realized(self) -> bool:
        """True between `realize_for_random_init` and `close`."""
        return self._model is not None

    def close(self) -> None:
        """Frees the session and all it holds. Twice is harmless; afterwards the engine can be realized again."""
        model, self._model, self._graph = self._model, None, None
        if model is not None:
            model.session.close()

    def __enter__(self) -> LlamaSeqEngine:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- graphs ----

    def build_training_step(self, *, pin: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Builds the training graph: forward, loss, backward, one AdamW step per trainable weight.

        pin keeps the memory of every node, so that `gradient` can read them afterwards; it changes no bit.

        Returns:
            t_loss ne=[1], t_labels ne=[vocab, T*B], t_hp ne=[7].

        Raises:
            TinyNNValueError: the weights are not F32.
            SessionError: not realized, or the graph exceeds its capacity. TinyNNMemoryError: no memory.
            The weights are untouched by any of them.
        """
        model = self._require_model()
        require_trainable(model.options.weight_dtype)
        pin = boolean("pin", pin)
        s = model.session
        with s.exclusive():
            graph = self._rebuild(model)
            logits = graph.taps["logits"]
            t_labels = tnn_input_2d_f32(s, model.cfg.vocab, _rows(model))  # ne=[vocab, T*B]
            t_hp = tnn_input_1d_f32(s, 7)
            t_loss = tnn_cross_entropy_loss(s, logits, t_labels)  # ne=[1]
            for name, tensor in (("labels", t_labels), ("hp", t_hp), ("loss", t_loss)):
                tnn_tensor_set_name(s, tensor, name)
            tnn_set_output(s, t_loss)
            tnn_set_loss(s, t_loss)
            tnn_build_forward_only(s, t_loss)
            tnn_build_backward(s)
            for weight in model.arch.trainable():
                tnn_extend_backward_graph(s, _adamw_step(s, weight, t_hp))
            if pin:
                tnn_pin_all_graph_b_nodes(s)
            tnn_realize_backward(s)
            graph.t_loss, graph.pinned = t_loss, pin
            self._graph = graph
        return t_loss, t_labels, t_hp

    def forward(self, seq_ids: npt.ArrayLike, positions: npt.ArrayLike | None = None) -> FloatArray:
        """Logits float32 (T*B, vocab) of the current weights. Drops a training graph; keeps its own for the next call.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            positions: integers (T*B,), each from 0 to ctx - 1. Default: 0..T-1 in each batch element.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument, by name. SessionError: not realized.
        """
        model = self._require_model()
        s, rows = model.session, _rows(model)
        if positions is None:
            positions = batch_positions(self.seq_t, self.seq_b)
        ids = checked_token_ids(seq_ids, rows, model.cfg.vocab)
        at = checked_positions(positions, rows, model.cfg.ctx)
        with s.exclusive():
            graph = self._graph
            if graph is None or graph.t_loss is not None:
                graph = self._rebuild(model)
                tnn_realize(s, graph.taps["logits"])
                self._graph = graph
            upload_int_array(s, model.token_ids, ids)
            upload_int_array(s, graph.positions, at)
            tnn_compute(s)
            return download_row_major(s, graph.taps["logits"], rows, model.cfg.vocab)

    def _rebuild(self, model: _Model) -> _Graph:
        """Drops the current graph and builds the forward part of the next, activations marked as outputs."""
        s = model.session
        self._graph = None
        tnn_reset_for_rebuild(s)
        positions = tnn_input_1d_i32(s, _rows(model))
        tnn_tensor_set_name(s, positions, "positions")
        rope = Rope(positions, model.cfg.head_dim, model.cfg.rope_base, model.cfg.rope_scaling, model.freq_factors)
        taps = model.arch.build(s, model.token_ids, rope, model.mask)
        for name, tensor in taps.items():
            tnn_tensor_set_name(s, tensor, name)
            tnn_set_output(s, tensor)
        return _Graph(positions, taps)

    # ---- the reference's names ----

    @property
    def sess(self) -> Session:
        """The session. This and the properties below raise SessionError before realize and after close."""
        return self._require_model().session

    @property
    def cfg(self) -> SmolLM2Config:
        """The model's shape."""
        return self._require_model().cfg

    @property
    def seq_t(self) -> int:
        """T, the length of a sequence."""
        return self._require_model().options.t_seq

    @property
    def seq_b(self) -> int:
        """B, the number of sequences in a step."""
        return self._require_model().options.t_batch

    @property
    def t_seq_token_ids(self) -> Tensor:
        """Token ids, i32 ne=[T*B], persistent."""
        return self._require_model().token_ids

    @property
    def t_seq_attn_mask(self) -> Tensor | None:
        """The block-causal mask, f32 ne=[T*B keys, T*B queries], persistent; None for B = 1."""
        return self._require_model().mask

    @property
    def t_seq_positions(self) -> Tensor:
        """Positions, i32 ne=[T*B], an input of the current graph. Raises SessionError before a graph is built."""
        return self._require_graph().positions

    @property
    def t_seq_logits(self) -> Tensor:
        """Logits, ne=[vocab, T*B], of the current graph. Raises SessionError before a graph is built."""
        return self._require_graph().taps["logits"]

    @property
    def taps(self) -> dict[str, Tensor]:
        """Activations of the current graph by name; see `LlamaArch.build`. Raises SessionError before one is built."""
        return dict(self._require_graph().taps)

    @property
    def training_loss(self) -> Tensor | None:
        """The loss of the current graph; None where that is not a training graph."""
        return None if self._graph is None else self._graph.t_loss

    # ---- weights by name ----

    @property
    def weights(self) -> dict[str, Tensor]:
        """All weights, frozen ones too, in declaration order."""
        return {name: weight.tensor for name, weight in self._require_model().table.weights.items()}

    def params(self) -> dict[str, Tensor]:
        """The trainable weights, in declaration order."""
        weights = self._require_model().table.weights
        return {name: weight.tensor for name, weight in weights.items() if weight.trainable}

    def param_names(self) -> list[str]:
        """Names of the trainable weights, in declaration order."""
        return list(self.params())

    def download_weight(self, name: str) -> FloatArray:
        """A weight, or a moment (name + ".m" or ".v"), as float32 (rows, cols) or (n,). Raises TinyNNValueError."""
        return self._require_model().table.download(name)

    def upload_weight(self, name: str, values: npt.ArrayLike) -> None:
        """Sets a weight or a moment from finite numbers of its shape. Raises TinyNNValueError or TinyNNTypeError."""
        self._require_model().table.upload(name, values)

    def gradient(self, name: str) -> FloatArray:
        """Gradient of a trainable weight in the last step, as float32 of the weight's shape.

        Raises:
            TinyNNValueError: no trainable weight of that name.
            SessionError: the current graph is not a pinned training graph.
        """
        model = self._require_model()
        graph = self._require_graph()
        weight = model.table.weights.get(name)
        if weight is None or not weight.trainable:
            raise TinyNNValueError(f"name: the model has no trainable weight called {name!r}")
        if not graph.pinned:
            raise SessionError("gradients are kept only by build_training_step(pin=True)")
        grad = tnn_tensor_grad(model.session, weight.tensor)
        shape = weight.shape
        return download_row_major(model.session, grad, math.prod(shape[:-1]), shape[-1]).reshape(shape)

    def download_tap(self, name: str) -> FloatArray:
        """An activation of the last compute, by its name in `taps`, as float32 (T*B, width).

        Raises TinyNNValueError for an unknown name, SessionError before a graph is built.
        """
        model = self._require_model()
        tensor = self._require_graph().taps.get(name)
        if tensor is None:
            raise TinyNNValueError(f"name: the graph has no activation called {name!r}")
        return download_row_major(model.session, tensor, _rows(model), tnn_tensor_ne0(model.session, tensor))

    # ---- state ----

    def _require_model(self) -> _Model:
        if self._model is None:
            raise SessionError("the engine is not realized: call realize_for_random_init first")
        return self._model

    def _require_graph(self) -> _Graph:
        self._require_model()
        if self._graph is None:
            raise SessionError("the engine has no graph yet: call build_training_step or forward first")
        return self._graph


def _rows(model: _Model) -> int:
    """T*B."""
    return model.options.t_seq * model.options.t_batch


def _declare(session: Session, cfg: SmolLM2Config, options: RecipeOptions) -> _Model:
    """Declares all persistent tensors, allocates them and fills those that are not weights."""
    rows = options.t_seq * options.t_batch
    capacity = cfg.n_layers * cfg.n_heads * 1000 + 65536
    tnn_session_set_graph_capacity(session, min(capacity, _MAX_GRAPH_NODES))

    table = WeightTable(session, options.weight_dtype)
    arch = LlamaArch(table, cfg, untied=options.untied, qkv_bias=options.qkv_bias, init_scale=options.init_scale)
    token_ids = tnn_input_1d_i32_persistent(session, rows)
    tnn_tensor_set_name(session, token_ids, "token_ids")
    mask = freq_factors = None
    if options.t_batch > 1:
        mask = tnn_input_2d_f32_persistent(session, rows, rows)  # ne=[T*B keys, T*B queries]
        tnn_tensor_set_name(session, mask, "attn_mask")
    factors = cfg.rope_scaling.freq_factors(cfg.head_dim, cfg.rope_base)
    if factors is not None:
        freq_factors = tnn_input_1d_f32_persistent(session, cfg.head_dim // 2)
        tnn_tensor_set_name(session, freq_factors, "rope_freq_factors")

    tnn_finalize_weights(session)
    if mask is not None:
        upload_row_major(session, mask, block_causal_mask(options.t_seq, options.t_batch))
    if freq_factors is not None and factors is not None:
        upload_row_major(session, freq_factors, factors)
    return _Model(session, cfg, options, table, arch, token_ids, mask, freq_factors)


def require_trainable(weight_dtype: int) -> None:
    """Raises TinyNNValueError for weights that cannot be trained."""
    if weight_dtype != TNN_F32:
        raise TinyNNValueError(
            f"weight_dtype {weight_dtype}: ggml's CPU backward cannot train F16/BF16 tensors; use 0 (F32)"
        )


def _adamw_step(s: Session, weight: Weight, t_hp: Tensor) -> Tensor:
    """The optimizer's node for one trainable weight."""
    if weight.m is None or weight.v is None:
        raise SessionError(f"{weight.name} is frozen")
    return tnn_opt_step_adamw(s, weight.tensor, tnn_tensor_grad(s, weight.tensor), weight.m, weight.v, t_hp)

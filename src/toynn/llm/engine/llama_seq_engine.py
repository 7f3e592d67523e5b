"""LlamaSeqEngine: a llama model on a session, and its forward and training graphs over whole sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, boolean, text, weights_by_name
from toynn.errors import SessionError, TinyNNValueError
from toynn.llm.engine.graphs import (
    HP,
    WEIGHT_DECAY,
    ForwardGraph,
    LossGraph,
    TrainingGraph,
    forward_graph,
    loss_graph,
    training_graph,
)
from toynn.llm.engine.inputs import checked_clip, checked_hp, checked_positions, checked_targets, checked_token_ids
from toynn.llm.engine.model import Model, declare, require_trainable
from toynn.llm.options import RecipeOptions
from toynn.llm.weights import WeightTable
from toynn.model.config import SmolLM2Config
from toynn.model.init_streams import make_stream
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    TNN_F32,
    Session,
    Tensor,
    download_row_major,
    tnn_compute,
    tnn_tensor_grad,
    tnn_tensor_ne0,
    tnn_train_step,
    upload_int_array,
    upload_row_major,
)


class LlamaSeqEngine:
    """Life: `realize_for_random_init`, then either graph as often as needed, then `close` (or `with`).

    `build_training_step` and `forward` build different graphs over the same weights and moments, and the engine holds
    one at a time: each drops the other's, handles included. After a `forward`, training needs `build_training_step`
    again.
    """

    def __init__(self) -> None:
        self._model: Model | None = None
        self._graph: ForwardGraph | None = None

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
        layout: str = "per_head",
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
            layout: "per_head" or "fused", see `RecipeOptions`; fused takes weight_dtype 0 only.

        Raises:
            ValueError, TypeError: an argument, by name. SessionError: already realized. TinyNNMemoryError: no memory.
            After any of them the engine is closed and can be realized again.
        """
        options = RecipeOptions(
            t_seq, t_batch, weight_dtype, untied, qkv_bias, seed, init_scale, init_stream, n_threads, layout
        )
        stream = make_stream(options.init_stream, options.seed)
        self._realize(cfg, options, oversubscribe, lambda table: table.draw(stream))

    def realize_for_full_finetune(
        self,
        cfg: SmolLM2Config,
        weights: Mapping[str, npt.ArrayLike],
        t_seq: int,
        t_batch: int,
        untied: bool,
        qkv_bias: bool,
        *,
        n_threads: int | None = None,
        oversubscribe: bool = False,
        layout: str = "fused",
    ) -> None:
        """As `realize_for_random_init`, in float32, but from given weights; moments are zero.

        Args:
            weights: every weight of the layout by name, finite numbers of its shape.

        Raises as `realize_for_random_init` does, and ValueError for a weight that is missing or unknown, by name.
        """
        weights = weights_by_name(weights)
        options = RecipeOptions(t_seq, t_batch, TNN_F32, untied, qkv_bias, n_threads=n_threads, layout=layout)
        self._realize(cfg, options, oversubscribe, lambda table: table.upload_all(weights))

    def _realize(
        self, cfg: SmolLM2Config, options: RecipeOptions, oversubscribe: bool, fill: Callable[[WeightTable], None]
    ) -> None:
        if self._model is not None:
            raise SessionError("the engine is already realized: close() it first, or make a new one")
        options.validate()
        shape = ModelShape.of(cfg, untied=options.untied, qkv_bias=options.qkv_bias)
        if options.t_seq > shape.ctx:
            raise TinyNNValueError(f"t_seq must be at most cfg.ctx = {shape.ctx}, got {options.t_seq}")
        if options.layout == "fused" and options.weight_dtype != TNN_F32:
            raise TinyNNValueError(
                f"weight_dtype {options.weight_dtype}: the fused layout computes in F32 only (no instruction-set "
                "profile has F16 or BF16 arithmetic: halves would cost a conversion and bring nothing); use 0 (F32)"
            )
        session = Session(0, options.n_threads, oversubscribe)
        try:
            self._model = declare(session, shape, options)
            fill(self._model.table)
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
            self._graph = None  # which a thread that had the session until now may have set

    def __enter__(self) -> LlamaSeqEngine:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- graphs ----

    def build_training_step(
        self,
        *,
        pin: bool = False,
        taps: bool | None = None,
        keep_gradients: bool = False,
        clip: bool = False,
        decay_vectors: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Builds the training graph: forward, loss, backward, one AdamW step per trainable weight.

        Args:
            pin: keep the memory of every node, so that `gradient` can read them afterwards; it changes no bit.
            taps: keep the activations for `download_tap`. Default: per_head does, fused does not.
            keep_gradients: keep the gradients only; `train_step(accumulate=True)` adds to them. Fused only, as are:
            clip: `train_step` returns the gradients' norm and clips by it. All gradients then exist at once.
            decay_vectors: False steps norms and biases without weight decay.

        Returns:
            per_head: t_loss ne=[1], t_labels f32 ne=[vocab, T*B], t_hp ne=[7].
            fused: t_loss ne=[1], t_targets i32 ne=[T*B], t_hp ne=[7] (ne=[14] without decay_vectors).

        Raises:
            TinyNNValueError: the weights are not F32, or an option that only the fused layout has.
            SessionError: not realized, or the graph exceeds its capacity. TinyNNMemoryError: no memory.
            The weights are untouched by any of them.
        """
        model = self._require_model()
        require_trainable(model.options.weight_dtype)
        pin, keep_gradients = boolean("pin", pin), boolean("keep_gradients", keep_gradients)
        clip, decay_vectors = boolean("clip", clip), boolean("decay_vectors", decay_vectors)
        for name, asked in (("keep_gradients", keep_gradients), ("clip", clip), ("decay_vectors", not decay_vectors)):
            if asked and not model.fused:
                raise TinyNNValueError(f"{name}: only the fused layout has it")
        keep_taps = not model.fused if taps is None else boolean("taps", taps)
        with model.session.exclusive():
            self._graph = None
            self._graph = graph = training_graph(
                model,
                pin=pin,
                keep_taps=keep_taps,
                keep_gradients=keep_gradients,
                clip=clip,
                decay_vectors=decay_vectors,
            )
        return graph.t_loss, graph.t_labels, graph.t_hp

    def train_step(
        self,
        seq_ids: npt.ArrayLike,
        targets: npt.ArrayLike,
        hp: npt.ArrayLike,
        *,
        positions: npt.ArrayLike | None = None,
        reset_moments: bool = False,
        accumulate: bool = False,
        update: bool = True,
        max_norm: float = 0.0,
        gradient_scale: float = 1.0,
    ) -> tuple[float, float | None]:
        """One optimizer step of the fused layout, in one call of C. Returns the loss before it and the gradients' norm.

        All arguments are checked before anything changes. The norm, None unless the graph was built with clip, is that
        of all gradients together times gradient_scale, before clipping. A loss that is not finite is returned as it is;
        a norm that is not finite leaves weights and moments as they are.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            targets: integers (T*B,), the token that should come next, or -1 for a position without one.
            hp: (1, 7), as `AdamW.hp` makes it.
            positions: integers (T*B,), each from 0 to ctx - 1. Default: 0..T-1 in each sequence.
            reset_moments: clear the moments first, as the first step of a training does.
            accumulate: add to the gradients of the step before (needs keep_gradients).
            update: False computes loss and gradients only.
            max_norm: clip gradients to this norm; 0 does not.
            gradient_scale: a factor of the gradients, 1/n for n steps accumulated. Both need clip.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument, by name.
            SessionError: no training graph of the fused layout.
        """
        model, graph = self._require_model(), self._require_graph()
        if not isinstance(graph, TrainingGraph) or graph.step is None:
            raise SessionError("train_step needs the fused layout and build_training_step()")
        rows, vocab = model.rows, model.cfg.vocab
        ids = checked_token_ids(seq_ids, rows, vocab)
        wanted = checked_targets(targets, rows, vocab)
        row = checked_hp(hp)
        at = model.positions if positions is None else checked_positions(positions, rows, model.cfg.ctx)
        clip = checked_clip(max_norm, gradient_scale, graph.t_clip is not None)
        if boolean("accumulate", accumulate) and not graph.gradients_kept:
            raise SessionError("accumulate: build_training_step(keep_gradients=True) keeps what is added to")
        if not graph.decay_vectors:
            row = np.concatenate([row, row], axis=1)
            row[0, HP + WEIGHT_DECAY] = 0.0
        s = model.session
        with s.exclusive():
            upload_int_array(s, graph.positions, at)
            if graph.t_clip is not None:
                upload_row_major(s, graph.t_clip, clip)
            return tnn_train_step(
                s, graph.step, ids, wanted, row, reset_moments=reset_moments, accumulate=accumulate, update=update
            )

    def forward(
        self, seq_ids: npt.ArrayLike, positions: npt.ArrayLike | None = None, *, taps: bool | None = None
    ) -> FloatArray:
        """Logits float32 (T*B, vocab) of the current weights. Drops a training graph; keeps its own for the next call.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            positions: integers (T*B,), each from 0 to ctx - 1. Default: 0..T-1 in each batch element.
            taps: keep the activations for `download_tap`. Default: per_head does, fused does not.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument, by name. SessionError: not realized.
        """
        model = self._require_model()
        s, rows = model.session, model.rows
        ids = checked_token_ids(seq_ids, rows, model.cfg.vocab)
        at = model.positions if positions is None else checked_positions(positions, rows, model.cfg.ctx)
        keep_taps = not model.fused if taps is None else boolean("taps", taps)
        with s.exclusive():
            graph = self._graph
            if type(graph) is not ForwardGraph or graph.keep_taps != keep_taps:
                self._graph = None
                self._graph = graph = forward_graph(model, keep_taps)
            upload_int_array(s, model.token_ids, ids)
            upload_int_array(s, graph.positions, at)
            tnn_compute(s)
            return download_row_major(s, graph.taps["logits"], rows, model.cfg.vocab)

    def mean_loss(self, seq_ids: npt.ArrayLike, targets: npt.ArrayLike) -> float:
        """The loss that `train_step` would return, without gradients or a step. Fused layout only.

        Drops a training graph, as `forward` does; keeps its own for the next call.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            targets: integers (T*B,), the token that should come next, or -1 for a position without one.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument, by name. SessionError: not realized, or per_head.
        """
        model = self._require_model()
        s, rows = model.session, model.rows
        if not model.fused:
            raise SessionError("mean_loss needs the fused layout")
        ids = checked_token_ids(seq_ids, rows, model.cfg.vocab)
        wanted = checked_targets(targets, rows, model.cfg.vocab)
        with s.exclusive():
            graph = self._graph
            if not isinstance(graph, LossGraph):
                self._graph = None
                self._graph = graph = loss_graph(model)
            upload_int_array(s, model.token_ids, ids)
            upload_int_array(s, graph.positions, model.positions)
            upload_int_array(s, graph.t_targets, wanted)
            tnn_compute(s)
            return float(download_row_major(s, graph.t_loss, 1, 1)[0, 0])

    # ---- the reference's names ----

    @property
    def sess(self) -> Session:
        """The session. This and the properties below raise SessionError before realize and after close."""
        return self._require_model().session

    @property
    def cfg(self) -> ModelShape:
        """The model's shape."""
        return self._require_model().cfg

    @property
    def layout(self) -> str:
        """ "per_head" or "fused"."""
        return self._require_model().options.layout

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
        return self._graph.t_loss if isinstance(self._graph, TrainingGraph) else None

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
            SessionError: the current graph is not a training graph that keeps its gradients.
        """
        model = self._require_model()
        graph = self._require_graph()
        weight = model.table.weights.get(text("name", name))
        if weight is None or not weight.trainable:
            raise TinyNNValueError(f"name: the model has no trainable weight called {name!r}")
        if not isinstance(graph, TrainingGraph) or not graph.gradients_kept:
            raise SessionError("gradients are kept only by build_training_step(pin=True) or (keep_gradients=True)")
        grad = tnn_tensor_grad(model.session, weight.tensor)
        shape = weight.shape
        return download_row_major(model.session, grad, math.prod(shape[:-1]), shape[-1]).reshape(shape)

    def download_tap(self, name: str) -> FloatArray:
        """An activation of the last compute, by its name in `taps`, as float32 (T*B, width).

        Raises TinyNNValueError for an unknown name, SessionError before a graph is built.
        """
        model = self._require_model()
        graph = self._require_graph()
        tensor = graph.taps.get(text("name", name))
        if tensor is None:
            raise TinyNNValueError(f"name: the graph has no activation called {name!r}")
        if not graph.keep_taps:
            raise SessionError("the graph keeps no activations: ask for them with taps=True when it is built")
        return download_row_major(model.session, tensor, model.rows, tnn_tensor_ne0(model.session, tensor))

    # ---- state ----

    def _require_model(self) -> Model:
        if self._model is None:
            raise SessionError("the engine is not realized: call realize_for_random_init first")
        return self._model

    def _require_graph(self) -> ForwardGraph:
        self._require_model()
        if self._graph is None:
            raise SessionError("the engine has no graph yet: call build_training_step or forward first")
        return self._graph

"""LlamaSeqEngine: a model on a session, with its forward and training graphs over whole sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy.typing as npt

from toynn.arguments import FloatArray, boolean, instance_of, weights_by_name
from toynn.errors import SessionError, TinyNNValueError
from toynn.llm.engine.seq_names import SeqNames
from toynn.llm.graphs import ForwardGraph, LossGraph, TrainingGraph
from toynn.llm.inputs import checked_clip, checked_hp, checked_positions, checked_token_ids
from toynn.llm.layout import Layout, NodeTimes, require_trainable
from toynn.llm.layouts import BY_NAME
from toynn.llm.optimizer import OptimizerOptions
from toynn.llm.options import RecipeOptions
from toynn.model.config import SmolLM2Config
from toynn.model.init_streams import make_stream
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    TNN_F32,
    Session,
    Tensor,
    download_row_major,
    tnn_compute,
    upload_int_array,
    upload_row_major,
)


class LlamaSeqEngine(SeqNames):
    """A model on a session. Realize it, build and run its graphs as often as needed, then close it, or use `with`.

    `build_training_step` and `forward` build different graphs over the same weights and moments. The engine holds one
    graph at a time, so each of the two drops the graph of the other, and its handles become stale. After `forward`,
    call `build_training_step` again to train.
    """

    # ---- lifetime ----

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
        """Declare the model on a new session and draw its weights. All weights are trained, except a frozen embedding.

        Args:
            cfg: the model's shape.
            t_seq, t_batch: length and number of the sequences of one step. t_seq is at most cfg.ctx.
            weight_dtype: type of the matrices, 0 = F32, 1 = F16, 30 = BF16. Only F32 can be trained.
            untied: the output matrix is a weight of its own, not the embedding.
            qkv_bias: the projections q, k and v have biases.
            seed, init_scale, init_stream: how the initial weights are drawn.
            n_threads, oversubscribe: as for `Session`.
            layout: "per_head" or "fused", see `RecipeOptions`. "fused" supports only weight_dtype 0.

        Raises:
            ValueError, TypeError: an argument is wrong; the message names it.
            SessionError: the engine is already realized, and stays as it is.
            TinyNNMemoryError: there is not enough memory.
            After any other error than SessionError the engine is closed and can be realized again.
        """
        options = RecipeOptions(
            t_seq, t_batch, weight_dtype, untied, qkv_bias, seed, init_scale, init_stream, n_threads, layout
        )
        self.realize(cfg, options, oversubscribe=oversubscribe)

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
        """Declare the model as `realize_for_random_init` does, in float32, with the given weights. Moments are zero.

        Args:
            weights: every weight of the layout by name, an array of finite numbers in the weight's shape.

        Raises as `realize_for_random_init` does, and ValueError, which names the weight, if one is missing or unknown.
        """
        options = RecipeOptions(t_seq, t_batch, TNN_F32, untied, qkv_bias, n_threads=n_threads, layout=layout)
        self.realize(cfg, options, weights_by_name(weights), oversubscribe=oversubscribe)

    def realize(
        self,
        cfg: SmolLM2Config,
        options: RecipeOptions,
        weights: Mapping[str, npt.ArrayLike] | None = None,
        *,
        oversubscribe: bool = False,
    ) -> None:
        """Declare the model on a new session, with the given weights. If weights is None, draw them as options say.

        If cfg is a ModelShape, its variants untied and qkv_bias apply too, even if they are False in options.

        Raises as `realize_for_random_init` does.
        """
        if self._layout is not None:
            raise SessionError("the engine is already realized: call close() first, or make a new engine")
        if weights is not None:
            weights = weights_by_name(weights)
        instance_of("options", options, RecipeOptions)
        options.validate()
        shape = ModelShape.of(cfg, untied=options.untied or None, qkv_bias=options.qkv_bias or None)
        if options.t_seq > shape.ctx:
            raise TinyNNValueError(f"t_seq must be at most cfg.ctx = {shape.ctx}, got {options.t_seq}")
        layout = BY_NAME[options.layout]
        layout.check_weight_dtype(options.weight_dtype)
        session = Session(0, options.n_threads, oversubscribe)
        try:
            self._layout = layout(session, shape, replace(options))
            if weights is None:
                self._layout.parameters.draw(make_stream(options.init_stream, options.seed), options.init_scale)
            else:
                self._layout.parameters.upload_all(weights)
        except BaseException:
            self._layout = None
            session.close()
            raise

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
        """Build the training graph: forward, loss, backward and one AdamW step for each trained weight.

        Args:
            pin: keep the memory of every node, so that `gradient` can read the gradients. Results do not change.
            taps: keep the activations for `download_tap`. Default: True in the per_head layout, False in the fused one.
            keep_gradients: keep the gradients, so that `train_step(accumulate=True)` can add to them. Fused layout
                only.
            clip: `train_step` returns the norm of the gradients and clips them. This needs memory for all gradients at
                once. Fused layout only.
            decay_vectors: False excludes norms and biases from weight decay. Fused layout only.

        Returns:
            per_head: t_loss ne=[1], t_labels f32 ne=[vocab, T*B], t_hp ne=[7].
            fused: t_loss ne=[1], t_targets i32 ne=[T*B], t_hp ne=[7] (ne=[14] without decay_vectors).

        Raises:
            TinyNNValueError: the weights are not F32, or the layout does not support an option.
            SessionError: the engine is not realized, or the graph exceeds the session's capacity.
            TinyNNMemoryError: there is not enough memory.
            The weights stay unchanged in all of these cases.
        """
        layout = self._require_layout()
        require_trainable(layout.options.weight_dtype)
        options = OptimizerOptions(
            keep_gradients=boolean("keep_gradients", keep_gradients),
            clip=boolean("clip", clip),
            decay_vectors=boolean("decay_vectors", decay_vectors),
        )
        layout.check_optimizer(options)
        pin, keep_taps = boolean("pin", pin), _keep_taps(layout, taps)
        with layout.session.exclusive():
            self._graph = None
            self._graph = graph = layout.training_graph(pin=pin, keep_taps=keep_taps, options=options)
        return graph.t_loss, graph.t_labels, graph.optimizer.t_hp

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
        node_times: NodeTimes | None = None,
    ) -> tuple[float, float | None]:
        """Take one optimizer step. Return the loss before the step, and the norm of the gradients or None.

        All arguments are checked before anything changes. The norm is that of all gradients together, multiplied by
        gradient_scale, before clipping. It is None if the graph was built without clip. A loss that is not finite is
        returned unchanged. If the norm is not finite, weights and moments stay unchanged.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            targets: integers (T*B,), the next token at each position, or -1 for a position without one. The per_head
                layout also accepts one-hot labels (T*B, vocab), and counts a position without a next token as a loss of
                0.
            hp: (1, 7), as `AdamW.hp` returns it.
            positions: integers (T*B,), each from 0 to ctx - 1. Default: 0..T-1 in each sequence.
            reset_moments: set the moments to zero before the step, as the first step of a run needs.
            accumulate: add to the gradients of the previous step. Needs a graph built with keep_gradients.
            update: False computes the loss and the gradients, and changes no weight. Fused layout only.
            max_norm: clip gradients to this norm; 0: do not clip.
            gradient_scale: a factor of the gradients, 1/n for n accumulated steps. It and max_norm need a graph built
                with clip.
            node_times: a list. The operator, tensor name and seconds of each node are added to it; `toynn.profile`
                shows them. The results have the same bits. Cannot be combined with accumulate or update=False.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: there is no training graph.
        """
        layout, graph = self._require_layout(), self._require_graph()
        if not isinstance(graph, TrainingGraph):
            raise SessionError("train_step needs a training graph: call build_training_step() first")
        ids = checked_token_ids(seq_ids, layout.n, layout.shape.vocab)
        at = layout.positions if positions is None else checked_positions(positions, layout.n, layout.shape.ctx)
        labels = layout.checked_labels(targets)
        row = graph.optimizer.values_of_hp(checked_hp(hp))
        t_clip = graph.optimizer.t_clip
        clip = checked_clip(max_norm, gradient_scale, t_clip is not None)
        first = boolean("reset_moments", reset_moments)
        adds, updates = boolean("accumulate", accumulate), boolean("update", update)
        if adds and not graph.gradients_kept:
            raise SessionError(
                "accumulate needs kept gradients: build the graph with build_training_step(keep_gradients=True)"
            )
        if node_times is not None:
            instance_of("node_times", node_times, list)
        layout.check_step(adds, updates, node_times is not None)
        with layout.session.exclusive():
            if self._graph is not graph:
                self._require_layout()  # another thread may have closed the engine
                raise SessionError("another thread replaced the training graph: call build_training_step() again")
            upload_int_array(layout.session, graph.positions, at)
            if t_clip is not None:
                upload_row_major(layout.session, t_clip, clip)
            return layout.step(
                graph, ids, labels, row, reset_moments=first, accumulate=adds, update=updates, node_times=node_times
            )

    def forward(
        self, seq_ids: npt.ArrayLike, positions: npt.ArrayLike | None = None, *, taps: bool | None = None
    ) -> FloatArray:
        """Return the logits of the current weights, float32 (T*B, vocab). A training graph is dropped.

        The graph that computes the logits is kept for the next call.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            positions: integers (T*B,), each from 0 to ctx - 1. Default: 0..T-1 in each sequence.
            taps: keep the activations for `download_tap`. Default: True in the per_head layout, False in the fused one.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: the engine is not realized.
        """
        layout = self._require_layout()
        s, n, shape = layout.session, layout.n, layout.shape
        ids = checked_token_ids(seq_ids, n, shape.vocab)
        at = layout.positions if positions is None else checked_positions(positions, n, shape.ctx)
        keep_taps = _keep_taps(layout, taps)
        with s.exclusive():
            graph = self._graph
            if type(graph) is not ForwardGraph or graph.keep_taps != keep_taps:
                self._graph = None
                self._graph = graph = layout.forward_graph(keep_taps)
            upload_int_array(s, layout.token_ids, ids)
            upload_int_array(s, graph.positions, at)
            tnn_compute(s)
            return download_row_major(s, graph.taps["logits"], n, shape.vocab)

    def mean_loss(self, seq_ids: npt.ArrayLike, targets: npt.ArrayLike) -> float:
        """Return the loss that `train_step` would return, without gradients and without a step.

        A training graph is dropped, as by `forward`. The graph that computes the loss is kept for the next call.

        Args:
            seq_ids, targets: as for `train_step`.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: the engine is not realized.
        """
        layout = self._require_layout()
        s = layout.session
        ids = checked_token_ids(seq_ids, layout.n, layout.shape.vocab)
        labels = layout.checked_labels(targets)
        with s.exclusive():
            graph = self._graph
            if type(graph) is not LossGraph:
                self._graph = None
                self._graph = graph = layout.loss_graph()
            upload_int_array(s, layout.token_ids, ids)
            upload_int_array(s, graph.positions, layout.positions)
            layout.upload_labels(graph.t_labels, labels)
            tnn_compute(s)
            return float(download_row_major(s, graph.t_loss, 1, 1)[0, 0])


def _keep_taps(layout: Layout, taps: bool | None) -> bool:
    return layout.keeps_taps if taps is None else boolean("taps", taps)

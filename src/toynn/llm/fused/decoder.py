"""LlamaDecoder: a model that reads one sequence in parts, and keeps the keys and values of the tokens it has read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, instance_of, integer, kind_of, weights_by_name
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.llm.base import Base, StoredWeights, values_of
from toynn.llm.fused.graph import FusedGraph
from toynn.llm.fused.model import Continuation, hidden_states, llama, output_of
from toynn.llm.inputs import checked_token_ids
from toynn.llm.parameters import Parameter, Parameters
from toynn.llm.rope import RopeOfModel
from toynn.llm.tuning import NOTHING, Tuning
from toynn.model.config import SmolLM2Config
from toynn.model.shape import ModelShape
from toynn.model.weights import weights_of
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_compute,
    tnn_download,
    tnn_finalize_weights,
    tnn_input_1d_i32,
    tnn_input_2d_f32_persistent,
    tnn_realize,
    tnn_reset_for_rebuild,
    tnn_session_set_graph_capacity,
    tnn_set_output,
    tnn_tensor_set_name,
    tnn_tensor_src,
    upload_int_array,
)
from toynn.tinynn.arrays import int_array

_CHUNK = 512  # number of tokens read at once; it limits the memory of the activations


class _Graph:
    """A forward graph over n tokens. It computes either the logits of the row `last`, or the losses of all rows."""

    def __init__(self, n: int, ids: Tensor, positions: Tensor, n_past: Tensor) -> None:
        self.n = n
        self.ids = ids
        self.positions = positions
        self.n_past = n_past
        self.last: Tensor | None = None
        self.logits: Tensor | None = None
        self.targets: Tensor | None = None
        self.row_losses: Tensor | None = None


class LlamaDecoder(Initialised):
    """Reads token ids with `feed` and returns the logits of the next token; `score` returns the losses of a text.

    The results have the bits of `LlamaSeqEngine.forward` in the fused layout over the whole sequence. How the tokens
    are divided into calls of `feed` does not change them.

    Args:
        cfg: the model's shape.
        weights: every weight of the fused layout by name, float32. `toynn.llm.layouts.to_fused` converts weights of the
            per_head layout.
        untied, qkv_bias: as for `LlamaSeqEngine`. Default: as in cfg if cfg is a ModelShape, otherwise False.
        n_ctx: number of tokens that the cache holds. Default: cfg.ctx.
        n_threads, oversubscribe: as for `Session`.

    Raises:
        ValueError, TypeError: an argument is wrong, or a weight is missing, unknown or of another shape. The message
            names it.
        TinyNNMemoryError: there is not enough memory.
    """

    def __init__(
        self,
        cfg: SmolLM2Config,
        weights: Mapping[str, npt.ArrayLike],
        *,
        untied: bool | None = None,
        qkv_bias: bool | None = None,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        oversubscribe: bool = False,
    ) -> None:
        self._base: Base | None = None
        shape, given = ModelShape.of(cfg, untied=untied, qkv_bias=qkv_bias), weights_by_name(weights)
        self._open(
            shape, NOTHING, None, lambda parameters: parameters.upload_all(given), n_ctx, n_threads, oversubscribe
        )

    @classmethod
    def on_base(
        cls,
        base: Base,
        adapter: TrainedAdapter | None = None,
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        oversubscribe: bool = False,
    ) -> LlamaDecoder:
        """Return a decoder of a base, with an adapter or without one.

        The weights of a GgufBase are the pages of its file and keep their types. The results have the bits of the
        dequantized weights.

        Args:
            base: a GgufBase, or a TrainedModel as a `LoadedBase`.
            adapter: the adapter, trained on this base.
            n_ctx, n_threads, oversubscribe: as for the constructor.

        Raises the errors of the constructor, TinyNNValueError if the adapter belongs to a base of another shape, and
        MappedFileError if the file of the base was changed.
        """
        instance_of("base", base, Base)
        if not isinstance(adapter, TrainedAdapter | None):
            raise TinyNNTypeError(f"adapter must be a TrainedAdapter or None, got {kind_of(adapter)}")
        if adapter is not None and adapter.shape != base.shape:
            raise TinyNNValueError(
                f"adapter belongs to a base of shape {adapter.shape}, but base has shape {base.shape}; use the base "
                "that the adapter was trained on"
            )
        stored = base.stored(copy=False, in_order=True)

        def fill(parameters: Parameters) -> None:
            parameters.fill(values_of(base, stored))
            for name, values in {} if adapter is None else adapter.tensors.items():
                parameters.upload(name, values)

        decoder = cls.__new__(cls)
        decoder._base = base
        tuning = Tuning(spec=None if adapter is None else adapter.spec)
        decoder._open(base.shape, tuning, stored, fill, n_ctx, n_threads, oversubscribe)
        return decoder

    def _open(
        self,
        cfg: ModelShape,
        tuning: Tuning,
        stored: StoredWeights | None,
        fill: Callable[[Parameters], None],
        n_ctx: int | None,
        n_threads: int | None,
        oversubscribe: bool,
    ) -> None:
        self.cfg = cfg
        self.n_ctx = cfg.ctx if n_ctx is None else integer("n_ctx", n_ctx, 1)
        if self.n_ctx > cfg.ctx:
            raise TinyNNValueError(f"n_ctx must be at most cfg.ctx = {cfg.ctx}, got {self.n_ctx}")
        self._n_past = 0
        self._turns = 0
        self._graph: _Graph | None = None
        self._session = Session(0, n_threads, oversubscribe)
        try:
            self._declare(tuning, stored)
            fill(self._parameters)
        except BaseException:
            self._session.close()
            raise

    def _declare(self, tuning: Tuning, stored: StoredWeights | None) -> None:
        s, cfg, weights = self._session, self.cfg, weights_of(self.cfg)
        self._adapter_scale = 1.0 if tuning.spec is None else tuning.spec.scale
        of_adapter = 0 if tuning.spec is None else 4 * len(tuning.spec.weights(cfg))
        tnn_session_set_graph_capacity(s, 64 * cfg.n_layers + 256 + of_adapter)
        declared = None if stored is None else stored.declare
        self._parameters = Parameters(s, cfg, weights, tuning, declared=declared)
        self._caches: list[Tensor] = []
        for i in range(cfg.n_layers):
            cache = tnn_input_2d_f32_persistent(s, self.n_ctx, 2 * cfg.n_kv * cfg.head_dim)
            tnn_tensor_set_name(cache, f"blk.{i}.kv_cache")
            self._caches.append(cache)
        self._rope = RopeOfModel(s, cfg)
        tnn_finalize_weights(s)
        self._rope.upload()

    # ---- reading ----

    @property
    def n_past(self) -> int:
        """The number of tokens read so far."""
        return self._n_past

    @property
    def turns(self) -> int:
        """The number of calls of `feed`, `rewind` and `score`. If this number has changed, the decoder has read or
        forgotten tokens.
        """
        return self._turns

    def rewind(self, n_past: int = 0) -> None:
        """Forget all tokens except the first n_past.

        Raises TinyNNValueError if fewer tokens were read, SessionError after close.
        """
        n_past = integer("n_past", n_past, 0)
        with self._session.exclusive():
            if n_past > self._n_past:
                raise TinyNNValueError(
                    f"n_past must be at most {self._n_past}, the number of tokens read, got {n_past}"
                )
            self._n_past = n_past
            self._turns += 1

    def feed(self, ids: npt.ArrayLike) -> FloatArray:
        """Read more tokens. Return the logits of the token that follows them, float32 (vocab,).

        Raises TinyNNValueError for an id outside the vocabulary, for no ids, and for more ids than fit into the cache.
        After an error no token was read.
        """
        array = self._checked(ids)
        s = self._session
        with s.exclusive():
            before = self._n_past
            if before + array.size > self.n_ctx:
                raise TinyNNValueError(
                    f"ids must hold at most {self.n_ctx - before} tokens, because {before} of n_ctx = {self.n_ctx} "
                    f"were read, got {array.size}"
                )
            self._turns += 1
            try:
                for start in range(0, array.size, _CHUNK):
                    part = array[start : start + _CHUNK]
                    graph = self._graph_of(part.size, scores=False)
                    self._run(graph, part)
                    self._n_past += part.size
            except BaseException:
                self._n_past = before
                raise
            if graph.logits is None:
                raise AssertionError("bug in toynn: the decoder's graph has no logits; please report it")
            return tnn_download(s, graph.logits)

    def score(self, ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return -log of the probability of each token except the first, given the tokens before it: float32 (n - 1,).

        The ids are a separate text: tokens read before are forgotten, and after the call this text is forgotten too.

        Raises TinyNNValueError for an id outside the vocabulary, for fewer than two ids, and for more than n_ctx + 1
        ids.
        """
        array = self._checked(ids)
        if not 2 <= array.size <= self.n_ctx + 1:
            raise TinyNNValueError(f"ids must hold 2 to n_ctx + 1 = {self.n_ctx + 1} tokens, got {array.size}")
        s = self._session
        losses: list[FloatArray] = []
        with s.exclusive():
            self._n_past = 0
            self._turns += 1
            try:
                for start in range(0, array.size - 1, _CHUNK):
                    part = array[start : min(start + _CHUNK, array.size - 1)]
                    graph = self._graph_of(part.size, scores=True)
                    if graph.targets is None or graph.row_losses is None:
                        raise AssertionError("bug in toynn: the decoder's graph has no losses; please report it")
                    upload_int_array(s, graph.targets, array[start + 1 : start + 1 + part.size])
                    self._run(graph, part)
                    self._n_past += part.size
                    losses.append(tnn_download(s, graph.row_losses))
            finally:
                self._n_past = 0
        return np.concatenate(losses)

    def _checked(self, ids: npt.ArrayLike) -> npt.NDArray[np.int32]:
        array = int_array("ids", ids, self.n_ctx + 1)
        if array.ndim != 1 or array.size == 0:
            raise TinyNNValueError(
                f"ids must be a one-dimensional sequence of at least one token, got shape {array.shape}"
            )
        return checked_token_ids(array, array.size, self.cfg.vocab, name="ids")

    def _run(self, graph: _Graph, ids: npt.NDArray[np.int32]) -> None:
        s = self._session
        upload_int_array(s, graph.ids, ids)
        upload_int_array(s, graph.positions, np.arange(self._n_past, self._n_past + ids.size, dtype=np.int32))
        upload_int_array(s, graph.n_past, [self._n_past])
        tnn_compute(s)

    def _graph_of(self, n: int, scores: bool) -> _Graph:
        """Return the graph over n tokens. Build it, unless the graph used last has the same size and purpose."""
        graph = self._graph
        if graph is not None and graph.n == n and (graph.targets is not None) == scores:
            return graph
        s, cfg = self._session, self.cfg
        self._graph = None
        tnn_reset_for_rebuild(s)
        graph = _Graph(n, tnn_input_1d_i32(s, n), tnn_input_1d_i32(s, n), tnn_input_1d_i32(s, 1))
        if not scores:
            graph.last = tnn_input_1d_i32(s, 1)
        rope, context = self._rope.at(graph.positions), Continuation(self._caches, graph.n_past)
        g, w = FusedGraph(s, self._adapter_scale), self._parameters.tree
        if scores:
            graph.targets = tnn_input_1d_i32(s, n)
            x = hidden_states(g, w, cfg, graph.ids, rope, context)
            result = g.output_loss(x, output_of(w), graph.targets, None)
            graph.row_losses = tnn_tensor_src(result, 0)
            if graph.row_losses is None:
                raise AssertionError(
                    "bug in toynn: the decoder's cross entropy has no losses of rows; please report it"
                )
            tnn_set_output(graph.row_losses)
        else:
            result = graph.logits = llama(g, w, cfg, graph.ids, rope, context, graph.last)
        tnn_realize(s, result)
        if graph.last is not None:
            upload_int_array(s, graph.last, [n - 1])
        self._graph = graph
        return graph

    def download_weights(self) -> dict[str, FloatArray]:
        """Return every weight by name, float32 in its row-major shape. Raises SessionError after close.

        The weights of a base come from the base, which must still be open.
        """
        with self._session.exclusive():
            return {name: self._download(one) for name, one in self._parameters.by_name.items()}

    def _download(self, one: Parameter) -> FloatArray:
        if self._base is None or one.weight.adapter:
            return self._parameters.download(one.weight.name)
        return self._base.values(one.weight)

    # ---- lifetime ----

    def close(self) -> None:
        """Free the session. A second call does nothing."""
        session, self._graph = self._session, None
        session.close()

    def __enter__(self) -> LlamaDecoder:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

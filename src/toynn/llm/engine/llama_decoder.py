"""LlamaDecoder: a llama model that reads one sequence bit by bit, keeping the keys and values of what it has read."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, integer, weights_by_name
from toynn.errors import TinyNNValueError
from toynn.llm.archs import LlamaArch
from toynn.llm.blocks import Continuation
from toynn.llm.engine.inputs import MAX_LAYERS, checked_token_ids
from toynn.llm.labels import IGNORE_ID
from toynn.llm.primitives import Rope
from toynn.llm.weights import WeightTable
from toynn.model.config import SmolLM2Config
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    TNN_F32,
    Session,
    Tensor,
    tnn_compute,
    tnn_download,
    tnn_finalize_weights,
    tnn_fused_cross_entropy,
    tnn_input_1d_f32_persistent,
    tnn_input_1d_i32,
    tnn_input_2d_f32_persistent,
    tnn_realize,
    tnn_reset_for_rebuild,
    tnn_session_set_graph_capacity,
    tnn_set_output,
    tnn_tensor_set_name,
    tnn_tensor_src,
    upload_int_array,
    upload_row_major,
)
from toynn.tinynn.memory import int_array

_CHUNK = 512  # tokens read at once: bounds the memory of activations


class _Graph:
    """A forward graph over n tokens. last is the row that gets logits, or None; row_losses where it scores instead."""

    def __init__(self, n: int, ids: Tensor, positions: Tensor, n_past: Tensor) -> None:
        self.n = n
        self.ids = ids
        self.positions = positions
        self.n_past = n_past
        self.last: Tensor | None = None
        self.logits: Tensor | None = None
        self.targets: Tensor | None = None
        self.row_losses: Tensor | None = None


class LlamaDecoder:
    """Reads token ids with `feed` and gives the logits of the next token; `score` gives the losses of a text.

    The same bits as `LlamaSeqEngine.forward` in the fused layout over the whole sequence, however it is cut into feeds.

    Args:
        cfg: the model's shape.
        weights: every weight of the fused layout by name, float32 (`toynn.llm.layouts.to_fused` makes them of the
            other layout's).
        untied, qkv_bias: as for `LlamaSeqEngine`. Default: as in cfg if that is a ModelShape, otherwise False.
        n_ctx: tokens that the cache holds. Default: cfg.ctx.
        n_threads, oversubscribe: as for `Session`.

    Raises:
        ValueError, TypeError: an argument, or a weight that is missing, unknown or of another shape, by name.
        TinyNNMemoryError: no memory.
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
        self.cfg = cfg = ModelShape.of(cfg, untied=untied, qkv_bias=qkv_bias)
        weights = weights_by_name(weights)
        if cfg.n_layers > MAX_LAYERS:
            raise TinyNNValueError(f"n_layers must be at most {MAX_LAYERS}, got {cfg.n_layers}")
        self.n_ctx = cfg.ctx if n_ctx is None else integer("n_ctx", n_ctx, 1)
        if self.n_ctx > cfg.ctx:
            raise TinyNNValueError(f"n_ctx must be at most cfg.ctx = {cfg.ctx}, got {self.n_ctx}")
        self._n_past = 0
        self._turns = 0
        self._graph: _Graph | None = None
        self._session = Session(0, n_threads, oversubscribe)
        try:
            self._declare()
            self._table.upload_all(weights)
        except BaseException:
            self._session.close()
            raise

    def _declare(self) -> None:
        s, cfg = self._session, self.cfg
        tnn_session_set_graph_capacity(s, 64 * cfg.n_layers + 256)
        self._table = WeightTable(s, TNN_F32, trains=False)
        self._arch = LlamaArch(self._table, cfg, init_scale=1.0, layout="fused")
        self._caches: list[Tensor] = []
        for i in range(cfg.n_layers):
            cache = tnn_input_2d_f32_persistent(s, 2 * cfg.n_kv * cfg.head_dim, self.n_ctx)
            tnn_tensor_set_name(s, cache, f"blk.{i}.kv_cache")
            self._caches.append(cache)
        factors = cfg.rope_scaling.freq_factors(cfg.head_dim, cfg.rope_base)
        self._freq_factors = None if factors is None else tnn_input_1d_f32_persistent(s, cfg.head_dim // 2)
        tnn_finalize_weights(s)
        if self._freq_factors is not None and factors is not None:
            upload_row_major(s, self._freq_factors, factors)

    # ---- reading ----

    @property
    def n_past(self) -> int:
        """Tokens read so far."""
        return self._n_past

    @property
    def turns(self) -> int:
        """Grows with every `feed`, `rewind` and `score`: who finds it as it was left finds what it read as it was."""
        return self._turns

    def rewind(self, n_past: int = 0) -> None:
        """Forgets all but the first n_past tokens.

        Raises TinyNNValueError where fewer were read, SessionError after close.
        """
        n_past = integer("n_past", n_past, 0)
        with self._session.exclusive():
            if n_past > self._n_past:
                raise TinyNNValueError(f"n_past must be at most the {self._n_past} tokens read, got {n_past}")
            self._n_past = n_past
            self._turns += 1

    def feed(self, ids: npt.ArrayLike) -> FloatArray:
        """Reads tokens behind those read before; logits float32 (vocab,) of the one to come.

        Raises TinyNNValueError for an id out of the vocabulary, none at all, or more than the cache has room for; then
        nothing was read.
        """
        array = self._checked(ids)
        s = self._session
        with s.exclusive():
            before = self._n_past
            if before + array.size > self.n_ctx:
                raise TinyNNValueError(
                    f"ids: {before} tokens were read and n_ctx is {self.n_ctx}: no room for {array.size} more"
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
                raise AssertionError("the graph gives no logits")
            return tnn_download(s, graph.logits)

    def score(self, ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """-log of the probability of each token but the first, given those before it: float32 (n - 1,).

        Reads them as a text of its own: what was fed before is forgotten, and so is this text afterwards.

        Raises TinyNNValueError for an id out of the vocabulary, fewer than two, or more than n_ctx + 1.
        """
        array = self._checked(ids)
        if not 2 <= array.size <= self.n_ctx + 1:
            raise TinyNNValueError(f"ids must be from 2 to n_ctx + 1 = {self.n_ctx + 1}, got {array.size}")
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
                        raise AssertionError("the graph gives no losses")
                    upload_int_array(s, graph.targets, array[start + 1 : start + 1 + part.size])
                    self._run(graph, part)
                    self._n_past += part.size
                    losses.append(tnn_download(s, graph.row_losses))
            finally:
                self._n_past = 0
        return np.concatenate(losses)

    def _checked(self, ids: npt.ArrayLike) -> npt.NDArray[np.int32]:
        array = int_array("ids", ids)
        if array.ndim != 1 or array.size == 0:
            raise TinyNNValueError(f"ids must be a flat sequence of at least one token, got shape {array.shape}")
        return checked_token_ids(array, array.size, self.cfg.vocab)

    def _run(self, graph: _Graph, ids: npt.NDArray[np.int32]) -> None:
        s = self._session
        upload_int_array(s, graph.ids, ids)
        upload_int_array(s, graph.positions, np.arange(self._n_past, self._n_past + ids.size, dtype=np.int32))
        upload_int_array(s, graph.n_past, [self._n_past])
        tnn_compute(s)

    def _graph_of(self, n: int, scores: bool) -> _Graph:
        """The graph over n tokens, built anew unless it is the last one."""
        graph = self._graph
        if graph is not None and graph.n == n and (graph.targets is not None) == scores:
            return graph
        s, cfg = self._session, self.cfg
        self._graph = None
        tnn_reset_for_rebuild(s)
        graph = _Graph(n, tnn_input_1d_i32(s, n), tnn_input_1d_i32(s, n), tnn_input_1d_i32(s, 1))
        n_past = graph.n_past
        rope = Rope(graph.positions, cfg.head_dim, cfg.rope_base, cfg.rope_scaling, self._freq_factors)
        if not scores:
            graph.last = tnn_input_1d_i32(s, 1)
        taps = self._arch.build_fused(
            s, graph.ids, rope, lambda table: Continuation(table, self._caches, n_past), graph.last
        )
        result = graph.logits = taps["logits"]
        if scores:
            graph.targets = tnn_input_1d_i32(s, n)
            result = tnn_fused_cross_entropy(s, taps["logits"], graph.targets, IGNORE_ID)
            graph.row_losses = tnn_tensor_src(s, result, 0)
            if graph.row_losses is None:
                raise AssertionError("a cross entropy has rows")
            tnn_set_output(s, graph.row_losses)
        tnn_realize(s, result)
        if graph.last is not None:
            upload_int_array(s, graph.last, [n - 1])
        self._graph = graph
        return graph

    def download_weights(self) -> dict[str, FloatArray]:
        """Return every weight by name, float32 of its row-major shape. Raises SessionError after close."""
        return {name: self._table.download(name) for name in self._table.weights}

    # ---- life ----

    def close(self) -> None:
        """Frees the session. Twice is harmless."""
        self._graph = None
        self._session.close()

    def __enter__(self) -> LlamaDecoder:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

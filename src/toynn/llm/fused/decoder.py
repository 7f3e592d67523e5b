"""LlamaDecoder: a model that reads sequences in parts, and keeps the keys and values of the tokens it has read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, FloatArray, instance_of, integer, kind_of, one_of, weights_by_name
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.llm.base import Base, StoredWeights, values_of
from toynn.llm.fused.decoder_graph import DecoderGraph, Places
from toynn.llm.inputs import checked_token_ids
from toynn.llm.parameters import Parameter, Parameters
from toynn.llm.rope import RopeOfModel
from toynn.llm.tuning import NOTHING, Tuning
from toynn.model.config import SmolLM2Config
from toynn.model.shape import ModelShape
from toynn.model.weights import weights_of
from toynn.tinynn import (
    TNN_F16,
    TNN_F32,
    Session,
    Tensor,
    tnn_available_memory,
    tnn_download,
    tnn_finalize_weights,
    tnn_kv_cache,
    tnn_reset_for_rebuild,
    tnn_resize_kv_caches,
    tnn_session_set_graph_capacity,
    tnn_tensor_set_name,
)
from toynn.tinynn.arrays import int_array
from toynn.tinynn.memory import want_memory

CACHES = {"f32": TNN_F32, "f16": TNN_F16}  # the types of cached keys and values
_CHUNK = 512  # number of tokens read at once; it limits the memory of the activations
_GROWTH = 1 << 25  # the free memory is checked each time the cache has grown by this number of bytes


class LlamaDecoder(Initialised):
    """Reads token ids with `feed` and returns the logits of the next token; `score` returns the losses of a text.

    The results have the same bits as `LlamaSeqEngine.forward` in the fused layout over the whole sequence, unless the
    cache is F16. The bits depend neither on the division of the tokens among calls nor on other sequences (see
    `open_sequences`).

    Args:
        cfg: the model's shape.
        weights: every weight of the fused layout by name, float32. `toynn.llm.layouts.to_fused` converts weights of the
            per_head layout.
        untied, qkv_bias: as for `LlamaSeqEngine`. Default: as in cfg if cfg is a ModelShape, otherwise False.
        n_ctx: number of tokens that a sequence can have. Default: cfg.ctx.
        cache: type of the cached keys and values: "f32", or "f16", which rounds them and needs half the memory.
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
        cache: str = "f32",
        n_threads: int | None = None,
        oversubscribe: bool = False,
    ) -> None:
        self._base: Base | None = None
        shape, given = ModelShape.of(cfg, untied=untied, qkv_bias=qkv_bias), weights_by_name(weights)
        self._open(
            shape, NOTHING, None, lambda parameters: parameters.upload_all(given), n_ctx, cache, n_threads,
            oversubscribe,
        )  # fmt: skip

    @classmethod
    def on_base(
        cls,
        base: Base,
        adapter: TrainedAdapter | None = None,
        *,
        n_ctx: int | None = None,
        cache: str = "f32",
        n_threads: int | None = None,
        oversubscribe: bool = False,
    ) -> LlamaDecoder:
        """Return a decoder of a base, with an adapter or without one.

        The weights of a GgufBase are mapped from its file and keep their types. The results have the same bits as
        with the dequantized weights.

        Args:
            base: a GgufBase, or a TrainedModel as a `LoadedBase`.
            adapter: the adapter, trained on this base.
            n_ctx, cache, n_threads, oversubscribe: as for the constructor.

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
        decoder._open(base.shape, tuning, stored, fill, n_ctx, cache, n_threads, oversubscribe)
        return decoder

    def _open(
        self,
        cfg: ModelShape,
        tuning: Tuning,
        stored: StoredWeights | None,
        fill: Callable[[Parameters], None],
        n_ctx: int | None,
        cache: str,
        n_threads: int | None,
        oversubscribe: bool,
    ) -> None:
        self.cfg = cfg
        self.n_ctx = cfg.ctx if n_ctx is None else integer("n_ctx", n_ctx, 1)
        if self.n_ctx > cfg.ctx:
            raise TinyNNValueError(f"n_ctx must be at most cfg.ctx = {cfg.ctx}, got {self.n_ctx}")
        self._largest_ctx = self.n_ctx
        self._dtype = CACHES[one_of("cache", cache, tuple(CACHES))]
        row = 2 * cfg.n_kv * cfg.head_dim
        # limit of the rows of a cache: a tensor of ggml has at most INT31_MAX elements
        self._most_rows = INT31_MAX // row
        # bytes of a row, added up over all layers
        self._row_nbytes = row * cfg.n_layers * (2 if self._dtype == TNN_F16 else 4)
        self._n_past = [0]  # for each sequence, the number of tokens read
        self._n_checked = 0  # the number of cache rows for which enough memory was free
        self._turns = 0
        self._graph: DecoderGraph | None = None
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
            cache = tnn_kv_cache(s, self.n_ctx, 2 * cfg.n_kv * cfg.head_dim, self._dtype)
            tnn_tensor_set_name(cache, f"blk.{i}.kv_cache")
            self._caches.append(cache)
        self._rope = RopeOfModel(s, cfg)
        tnn_finalize_weights(s)
        self._rope.upload()

    # ---- reading ----

    @property
    def n_past(self) -> int:
        """The number of tokens read so far, of the first sequence if there are several."""
        return self._n_past[0]

    @property
    def n_sequences(self) -> int:
        """The number of sequences; 1 unless `open_sequences` was called."""
        return len(self._n_past)

    def n_past_of(self, sequence: int) -> int:
        """Return the number of tokens read so far of a sequence."""
        return self._n_past[self._sequence(sequence)]

    def most_sequences(self, n_ctx: int) -> int:
        """Return how many sequences of n_ctx tokens fit into the available memory, at least 1."""
        n_ctx = integer("n_ctx", n_ctx, 1, self._largest_ctx)
        return max(min(tnn_available_memory() // (self._row_nbytes * n_ctx), self._most_rows // n_ctx), 1)

    @property
    def turns(self) -> int:
        """The number of calls so far that read or forget tokens. A change shows that the decoder was used again."""
        return self._turns

    def open_sequences(self, n: int = 1, n_ctx: int | None = None) -> None:
        """Forget all tokens, and make room for n sequences of at most n_ctx tokens.

        `feed` then reads tokens of one sequence, and `feed_each` reads the next token of several sequences in one
        computation. No sequence changes the bits of another.

        n_ctx: the default and the maximum are the n_ctx with which the decoder was made.

        Raises TinyNNValueError for a number that is out of range, SessionError after close, or TinyNNMemoryError if
        there is not enough memory. After an error nothing has changed.
        """
        n_ctx = self._largest_ctx if n_ctx is None else integer("n_ctx", n_ctx, 1, self._largest_ctx)
        n = integer("n", n, 1, max(self._most_rows // n_ctx, 1))
        s = self._session
        with s.exclusive():
            self._graph = None
            tnn_reset_for_rebuild(s)
            tnn_resize_kv_caches(s, n * n_ctx)
            self.n_ctx, self._n_past, self._n_checked = n_ctx, [0] * n, 0
            self._turns += 1

    def rewind(self, n_past: int = 0, sequence: int = 0) -> None:
        """Forget all tokens of a sequence except the first n_past.

        Raises TinyNNValueError if fewer tokens were read, or SessionError after close.
        """
        n_past, sequence = integer("n_past", n_past, 0), self._sequence(sequence)
        with self._session.exclusive():
            if n_past > (read := self._n_past[sequence]):
                raise TinyNNValueError(f"n_past must be at most {read} (the number of tokens read), got {n_past}")
            self._n_past[sequence] = n_past
            self._turns += 1

    def feed(self, ids: npt.ArrayLike, sequence: int = 0) -> FloatArray:
        """Read more tokens of a sequence. Return the logits of the token that follows them, float32 (vocab,).

        sequence: the number of the sequence, see `open_sequences`.

        Raises TinyNNValueError for an id outside the vocabulary, for no ids, and for more ids than fit into the cache.
        After an error no token was read.
        """
        array, sequence = self._checked(ids), self._sequence(sequence)
        s = self._session
        with s.exclusive():
            before = self._n_past[sequence]
            if before + array.size > self.n_ctx:
                raise TinyNNValueError(
                    f"ids must hold at most {self.n_ctx - before} tokens, because {before} of n_ctx = {self.n_ctx} "
                    f"tokens are already read, got {array.size}"
                )
            self._turns += 1
            try:
                for start in range(0, array.size, _CHUNK):
                    graph = self._read(array[start : start + _CHUNK], [sequence])
                return self._downloaded(graph.logits)
            except BaseException:
                self._n_past[sequence] = before
                raise

    def feed_each(self, ids: npt.ArrayLike, sequences: Sequence[int]) -> FloatArray:
        """Read one more token of each of several sequences. Return the logits of the next tokens, float32 (n, vocab).

        ids: the tokens (n,). sequences: the number of the sequence of each token, rising.

        Raises the errors of `feed`, and TinyNNValueError if a sequence is full.
        """
        if not isinstance(sequences, Sequence):
            raise TinyNNTypeError(f"sequences must be a list of integers, got {kind_of(sequences)}")
        array = self._checked(ids)
        if len(sequences) != array.size:
            raise TinyNNValueError(
                f"sequences must have {array.size} numbers, one for each token, got {len(sequences)}"
            )
        numbers = [self._sequence(one) for one in sequences]
        if sorted({*numbers}) != numbers:
            raise TinyNNValueError(f"sequences must be different numbers in rising order, got {numbers}")
        s = self._session
        with s.exclusive():
            for one in numbers:
                if self._n_past[one] >= self.n_ctx:
                    raise TinyNNValueError(
                        f"sequences: the sequence {one} is full, because it already has n_ctx = {self.n_ctx} "
                        "tokens; remove tokens with rewind"
                    )
            self._turns += 1
            return self._downloaded(self._read(array, numbers).logits).reshape(array.size, -1)

    def score(self, ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return -log of the probability of each token except the first, given the tokens before it: float32 (n - 1,).

        The ids are a separate text: tokens that the first sequence read before are forgotten, and after the call this
        text is forgotten too.

        Raises TinyNNValueError for an id outside the vocabulary, for fewer than two ids, and for more than n_ctx + 1
        ids.
        """
        array = self._checked(ids)
        if not 2 <= array.size <= self.n_ctx + 1:
            raise TinyNNValueError(f"ids must hold 2 to n_ctx + 1 = {self.n_ctx + 1} tokens, got {array.size}")
        losses: list[FloatArray] = []
        with self._session.exclusive():
            self._n_past[0] = 0
            self._turns += 1
            try:
                for start in range(0, array.size - 1, _CHUNK):
                    part = array[start : min(start + _CHUNK, array.size - 1)]
                    graph = self._read(part, [0], array[start + 1 : start + 1 + part.size])
                    losses.append(self._downloaded(graph.row_losses))
            finally:
                self._n_past[0] = 0
        return np.concatenate(losses)

    def _sequence(self, number: int) -> int:
        return integer("sequence", number, 0, len(self._n_past) - 1)

    def _checked(self, ids: npt.ArrayLike) -> npt.NDArray[np.int32]:
        array = int_array("ids", ids, max(self._largest_ctx + 1, len(self._n_past)))
        if array.ndim != 1 or array.size == 0:
            raise TinyNNValueError(
                f"ids must be a one-dimensional sequence of at least one token, got shape {array.shape}"
            )
        return checked_token_ids(array, array.size, self.cfg.vocab, name="ids")

    def _read(
        self, ids: npt.NDArray[np.int32], sequences: list[int], targets: npt.NDArray[np.int32] | None = None
    ) -> DecoderGraph:
        """Read the same number of tokens of each sequence, and return the computed graph.

        targets: the token after each token; the graph then computes losses.
        """
        t = ids.size // len(sequences)
        places = Places([one * self.n_ctx for one in sequences], [self._n_past[one] for one in sequences])
        self._want_memory(sum(self._n_past) + ids.size)
        kind = (t, len(sequences), targets is not None)
        graph = self._graph
        if graph is None or graph.kind != kind:
            self._graph = None
            graph = DecoderGraph(
                self._session, self.cfg, self._parameters.tree, self._rope, self._caches,
                adapter_scale=self._adapter_scale, t=t, sequences=len(sequences), n_ctx=self.n_ctx,
                scores=targets is not None,
            )  # fmt: skip
            self._graph = graph
        graph.run(ids, places, targets)
        for one in sequences:
            self._n_past[one] += t
        return graph

    def _want_memory(self, rows: int) -> None:
        """Raise TinyNNMemoryError if memory is not available for this number of rows of the cache.

        The system provides the memory of a row when the row is written for the first time. If the system has no memory
        left then, it kills the process.
        """
        if rows <= self._n_checked:
            return
        rows = min(rows + _GROWTH // self._row_nbytes + 1, len(self._n_past) * self.n_ctx)
        want_memory("ids", (rows - self._n_checked) * self._row_nbytes, "the keys and values of the tokens")
        self._n_checked = rows

    def _downloaded(self, tensor: Tensor | None) -> FloatArray:
        if tensor is None:
            raise AssertionError("bug in toynn: the decoder's graph does not compute this result; please report it")
        return tnn_download(self._session, tensor)

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

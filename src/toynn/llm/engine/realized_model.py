"""RealizedModel: access to what an engine holds: session, shape, tensors of the current graph, weights and taps."""

from __future__ import annotations

import math
from types import TracebackType
from typing import TypeVar

import numpy.typing as npt

from toynn.arguments import FloatArray, integer, text
from toynn.errors import SessionError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.graphs import ForwardGraph, TrainingGraph
from toynn.llm.layout import Layout
from toynn.model.shape import ModelShape
from toynn.tinynn import Session, Tensor, download_row_major, tnn_tensor_grad, tnn_tensor_ne0

Self = TypeVar("Self", bound="RealizedModel")


class RealizedModel(Initialised):
    """A model in one of the layouts, and its current graph. The model and the graph are None until an engine makes
    them.
    """

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._graph: ForwardGraph | None = None

    # ---- lifetime ----

    @property
    def realized(self) -> bool:
        """True if the engine has a model: after it was realized, and until `close`."""
        return self._layout is not None

    def close(self) -> None:
        """Free the session and everything that it holds.

        The engine can then be realized again. A second call does nothing.
        """
        layout, self._layout, self._graph = self._layout, None, None
        if layout is not None:
            layout.session.close()
            self._graph = None  # a thread that held the session until now may have set the graph

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the length of sequences ----

    def use_sequence_length(self, t_seq: int) -> None:
        """Set T, the number of tokens of each sequence, for all further calls. Fused layout only.

        The current graph is dropped, unless T stays the same. Weights and moments do not change. The memory of a graph
        is used again for the next one, so building the longest graph first avoids a second allocation.

        If samples at the start of the sequences end before T, the loss and all gradients have the same bits for every
        T: the tokens after the end of a sample have no target, so they contribute 0 to each sum.

        t_seq: from 1 to the T with which the model was realized.

        Raises TinyNNValueError or TinyNNTypeError for a wrong t_seq, or SessionError before the engine is realized.
        """
        layout = self._require_layout()
        t_seq = integer("t_seq", t_seq, 1, layout.options.t_seq)
        if t_seq == layout.t_seq:
            return
        if not layout.shortens:
            raise TinyNNValueError(
                f"t_seq must be {layout.t_seq} for a model in the {layout.name} layout, got {t_seq}; shorter sequences "
                "need the fused layout"
            )
        with layout.session.exclusive():
            self._graph = None
            layout.use_length(t_seq)

    # ---- names that the Ruby project toy has too ----

    @property
    def sess(self) -> Session:
        """The session.

        All properties that describe the model raise SessionError before the engine is realized and after close.
        """
        return self._require_layout().session

    @property
    def cfg(self) -> ModelShape:
        """The model's shape."""
        return self._require_layout().shape

    @property
    def layout(self) -> str:
        """ "per_head" or "fused"."""
        return self._require_layout().name

    @property
    def seq_t(self) -> int:
        """T, the length of a sequence, which `use_sequence_length` changes."""
        return self._require_layout().t_seq

    @property
    def seq_b(self) -> int:
        """B, the number of sequences in a step."""
        return self._require_layout().options.t_batch

    @property
    def t_seq_token_ids(self) -> Tensor:
        """Token ids, i32 ne=[T*B]: persistent, or an input of the current graph if `use_sequence_length` made T
        smaller.
        """
        return self._require_layout().token_ids

    @property
    def t_seq_attn_mask(self) -> Tensor | None:
        """The block-causal mask, f32 ne=[T*B keys, T*B queries], persistent; None for B = 1 and in the fused layout."""
        return self._require_layout().mask

    @property
    def t_seq_positions(self) -> Tensor:
        """Positions, i32 ne=[T*B], an input of the current graph. If there is no graph, build the forward graph."""
        return self._built_graph().positions

    @property
    def t_seq_logits(self) -> Tensor:
        """Logits, ne=[vocab, T*B], of the current graph. If there is no graph, build the forward graph.

        Raises SessionError if the current graph computes the logits in parts, as a graph with a loss over many tokens
        does in the fused layout.
        """
        logits = self._built_graph().taps.get("logits")
        if logits is None:
            raise SessionError(
                "the logits are not available, because the graph keeps the logits of only a few rows at a time; build "
                "the graph with build_training_step(taps=True)"
            )
        return logits

    @property
    def taps(self) -> dict[str, Tensor]:
        """Activations of the current graph by name. If there is no graph, build the forward graph."""
        return dict(self._built_graph().taps)

    @property
    def training_loss(self) -> Tensor | None:
        """The loss of the current graph; None if the graph is not a training graph."""
        return self._graph.t_loss if isinstance(self._graph, TrainingGraph) else None

    # ---- weights by name ----

    @property
    def weights(self) -> dict[str, Tensor]:
        """All weights, including frozen ones, in declaration order."""
        return {name: one.tensor for name, one in self._require_layout().parameters.by_name.items()}

    def params(self) -> dict[str, Tensor]:
        """Return the trained weights in declaration order."""
        weights = self._require_layout().parameters.by_name
        return {name: one.tensor for name, one in weights.items() if one.trainable}

    def param_names(self) -> list[str]:
        """Return the names of the trained weights in declaration order."""
        return list(self.params())

    def moment_names(self) -> list[str]:
        """Return the names of the moments of the trained weights. `download_weight` accepts these names."""
        optimizer = self._require_layout().options.optimizer
        trained = [one.weight for one in self._require_layout().parameters.by_name.values() if one.trainable]
        return [weight.name + end for weight in trained for end in weight.moments(optimizer)]

    def bf16_moment_names(self) -> list[str]:
        """Return the names of the moments that are stored in bfloat16."""
        layout = self._require_layout()
        stored = [one.weight for one in layout.parameters.by_name.values() if one.bf16_moments]
        return [weight.name + end for weight in stored for end in weight.moments(layout.options.optimizer)]

    def download_weight(self, name: str) -> FloatArray:
        """Return a weight, or a moment (name + ".m" or ".v"), as float32 in its shape.

        Raises TinyNNValueError for an unknown name.
        """
        return self._require_layout().parameters.download(name)

    def upload_weight(self, name: str, values: npt.ArrayLike) -> None:
        """Set a weight or a moment to finite numbers in its shape.

        Raises TinyNNValueError or TinyNNTypeError for any other values, or for an unknown name.
        """
        self._require_layout().parameters.upload(name, values)

    def gradient(self, name: str) -> FloatArray:
        """Return the gradient of a trained weight in the last step, as float32 in the weight's shape.

        Raises:
            TinyNNValueError: there is no trained weight of that name.
            SessionError: the current graph is not a training graph that keeps its gradients.
        """
        layout, graph = self._require_layout(), self._require_graph()
        found = layout.parameters.by_name.get(text("name", name))
        if found is None or not found.trainable:
            raise TinyNNValueError(f"name must be the name of a trained weight, got {name!r}")
        if not isinstance(graph, TrainingGraph) or not graph.gradients_kept:
            raise SessionError(
                "the graph does not keep the gradients; build the graph with pin=True or keep_gradients=True"
            )
        size = found.weight.size
        grad = tnn_tensor_grad(layout.session, found.tensor)
        return download_row_major(layout.session, grad, math.prod(size[:-1]), size[-1]).reshape(size)

    def download_tap(self, name: str) -> FloatArray:
        """Return the activation with the name `name` in `taps`, as it was computed last, as float32 (T*B, width).

        Raises TinyNNValueError for an unknown name, or SessionError before a graph is built.
        """
        layout, graph = self._require_layout(), self._require_graph()
        tensor = graph.taps.get(text("name", name))
        if tensor is None:
            raise TinyNNValueError(f"name must be the name of an activation in taps, got {name!r}")
        if not graph.keep_taps:
            raise SessionError("the graph does not keep the activations; build the graph with taps=True")
        return download_row_major(layout.session, tensor, layout.n, tnn_tensor_ne0(tensor))

    # ---- state ----

    def _require_layout(self) -> Layout:
        if self._layout is None:
            raise SessionError("the engine is not realized: call realize_for_random_init first")
        return self._layout

    def _built_graph(self) -> ForwardGraph:
        """Return the current graph. If there is none, build the forward graph, as the Ruby project toy does."""
        layout = self._require_layout()
        with layout.session.exclusive():
            if self._graph is None:
                self._graph = layout.forward_graph(layout.keeps_taps)
            return self._graph

    def _require_graph(self) -> ForwardGraph:
        self._require_layout()
        if self._graph is None:
            raise SessionError("the engine has no graph yet: call build_training_step or forward first")
        return self._graph

"""The forward graphs of a decoder: the next tokens of one or several sequences, whose earlier tokens are in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toynn.llm.fused.graph import FusedGraph
from toynn.llm.fused.model import Continuation, hidden_states, llama, output_of
from toynn.llm.parameters import WeightsByKey
from toynn.llm.rope import RopeOfModel
from toynn.model.shape import ModelShape
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_compute,
    tnn_input_1d_i32,
    tnn_realize,
    tnn_reset_for_rebuild,
    tnn_set_output,
    tnn_tensor_src,
    upload_int_array,
)


class Places(NamedTuple):
    """Where the tokens of some sequences are in the cache.

    first_rows: the first row of each sequence, rising. n_past: for each sequence, the number of tokens that were read
        before.
    """

    first_rows: Sequence[int]
    n_past: Sequence[int]


class DecoderGraph:
    """A graph over the next t tokens of each of several sequences. Making this graph drops the other graphs of the
    session.

    The graph computes the logits of the last token of each sequence, or the losses of all tokens.

    t: number of tokens of each sequence. sequences: number of sequences.
    scores: whether the graph computes losses.
    caches: the keys and values of all sequences, one tensor for each layer.
    n_ctx: the largest number of tokens of a sequence.
    """

    def __init__(
        self,
        session: Session,
        shape: ModelShape,
        weights: WeightsByKey,
        rope: RopeOfModel,
        caches: list[Tensor],
        *,
        adapter_scale: float,
        t: int,
        sequences: int,
        n_ctx: int,
        scores: bool,
    ) -> None:
        self.kind = (t, sequences, scores)
        self._session, self._t = session, t
        tnn_reset_for_rebuild(session)
        n = t * sequences
        self._ids, self._positions = tnn_input_1d_i32(session, n), tnn_input_1d_i32(session, n)
        self._n_past, self._first_rows = tnn_input_1d_i32(session, sequences), tnn_input_1d_i32(session, sequences)
        context = Continuation(caches, self._n_past, self._first_rows, n_ctx)
        g, turn = FusedGraph(session, adapter_scale), rope.at(self._positions)
        self.logits: Tensor | None = None
        self.row_losses: Tensor | None = None
        self._targets: Tensor | None = None
        if scores:
            self._targets = tnn_input_1d_i32(session, n)
            x = hidden_states(g, weights, shape, self._ids, turn, context)
            result = g.output_loss(x, output_of(weights), self._targets, None)
            self.row_losses = tnn_tensor_src(result, 0)
            if self.row_losses is None:
                raise AssertionError(
                    "bug in toynn: the decoder's cross entropy has no losses of rows; please report it"
                )
            tnn_set_output(self.row_losses)
            tnn_realize(session, result)
            return
        last = None if t == 1 else tnn_input_1d_i32(session, sequences)
        self.logits = llama(g, weights, shape, self._ids, turn, context, last)
        tnn_realize(session, self.logits)
        if last is not None:
            upload_int_array(session, last, np.arange(t - 1, n, t, dtype=np.int32))

    def run(self, ids: npt.NDArray[np.int32], places: Places, targets: npt.NDArray[np.int32] | None = None) -> None:
        """Compute the graph for the tokens `ids`: t tokens of each sequence, one sequence after the other.

        targets: the token after each token, if the graph computes losses.
        """
        s = self._session
        positions = np.add.outer(np.asarray(places.n_past, np.int32), np.arange(self._t, dtype=np.int32))
        upload_int_array(s, self._ids, ids)
        upload_int_array(s, self._positions, positions.ravel())
        upload_int_array(s, self._n_past, places.n_past)
        upload_int_array(s, self._first_rows, places.first_rows)
        if self._targets is not None and targets is not None:
            upload_int_array(s, self._targets, targets)
        tnn_compute(s)

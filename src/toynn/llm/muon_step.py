"""MuonStep: Muon's step of one matrix in a graph of its own, for callers that have computed the gradient elsewhere."""

from __future__ import annotations

import numpy.typing as npt

from toynn.arguments import FloatArray
from toynn.llm.optimizer import MUON_HP
from toynn.tinynn import (
    Session,
    Tensor,
    tnn_build_backward,
    tnn_build_forward_only,
    tnn_compute_backward,
    tnn_download,
    tnn_extend_backward_graph,
    tnn_finalize_weights,
    tnn_fused_muon,
    tnn_graph_reset_grads_only,
    tnn_input_1d_f32_persistent,
    tnn_input_2d_f32_persistent,
    tnn_realize_backward,
    tnn_set_loss,
    tnn_set_output,
    tnn_set_param,
    tnn_sum,
    tnn_upload_from_float_array,
)


class MuonStep:
    """A session with the graph of one step of a matrix (rows, columns). All matrices of this shape can use the graph.

    The result has the same bits as the step in a training graph.
    """

    def __init__(self, rows: int, columns: int, n_threads: int) -> None:
        # the threads of the training graph wait during this step, so their cores are free
        self._s = s = Session(n_threads=n_threads, oversubscribe=True)
        matrices = [tnn_input_2d_f32_persistent(s, rows, columns) for _ in range(3)]
        self._w, self._gradient, self._m = matrices
        self._hp = tnn_input_1d_f32_persistent(s, MUON_HP)
        # An optimizer step follows a backward pass, and a backward pass needs a loss. The loss is the sum of one unused
        # number.
        unused = tnn_input_1d_f32_persistent(s, 1)
        tnn_finalize_weights(s)
        tnn_set_param(self._w)
        tnn_set_param(unused)
        loss = tnn_sum(s, unused)
        tnn_set_output(loss)
        tnn_set_loss(loss)
        tnn_build_forward_only(s, loss)
        tnn_build_backward(s)
        tnn_extend_backward_graph(s, tnn_fused_muon(s, self._w, self._gradient, self._m, self._hp))
        tnn_realize_backward(s)
        tnn_upload_from_float_array(s, unused, [0.0])

    def take(
        self, w: npt.ArrayLike, gradient: npt.ArrayLike, m: npt.ArrayLike, hp: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """Take a step, and return the new matrix and its new momentum as flat arrays.

        w, gradient, m: rows * columns numbers. hp: as `Muon.hp` returns it.
        """
        s = self._s
        given: list[tuple[Tensor, npt.ArrayLike]] = [
            (self._w, w),
            (self._gradient, gradient),
            (self._m, m),
            (self._hp, hp),
        ]
        for tensor, values in given:
            tnn_upload_from_float_array(s, tensor, values)
        tnn_graph_reset_grads_only(s)
        tnn_compute_backward(s)
        return tnn_download(s, self._w), tnn_download(s, self._m)

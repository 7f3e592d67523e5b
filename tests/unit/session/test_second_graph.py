"""The second forward graph, and nodes that are added to the first graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from toynn import Session, SessionError, Tensor, TinyNNValueError
from toynn import tinynn as nn

pytestmark = pytest.mark.quick


@pytest.fixture
def s() -> Iterator[Session]:
    with Session(n_threads=1) as session:
        yield session


def test_a_second_graph_steps_a_weight_that_the_first_graph_reads(s: Session) -> None:
    """The Ruby project toy uses two graphs in this way: the first reads w, and the second updates w with AdamW."""
    w0, grad = np.linspace(-0.5, 0.6, 12, dtype=np.float32).reshape(3, 4), np.linspace(-0.3, 0.25, 12).reshape(3, 4)
    w, m, v = (nn.tnn_input_2d_f32_persistent(s, 3, 4) for _ in range(3))
    hp = nn.tnn_input_1d_f32_persistent(s, 7)
    nn.tnn_set_param(w)
    nn.tnn_finalize_weights(s)
    t_grad = nn.tnn_input_2d_f32(s, 3, 4)
    read = nn.tnn_scale(s, w, 1.0)
    nn.tnn_set_output(read)
    nn.tnn_realize(s, read)
    nn.tnn_realize_b(s, nn.tnn_opt_step_adamw(s, w, t_grad, m, v, hp))
    nn.upload_row_major(s, w, w0)
    nn.tnn_upload_from_float_array(s, hp, [0.01, 0.9, 0.999, 1e-8, 0.1, 1 / 0.1, 1 / 0.001], 7)
    nn.tnn_compute(s)
    assert nn.download_row_major(s, read, 3, 4).tolist() == w0.tolist()
    nn.tnn_switch_b(s)
    nn.upload_row_major(s, t_grad, grad)
    nn.tnn_compute_b(s)
    stepped = nn.download_row_major(s, w, 3, 4)
    np.testing.assert_allclose(stepped, w0 * (1 - 0.01 * 0.1) - 0.01 * grad / (np.abs(grad) + 1e-8), atol=1e-6)
    nn.tnn_switch_a(s)
    nn.tnn_compute(s)
    assert nn.download_row_major(s, read, 3, 4).tolist() == stepped.tolist()


def test_graphs_that_share_nodes_give_the_bits_of_graphs_of_their_own(s: Session) -> None:
    """A node that is in both graphs has a different place in the memory of each graph.

    The graphs are computed in turn.
    """
    rng = np.random.default_rng(5)
    values = rng.standard_normal((6, 8)).astype(np.float32)

    def first(session: Session, x: Tensor) -> tuple[Tensor, Tensor]:
        shared = nn.tnn_silu(session, nn.tnn_scale(session, x, 1.5))
        return shared, nn.tnn_softmax(session, nn.tnn_matmul(session, shared, x))

    def second(session: Session, x: Tensor, shared: Tensor) -> Tensor:
        large = nn.tnn_matmul(session, x, nn.tnn_tanh(session, shared))
        return nn.tnn_sum_rows(session, nn.tnn_mul(session, nn.tnn_softmax(session, large), large))

    wanted = []
    for which in range(2):
        with Session(n_threads=1) as alone:
            nn.tnn_finalize_weights(alone)
            x = nn.tnn_input_2d_f32(alone, 6, 8)
            shared, out = first(alone, x)
            out = second(alone, x, shared) if which else out
            nn.tnn_realize(alone, out)
            nn.upload_row_major(alone, x, values)
            nn.tnn_compute(alone)
            wanted.append(nn.tnn_download(alone, out).tobytes())

    nn.tnn_finalize_weights(s)
    x = nn.tnn_input_2d_f32(s, 6, 8)
    shared, out_a = first(s, x)
    nn.tnn_realize(s, out_a)
    n_nodes = nn.tnn_graph_n_nodes(s)
    out_b = second(s, x, shared)
    nn.tnn_realize_b(s, out_b)
    for _ in range(3):
        for switch, compute, out, want in (
            (nn.tnn_switch_b, nn.tnn_compute_b, out_b, wanted[1]),
            (nn.tnn_switch_a, nn.tnn_compute, out_a, wanted[0]),
        ):
            switch(s)
            nn.upload_row_major(s, x, values)
            compute(s)
            assert nn.tnn_download(s, out).tobytes() == want
    assert nn.tnn_graph_n_nodes(s) == n_nodes
    nn.tnn_switch_b(s)
    assert nn.tnn_graph_n_nodes(s) > n_nodes
    nn.upload_row_major(s, x, values)
    assert nn.tnn_compute_profiled(s).shape == (nn.tnn_graph_n_nodes(s),)
    assert nn.tnn_download(s, out_b).tobytes() == wanted[1]


@pytest.mark.parametrize("viewed", [False, True])
def test_an_output_of_the_second_graph_is_not_an_output_of_the_first(s: Session, viewed: bool) -> None:
    """The first graph was realized without this output, so it reuses the memory of the node for later nodes."""
    nn.tnn_finalize_weights(s)
    x = nn.tnn_input_1d_f32(s, 4)
    node = nn.tnn_scale(s, x, 2.0)
    out = nn.tnn_neg(s, nn.tnn_exp(s, node))
    nn.tnn_realize(s, out)
    nn.tnn_realize_b(s, nn.tnn_reshape_2d(s, node, 2, 2) if viewed else node)
    values = [0.0, 1.0, 2.0, 3.0]
    nn.tnn_upload_from_float_array(s, x, values)
    nn.tnn_compute(s)
    with pytest.raises(SessionError, match="is not an output of the realized graph"):
        nn.tnn_download(s, node)
    np.testing.assert_allclose(nn.tnn_download(s, out), -np.exp(2 * np.array(values)), rtol=1e-5)
    for switch, compute in ((nn.tnn_switch_b, nn.tnn_compute_b), (nn.tnn_switch_a, nn.tnn_compute)):
        switch(s)
        nn.tnn_upload_from_float_array(s, x, values)
        compute(s)
        assert nn.tnn_download(s, node).tolist() == [0.0, 2.0, 4.0, 6.0]


def test_a_switch_drops_the_values_of_inputs_and_results(s: Session) -> None:
    w = nn.tnn_input_1d_f32_persistent(s, 2)
    nn.tnn_finalize_weights(s)
    x = nn.tnn_input_1d_f32(s, 2)
    out = nn.tnn_add(s, x, w)
    nn.tnn_realize(s, out)
    nn.tnn_realize_b(s, nn.tnn_mul(s, x, w))
    nn.tnn_upload_from_float_array(s, x, [1.0, 2.0])
    nn.tnn_upload_from_float_array(s, w, [3.0, 4.0])
    nn.tnn_switch_a(s)  # does nothing: the first graph has the memory
    nn.tnn_compute(s)
    assert nn.tnn_download(s, out).tolist() == [4.0, 6.0]
    nn.tnn_switch_b(s)
    with pytest.raises(SessionError, match="never uploaded"):
        nn.tnn_compute_b(s)
    with pytest.raises(SessionError, match="has no memory"):
        nn.tnn_download(s, out)
    assert nn.tnn_download(s, w).tolist() == [3.0, 4.0]
    nn.tnn_switch_a(s)
    with pytest.raises(SessionError, match="not computed yet"):
        nn.tnn_download(s, out)
    with pytest.raises(SessionError, match="never uploaded"):
        nn.tnn_compute(s)


def test_wrong_orders_of_the_calls_of_the_second_graph_are_refused(s: Session) -> None:
    w = nn.tnn_input_1d_f32_persistent(s, 2)
    nn.tnn_finalize_weights(s)
    a, b = nn.tnn_scale(s, w, 2.0), nn.tnn_scale(s, w, 3.0)
    for early in (nn.tnn_switch_a, nn.tnn_switch_b, nn.tnn_compute_b):
        with pytest.raises(
            SessionError, match="a second forward graph can be used only after tnn_realize and tnn_realize_b"
        ):
            early(s)
    with pytest.raises(SessionError, match="can be called only after tnn_realize"):
        nn.tnn_realize_b(s, b)
    nn.tnn_realize(s, a)
    for early in (nn.tnn_switch_a, nn.tnn_switch_b, nn.tnn_compute_b):
        with pytest.raises(SessionError, match="there is no second forward graph; call tnn_realize_b first"):
            early(s)
    with pytest.raises(TinyNNValueError, match=r"out \(.*\) is an input"):
        nn.tnn_realize_b(s, w)
    with pytest.raises(SessionError, match="can be flagged only before"):
        nn.tnn_set_output(a)  # the tensor a already has memory in the first graph
    late = nn.tnn_scale(s, b, 4.0)
    nn.tnn_set_output(b)
    nn.tnn_realize_b(s, late)
    with pytest.raises(SessionError, match="can be built only once"):
        nn.tnn_realize_b(s, b)
    with pytest.raises(SessionError, match="can be appended only before"):
        nn.tnn_scale(s, b, 1.0)
    with pytest.raises(SessionError, match="can be flagged only before"):
        nn.tnn_set_output(late)
    with pytest.raises(SessionError, match="call tnn_switch_b and upload its inputs first"):
        nn.tnn_compute_b(s)
    nn.tnn_switch_b(s)
    with pytest.raises(SessionError, match="call tnn_switch_a and upload its inputs first"):
        nn.tnn_compute(s)
    nn.tnn_upload_from_float_array(s, w, [1.0, 2.0])
    nn.tnn_compute_b(s)
    assert nn.tnn_download(s, b).tolist() == [3.0, 6.0]
    assert nn.tnn_download(s, late).tolist() == [12.0, 24.0]
    nn.tnn_reset_for_rebuild(s)
    nn.tnn_realize(s, nn.tnn_scale(s, w, 5.0))
    nn.tnn_compute(s)


def test_a_node_that_the_result_does_not_depend_on_can_be_added(s: Session) -> None:
    cache = nn.tnn_input_2d_f32_persistent(s, 2, 4)
    nn.tnn_finalize_weights(s)
    row = nn.tnn_input_1d_f32(s, 4)
    nn.tnn_add_to_graph(s, nn.tnn_cpy(s, row, nn.tnn_view_1d(s, cache, 4, 16)))
    out = nn.tnn_sum(s, cache)
    nn.tnn_realize(s, out)
    with pytest.raises(SessionError, match="added to the graph only before the graph is built"):
        nn.tnn_add_to_graph(s, out)
    nn.tnn_upload_from_float_array(s, row, [1.0, 2.0, 3.0, 4.0])
    nn.tnn_compute(s)
    assert nn.tnn_download(s, out).tolist() == [10.0]
    assert nn.tnn_download(s, cache).tolist() == [0.0] * 4 + [1.0, 2.0, 3.0, 4.0]


def test_an_input_cannot_be_added_to_the_graph(s: Session) -> None:
    w = nn.tnn_input_1d_f32_persistent(s, 2)
    nn.tnn_finalize_weights(s)
    nn.tnn_scale(s, w, 1.0)
    with pytest.raises(TinyNNValueError, match="is an input; it must be the result of an operator"):
        nn.tnn_add_to_graph(s, w)


def test_added_nodes_are_kept_if_realizing_runs_out_of_memory(s: Session) -> None:
    w = nn.tnn_input_1d_f32_persistent(s, 2)
    nn.tnn_finalize_weights(s)
    copied = nn.tnn_input_1d_f32(s, 2)
    nn.tnn_add_to_graph(s, nn.tnn_cpy(s, nn.tnn_scale(s, copied, 2.0), w))
    huge = nn.tnn_input_2d_f32(s, 2**16, 2**14)
    for _ in range(64):
        huge_out = nn.tnn_add(s, nn.tnn_input_2d_f32(s, 2**16, 2**14), huge)
        huge = huge_out
    with pytest.raises(MemoryError):
        nn.tnn_realize(s, huge_out)
    nn.tnn_realize(s, nn.tnn_scale(s, w, 3.0))
    assert nn.tnn_graph_n_nodes(s) == 3
    nn.tnn_upload_from_float_array(s, copied, [1.0, 2.0])
    nn.tnn_compute(s)
    assert nn.tnn_download(s, w).tolist() == [2.0, 4.0]

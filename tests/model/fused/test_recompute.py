"""Activations that the backward pass computes again: the bits are those of a graph that keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines import realized
from fused_engines import HP, all_weights, engine, load, targets
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import SessionError, SmolLM2Config, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn
from toynn.llm.profiling import profile


def two_steps(variant: Variant, n_threads: int = 1, **build: Any) -> tuple[int, Any]:
    """Take two steps, the second over two batches. Return the number of nodes, and everything that the steps change."""
    with engine(variant, n_threads=n_threads, clip=True, keep_gradients=True, **build) as e:
        load(e, variant)
        steps = [e.train_step(variant.ids(), targets(variant), HP.hp(1), max_norm=0.5)]
        for i in (0, 1):
            step = e.train_step(variant.ids(), targets(variant), HP.hp(2), accumulate=i > 0, update=i > 0)
            steps.append(step)
        gradients = {name: e.gradient(name).tobytes() for name in e.param_names()}
        return nn.tnn_graph_n_nodes(e.sess), (steps, gradients, all_weights(e))


@each_variant
def test_recomputing_changes_no_bit(variant: Variant) -> None:
    kept, want = two_steps(variant)
    more, got = two_steps(variant, recompute=True)
    assert more >= kept + 6 * variant.cfg.n_layers
    assert got == want


@pytest.mark.threads
def test_recomputing_gives_the_same_bits_with_any_number_of_threads_and_with_kept_tensors() -> None:
    variant = VARIANTS["everything at once"]
    _, want = two_steps(variant)
    for n_threads, kept in ((2, {}), (3, {"pin": True}), (4, {"taps": True})):
        assert two_steps(variant, n_threads, recompute=True, **kept)[1] == want


def test_only_what_a_gradient_needs_is_computed_again() -> None:
    """The first of two layers is frozen. In the second layer, only the first weight is trained."""
    with nn.Session(n_threads=1) as s:
        w = [nn.tnn_input_2d_f32_persistent(s, 4, 4) for _ in range(6)]
        nn.tnn_finalize_weights(s)
        for i, one in enumerate(w):
            nn.upload_row_major(s, one, np.random.default_rng(i).standard_normal((4, 4)))
        nn.tnn_set_param(w[2])
        x, wanted = nn.tnn_input_2d_f32(s, 3, 4), nn.tnn_input_1d_i32(s, 3)
        x = ends = nn.tnn_fused_linear(s, x, [w[5]])
        nn.tnn_set_recompute(ends)
        for pair in (w[:2], w[2:4]):
            x = nn.tnn_fused_linear(s, nn.tnn_fused_linear(s, x, [pair[0]]), [pair[1]])
            nn.tnn_set_recompute(x)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w[4]]), wanted, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        nn.tnn_realize_backward(s)
        names = [nn.tnn_graph_node(s, i).name for i in range(nn.tnn_graph_n_nodes(s))]
        assert not any(name.endswith(" again") for name in names), "the gradient of w[2] reads the input of its layer"


def test_only_the_inputs_of_layers_and_one_layer_need_memory() -> None:
    """The gradients share memory in both graphs, so only the memory of the activations differs."""
    n, layers, d_ff = 128, 10, 512
    variant = Variant(SmolLM2Config(50, 128, 4, 2, d_ff, layers, 256, 10000.0, 1e-5), n)
    nbytes = []
    for recompute in (False, True):
        with engine(variant, recompute=recompute) as e:
            nbytes.append(nn.tnn_session_compute_nbytes(e.sess))
            shown = profile(e, variant.ids(), np.arange(n), targets(variant), HP.hp(1), True)
            again = sum(node.name.endswith(" again") for node in shown.nodes)
            assert again == (7 * layers if recompute else 0)
    # Bytes of the activations of a layer: norms, q, k, v, attention, both sides of SwiGLU.
    activations = 4 * n * (3 * 128 + 2 * 128 + 3 * d_ff)
    assert nbytes[0] - nbytes[1] > 0.9 * (layers - 2) * activations


def test_recomputing_is_refused_where_it_has_no_meaning() -> None:
    variant = VARIANTS["tied"]
    with realized(variant.cfg, **variant.options, layout="per_head") as e:
        with pytest.raises(TinyNNValueError, match="recompute needs the fused layout"):
            e.build_training_step(recompute=True)
        with pytest.raises(TinyNNTypeError, match="recompute"):
            e.build_training_step(recompute=1)  # type: ignore[arg-type]
    with nn.Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 6, 8)
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(w)
        with pytest.raises(TinyNNValueError, match="t is an input, which is always kept"):
            nn.tnn_set_recompute(w)
        wanted = nn.tnn_input_1d_i32(s, 5)
        x = nn.tnn_fused_linear(s, nn.tnn_input_2d_f32(s, 5, 8), [w])
        loss = nn.tnn_fused_cross_entropy(s, x, wanted, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        with pytest.raises(SessionError, match="must be flagged before tnn_build_backward"):
            nn.tnn_set_recompute(x)

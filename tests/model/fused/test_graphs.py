"""Graphs that users build from the fused operators: gradients, and the errors of graphs that cannot be built."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from toynn import (
    SessionError,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn import tinynn as nn

pytestmark = pytest.mark.quick


def cached(s: nn.Session, table: nn.Tensor, cache: nn.Tensor, n_past: nn.Tensor) -> nn.Tensor:
    """Return a cached attention with one head of size 8 over five tokens."""
    return nn.tnn_fused_attention_cached(s, nn.tnn_input_2d_f32(s, 5, 24), table, cache, n_past, 1, 1)


def small_graph(s: nn.Session) -> tuple[nn.Tensor, nn.Tensor, nn.Tensor]:
    """Return a parameter (6, 8), an input (5, 8) and targets; the graph is still empty."""
    w = nn.tnn_input_2d_f32_persistent(s, 6, 8)
    nn.tnn_finalize_weights(s)
    nn.upload_row_major(s, w, np.linspace(-1, 1, 48).reshape(6, 8))
    nn.tnn_set_param(w)
    return w, nn.tnn_input_2d_f32(s, 5, 8), nn.tnn_input_1d_i32(s, 5)


def test_a_tensor_with_several_readers_gets_the_sum_of_their_gradients() -> None:
    """y = x W^T is read by two SwiGLUs, by an addition y + y and by a linear operator.

    The oracle is finite differences.
    """
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_fused_linear(s, x, [w])  # ne=[6, 5]
        a, b = nn.tnn_fused_swiglu(s, y), nn.tnn_fused_swiglu(s, nn.tnn_add(s, y, y))  # ne=[3, 5]
        logits = nn.tnn_add(s, nn.tnn_add(s, a, b), nn.tnn_fused_swiglu(s, nn.tnn_fused_linear(s, x, [w], add=y)))
        loss = nn.tnn_fused_cross_entropy(s, logits, wanted, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_set_output(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, w)
        nn.tnn_set_output(grad)
        nn.tnn_realize_backward(s)
        rng = np.random.default_rng(0)
        nn.upload_row_major(s, x, rng.standard_normal((5, 8)))
        nn.upload_int_array(s, wanted, [0, 1, 2, 1, -1])

        def loss_at(values: npt.NDArray[np.float64]) -> float:
            nn.upload_row_major(s, w, values)
            nn.tnn_graph_reset(s)
            nn.tnn_compute_backward(s)
            return float(nn.tnn_download(s, loss)[0])

        at = np.linspace(-1, 1, 48).reshape(6, 8)
        loss_at(at)
        got = nn.download_row_major(s, grad, 6, 8)
        for i, j in ((0, 0), (2, 5), (3, 1), (5, 7)):
            step = np.zeros_like(at)
            step[i, j] = 1e-2
            slope = (loss_at(at + step) - loss_at(at - step)) / 2e-2
            assert got[i, j] == pytest.approx(slope, rel=2e-3, abs=2e-4)


def test_an_operator_without_a_derivative_is_refused_by_name() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_scale(s, nn.tnn_fused_linear(s, x, [w]), 2.0)
        loss = nn.tnn_fused_cross_entropy(s, y, wanted, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match=r"SCALE.*no derivative in a fused graph"):
            nn.tnn_build_backward(s)


def test_a_fused_operator_with_a_ggml_loss_is_refused_by_name() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, _ = small_graph(s)
        loss = nn.tnn_sum(s, nn.tnn_fused_linear(s, x, [w]))
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match=r"LINEAR.*tnn_fused_cross_entropy"):
            nn.tnn_build_backward(s)


def test_a_cross_entropy_that_is_not_the_loss_is_refused() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_fused_linear(s, x, [w])
        first = nn.tnn_fused_cross_entropy(s, y, wanted, -1)
        wide = nn.tnn_fused_linear(s, first, [nn.tnn_input_2d_f32(s, 6, 1)])  # ne=[6, 1]
        loss = nn.tnn_fused_cross_entropy(s, wide, nn.tnn_input_1d_i32(s, 1), -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(SessionError, match="depends on a parameter, but this node is not the loss"):
            nn.tnn_build_backward(s)


def test_only_the_mean_loss_can_read_the_row_losses() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        inner = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), wanted, -1)
        rows = nn.tnn_tensor_src(inner, 0)
        assert rows is not None
        loss = nn.tnn_fused_cross_entropy(s, rows, nn.tnn_input_1d_i32(s, 1), -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match="no gradient flows to it"):
            nn.tnn_build_backward(s)


def test_two_losses_are_refused() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_fused_linear(s, x, [w])
        first, second = (nn.tnn_fused_cross_entropy(s, y, wanted, -1) for _ in range(2))
        both = nn.tnn_add(s, first, second)
        nn.tnn_set_loss(first)
        nn.tnn_set_loss(second)
        nn.tnn_build_forward_only(s, both)
        with pytest.raises(SessionError, match="two nodes are flagged as losses"):
            nn.tnn_build_backward(s)


@pytest.mark.parametrize(
    ("build", "error", "mentions"),
    [
        (lambda s, w, x, t: nn.tnn_fused_linear(s, w, [x, x, x, x]), TinyNNValueError, "n = 4"),
        (lambda s, w, x, t: nn.tnn_fused_linear(s, w, []), TinyNNValueError, "n = 0"),
        (lambda s, w, x, t: nn.tnn_fused_linear(s, x, w), TinyNNTypeError, "weights must be a list"),
        (lambda s, w, x, t: nn.tnn_fused_linear(s, x, [w, t]), TinyNNTypeError, r"weights\[1\] has dtype i32"),
        (lambda s, w, x, t: nn.tnn_fused_linear(s, nn.tnn_transpose(s, x), [w]), TinyNNValueError, r"weights\[0\]"),
        (lambda s, w, x, t: nn.tnn_fused_linear(s, x, [w], [x]), TinyNNValueError, r"biases\[0\]"),
        (lambda s, w, x, t: nn.tnn_fused_linear(s, x, [w], []), TinyNNValueError, "biases must have one tensor"),
        (
            lambda s, w, x, t: nn.tnn_fused_linear(s, x, [w], add=x),
            TinyNNValueError,
            r"add has .* must be \[6, 5\]",
        ),
        (lambda s, w, x, t: nn.tnn_fused_rms_norm(s, x, w, 1e-5), TinyNNValueError, "gamma has shape"),
        (lambda s, w, x, t: nn.tnn_fused_rms_norm(s, x, nn.tnn_input_1d_f32(s, 8), -1.0), TinyNNValueError, "eps"),
        (lambda s, w, x, t: nn.tnn_fused_head_norm(s, x, w, w, 1, 1, 1e-5), TinyNNValueError, "gamma_q has shape"),
        (
            lambda s, w, x, t: nn.tnn_fused_head_norm(
                s, x, nn.tnn_input_1d_f32(s, 2), nn.tnn_input_1d_f32(s, 3), 2, 1, 1e-5
            ),
            TinyNNValueError,
            r"gamma_k has shape \[3\], but it must have as many elements as gamma_q, \[2\]",
        ),
        (
            lambda s, w, x, t: nn.tnn_fused_head_norm(
                s, x, nn.tnn_input_1d_f32(s, 2), nn.tnn_input_1d_f32(s, 2), 3, 2, 1e-5
            ),
            TinyNNValueError,
            r"qkv has shape \[8, 5\], but it must be .* = \[\(3 \+ 2\*2\) \* 2, rows\]",
        ),
        (
            lambda s, w, x, t: nn.tnn_fused_head_norm(
                s, x, nn.tnn_input_1d_f32(s, 2), nn.tnn_input_1d_f32(s, 2), 2, 0, 1e-5
            ),
            TinyNNValueError,
            "n_heads = 2 and n_kv = 0 must be at least 1",
        ),
        (
            lambda s, w, x, t: nn.tnn_fused_head_norm(
                s, x, nn.tnn_input_1d_f32(s, 2), nn.tnn_input_1d_f32(s, 2), 2, 1, -1.0
            ),
            TinyNNValueError,
            "eps",
        ),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, None, 3, 1e4, 1.0, 1.0), TinyNNValueError, "d_head = 3"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, None, 4, -1.0, 1.0, 1.0), TinyNNValueError, "freq_base"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, x, 4, 1e4, 1.0, 1.0), TinyNNValueError, "freq_factors"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, x, None, 4, 1e4, 1.0, 1.0), TinyNNTypeError, "positions"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, None, 2**30, 1e4, 1.0, 1.0), TinyNNValueError, "table"),
        (lambda s, w, x, t: nn.tnn_fused_attention(s, x, x, 1, 1, 5), TinyNNValueError, "qkv has shape"),
        (lambda s, w, x, t: nn.tnn_fused_attention(s, x, x, 3, 2, 5), TinyNNValueError, "n_kv = 2"),
        (
            lambda s, w, x, t: nn.tnn_fused_attention(s, nn.tnn_input_2d_f32(s, 5, 24), x, 1, 1, 3),
            TinyNNValueError,
            "t_seq = 3",
        ),
        (
            lambda s, w, x, t: cached(s, x, w, nn.tnn_input_1d_i32(s, 1)),
            TinyNNValueError,
            r"kv_cache .* \[16, at least 5",
        ),
        (lambda s, w, x, t: cached(s, x, x, nn.tnn_input_1d_i32(s, 1)), TinyNNValueError, "persistent"),
        (lambda s, w, x, t: cached(s, x, w, x), TinyNNTypeError, "n_past has dtype f32"),
        (lambda s, w, x, t: nn.tnn_fused_attention(s, x, x, 2**31 - 1, 1, 5), TinyNNValueError, "qkv has shape"),
        (lambda s, w, x, t: nn.tnn_fused_swiglu(s, nn.tnn_input_2d_f32(s, 2, 3)), TinyNNValueError, "gate_up"),
        (lambda s, w, x, t: nn.tnn_fused_geglu(s, nn.tnn_input_2d_f32(s, 2, 3)), TinyNNValueError, "gate_up"),
        (lambda s, w, x, t: nn.tnn_fused_cross_entropy(s, w, t, -1), TinyNNValueError, "targets has shape"),
        (lambda s, w, x, t: nn.tnn_fused_cross_entropy(s, x, t, 7), TinyNNValueError, "ignore_id = 7"),
        (lambda s, w, x, t: nn.tnn_fused_cross_entropy(s, x, x, -1), TinyNNTypeError, "targets has dtype f32"),
        (lambda s, w, x, t: nn.tnn_fused_adamw(s, w, w, w, w, w), SessionError, "tnn_build_backward"),
        (lambda s, w, x, t: nn.tnn_fused_grad_norm(s, [w], x), SessionError, "tnn_build_backward"),
        (lambda s, w, x, t: nn.tnn_compute_profiled(s), SessionError, "only after tnn_realize"),
    ],
)
def test_operands_that_do_not_fit_are_refused_by_name(build: Any, error: type[Exception], mentions: str) -> None:
    with nn.Session(n_threads=1) as s:
        w, x, t = small_graph(s)
        with pytest.raises(error, match=mentions):
            build(s, w, x, t)
        y = nn.tnn_fused_linear(s, x, [w])  # after the error, the graph must still be usable
        nn.tnn_set_output(y)
        nn.tnn_realize(s, y)
        nn.upload_row_major(s, x, np.ones((5, 8)))
        nn.tnn_compute(s)
        assert nn.tnn_download(s, y).shape == (30,)


@pytest.mark.parametrize(
    ("wrong", "mentions"),
    [
        ([0, 1, 2, 3, 6], r"targets.*\[4\] = 6 must be between 0 and 5"),
        ([0, 1, -2, 3, 4], r"\[2\] = -2"),
        ([-1] * 5, "all ignore_id"),
    ],
)
def test_targets_outside_the_vocabulary_are_refused_before_the_compute(wrong: list[int], mentions: str) -> None:
    with nn.Session(n_threads=1) as s:
        w, x, t = small_graph(s)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), t, -1)
        nn.tnn_realize(s, loss)
        nn.upload_row_major(s, x, np.ones((5, 8)))
        nn.upload_int_array(s, t, wrong)
        with pytest.raises(TinyNNValueError, match=mentions):
            nn.tnn_compute(s)
        nn.upload_int_array(s, t, [0, 1, 2, 3, -1])
        nn.tnn_compute(s)
        assert math.isfinite(nn.tnn_download(s, loss)[0])


@pytest.mark.parametrize("kind", ["linear", "rms_norm", "swiglu", "rows"])
def test_only_a_fused_cross_entropy_can_be_the_loss_of_a_fused_graph(kind: str) -> None:
    with nn.Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 1, 2 if kind == "swiglu" else 1)
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(w)
        if kind == "linear":
            loss: nn.Tensor | None = nn.tnn_fused_linear(s, nn.tnn_input_2d_f32(s, 1, 1), [w])
        elif kind == "rms_norm":
            loss = nn.tnn_fused_rms_norm(s, w, nn.tnn_input_1d_f32(s, 1), 1e-5)
        elif kind == "swiglu":
            loss = nn.tnn_fused_swiglu(s, w)
        else:
            loss = nn.tnn_tensor_src(nn.tnn_fused_cross_entropy(s, w, nn.tnn_input_1d_i32(s, 1), -1), 0)
        assert loss is not None
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match="whose loss is tnn_fused_cross_entropy"):
            nn.tnn_build_backward(s)


def two_weights_as_one(s: nn.Session, *, outputs: bool = True) -> tuple[list[nn.Tensor], nn.Tensor, nn.Tensor]:
    """Realize logits = (x W^T) (W + V)^T, and return the two parameters, the targets and the loss."""
    rng = np.random.default_rng(0)
    w, v, x = (nn.tnn_input_2d_f32_persistent(s, rows, 4) for rows in (4, 4, 3))
    nn.tnn_finalize_weights(s)
    for tensor, rows in ((w, 4), (v, 4), (x, 3)):
        nn.upload_row_major(s, tensor, rng.standard_normal((rows, 4)))
    nn.tnn_set_param(w)
    nn.tnn_set_param(v)
    wanted = nn.tnn_input_1d_i32(s, 3)
    h = nn.tnn_fused_linear(s, x, [w])
    loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, h, [nn.tnn_add(s, w, v)]), wanted, -1)
    nn.tnn_set_output(loss)
    nn.tnn_set_loss(loss)
    nn.tnn_build_forward_only(s, loss)
    nn.tnn_build_backward(s)
    for tensor in (w, v):
        nn.tnn_set_output(nn.tnn_tensor_grad(s, tensor))
    nn.tnn_realize_backward(s)
    nn.upload_int_array(s, wanted, [0, 1, 2])
    return [w, v], wanted, loss


def test_parameters_that_are_added_get_separate_gradients() -> None:
    with nn.Session(n_threads=1) as s:
        params, _, _ = two_weights_as_one(s)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        got = [nn.download_row_major(s, nn.tnn_tensor_grad(s, p), 4, 4).astype(np.float64) for p in params]
    rng = np.random.default_rng(0)
    w, v, x = (rng.standard_normal((rows, 4)) for rows in (4, 4, 3))
    h = x @ w.T
    p = np.exp(h @ (w + v).T)
    p /= p.sum(axis=1, keepdims=True)
    p[range(3), range(3)] -= 1
    p /= 3
    np.testing.assert_allclose(got[1], p.T @ h, atol=1e-5)
    np.testing.assert_allclose(got[0], p.T @ h + (p @ (w + v)).T @ x, atol=1e-5)


def test_gradients_accumulate_only_if_a_kernel_can_add_to_them() -> None:
    """The parameter p is an addend, so its gradient is the gradient of the sum, a tensor that each step overwrites."""
    with nn.Session(n_threads=1) as s:
        p = nn.tnn_input_2d_f32_persistent(s, 3, 4)
        w, m, v = (nn.tnn_input_2d_f32_persistent(s, 5, 4) for _ in range(3))
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(p)
        nn.tnn_set_param(w)
        wanted, ids, hp = nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_f32(s, 7)
        x = nn.tnn_add(s, p, nn.tnn_get_rows(s, w, ids))
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), wanted, -1)
        nn.tnn_set_output(loss)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        for tensor in (p, w):
            nn.tnn_set_output(nn.tnn_tensor_grad(s, tensor))
        nn.tnn_extend_backward_graph(s, nn.tnn_fused_adamw(s, w, nn.tnn_tensor_grad(s, w), m, v, hp))
        nn.tnn_realize_backward(s)
        step = nn.TrainStep(ids, wanted, hp, loss)
        nn.tnn_train_step(s, step, [0, 1, 2], [0, 1, 2], np.zeros(7))
        with pytest.raises(SessionError, match="to accumulate, each gradient must be flagged"):
            nn.tnn_train_step(s, step, [0, 1, 2], [0, 1, 2], np.zeros(7), accumulate=True)


def test_loss_and_norm_of_a_step_must_be_outputs() -> None:
    with nn.Session(n_threads=1) as s:
        w, m, v = (nn.tnn_input_2d_f32_persistent(s, 5, 4) for _ in range(3))
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(w)
        wanted, ids, hp = nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_f32(s, 7)
        clip = nn.tnn_input_1d_f32(s, 2)
        x = nn.tnn_get_rows(s, w, ids)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), wanted, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, w)
        norm = nn.tnn_fused_grad_norm(s, [grad], clip)
        nn.tnn_extend_backward_graph(s, nn.tnn_fused_adamw(s, w, grad, m, v, hp, norm))
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, clip, [[0.0, 1.0]])
        for step in (nn.TrainStep(ids, wanted, hp, loss), nn.TrainStep(ids, wanted, hp, loss, norm)):
            with pytest.raises(SessionError, match="tnn_set_output"):
                nn.tnn_train_step(s, step, [0, 1, 2], [0, 1, 2], np.zeros(7))


def test_a_list_with_a_wrong_length_is_read_item_by_item_to_its_end() -> None:
    class WrongLength(list):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 3

    with nn.Session(n_threads=1) as s:
        w, x, _ = small_graph(s)
        assert nn.tnn_tensor_ne0(nn.tnn_fused_linear(s, x, WrongLength([w]))) == 6

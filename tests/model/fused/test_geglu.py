"""GEGLU and scaling agree with numpy in float64, have the recorded bits, and handle extreme values correctly."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from toynn import tinynn as nn

pytestmark = pytest.mark.quick

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
FACTOR = 1.75  # this factor is exact in f32


def geglu(gate_up: F32, w: F32, n_threads: int = 1) -> tuple[F32, F32]:
    """Return y = geglu(gate_up), and the gradient of gate_up for the cross entropy of FACTOR * y W^T with targets 0."""
    rows, d_ff = gate_up.shape[0], gate_up.shape[1] // 2
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        x, t_w = nn.tnn_input_2d_f32_persistent(s, rows, 2 * d_ff), nn.tnn_input_2d_f32_persistent(s, w.shape[0], d_ff)
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(x)
        targets = nn.tnn_input_1d_i32(s, rows)
        y = nn.tnn_fused_geglu(s, x)
        loss = nn.tnn_fused_cross_entropy(
            s, nn.tnn_fused_linear(s, nn.tnn_fused_scale(s, y, FACTOR), [t_w]), targets, -1
        )
        nn.tnn_set_output(y)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, x)
        nn.tnn_set_output(grad)
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, x, gate_up)
        nn.upload_row_major(s, t_w, w)
        nn.upload_int_array(s, targets, [0] * rows)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        return nn.download_row_major(s, y, rows, d_ff), nn.download_row_major(s, grad, rows, 2 * d_ff)


def gelu(x: F64) -> tuple[F64, F64]:
    """Return gelu(x) and its derivative, by the definition with tanh."""
    root = np.sqrt(2 / np.pi)
    t = np.tanh(root * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * root * (1 + 3 * 0.044715 * x**2)


def case(rows: int, d_ff: int) -> tuple[F32, F32]:
    """Return gate_up and w, computed without the C library, whose functions may give other bits on other machines."""
    rng = np.random.default_rng(rows)
    return rng.uniform(-5, 5, (rows, 2 * d_ff)).astype(np.float32), rng.uniform(-2, 2, (5, d_ff)).astype(np.float32)


@pytest.mark.parametrize(("rows", "d_ff"), [(1, 1), (3, 7), (9, 16), (17, 37)])
def test_the_result_and_its_gradient_agree_with_float64(rows: int, d_ff: int) -> None:
    gate_up, w = case(rows, d_ff)
    y, grad = geglu(gate_up, w)
    gate, up = np.split(gate_up.astype(np.float64), 2, axis=1)
    value, slope = gelu(gate)
    logits = FACTOR * (value * up) @ w.astype(np.float64).T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[:, 0] -= 1
    dy = FACTOR * (p / rows) @ w.astype(np.float64)
    np.testing.assert_allclose(y, value * up, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(grad, np.hstack([dy * up * slope, dy * value]), rtol=0, atol=3e-6 * np.abs(grad).max())


@pytest.mark.threads
def test_the_bits_are_those_recorded_with_any_number_of_threads() -> None:
    gate_up, w = case(64, 101)
    for n_threads in (1, 2, 3):
        y, grad = geglu(gate_up, w, n_threads)
        digest = hashlib.sha256(y.tobytes() + grad.tobytes()).hexdigest()
        assert digest == "e89354b5b74014780e4c1cafa9663ff0d8278df18dcbdf3e9f0779c80adc0e47"


def test_large_gates_give_the_limits_of_gelu_and_nan_stays_nan() -> None:
    gates = np.array([0.0, -0.0, 16.0, 17.0, 1e4, 1e13, 1e20, 3e38, -16.0, -17.0, -1e4, -1e13, -1e20, -3e38, np.nan])
    y, grad = geglu(np.vstack([gates, np.full(gates.size, 0.5)]).T.astype(np.float32), np.ones((2, 1), np.float32))
    want = np.where(gates > 0, 0.5 * gates, np.where(gates <= 0, 0.0, np.nan)).astype(np.float32)
    np.testing.assert_array_equal(y[:, 0], want)
    assert np.isfinite(grad[:-1]).all()
    assert np.isnan(grad[-1, 0])

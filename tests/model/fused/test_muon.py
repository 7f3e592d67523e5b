"""A step of Muon agrees with a float64 oracle, and has the same bits with any number of threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

import toynn.tinynn as nn
from toynn.arguments import FloatArray

pytestmark = pytest.mark.quick

Doubles: TypeAlias = npt.NDArray[np.float64]
A, B, C = 3.4445, -4.7750, 2.0315
SHAPES = [(1, 1), (1, 40), (40, 1), (7, 5), (5, 7), (48, 48), (97, 130), (150, 64)]
HP = [0.02, 0.95, 0.1]  # learning rate, momentum, weight decay


@dataclass
class Result:
    """Weights, momentum and gradient after the steps. norms: the gradient norm of each step."""

    w: FloatArray
    m: FloatArray
    grad: FloatArray
    norms: list[float]


def start(shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(shape)
    return rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape).astype(np.float32)


def steps_of_muon(
    shape: tuple[int, int], n: int = 1, *, threads: int = 1, clip: float = 0.0, scale: float = 1.0, update: bool = True
) -> Result:
    """Take n steps of Muon on the weight w. The loss is the cross entropy of x w^T. `scale` multiplies the gradient."""
    w, m = start(shape)
    with nn.Session(n_threads=threads, oversubscribe=True) as s:
        tw, tm = (nn.tnn_input_2d_f32_persistent(s, *shape) for _ in range(2))
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, tw, w)
        nn.upload_row_major(s, tm, m)
        nn.tnn_set_param(tw)
        rows = 9
        x, hp, t_clip = nn.tnn_input_2d_f32(s, rows, shape[1]), nn.tnn_input_1d_f32(s, 3), nn.tnn_input_1d_f32(s, 2)
        ids = nn.tnn_input_1d_i32(s, rows)
        targets = nn.tnn_input_1d_i32(s, rows)
        picked = nn.tnn_get_rows(s, x, ids)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, picked, [tw]), targets, -1)
        nn.tnn_set_output(loss)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, tw)
        nn.tnn_set_output(grad)
        norm = nn.tnn_fused_grad_norm(s, [grad], t_clip)
        nn.tnn_set_output(norm)
        nn.tnn_extend_backward_graph(s, nn.tnn_fused_muon(s, tw, grad, tm, hp, norm))
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, x, np.random.default_rng(1).standard_normal((rows, shape[1])))
        nn.upload_row_major(s, t_clip, [[clip, scale]])
        step = nn.TrainStep(ids, targets, hp, loss, norm)
        norms: list[float] = []
        for i in range(n):
            wanted = (np.arange(rows) + i) % shape[0]
            _, one = nn.tnn_train_step(s, step, range(rows), wanted, np.array(HP), update=update)
            norms.append(math.nan if one is None else one)
        w, m, g = (nn.download_row_major(s, tensor, *shape) for tensor in (tw, tm, grad))
    return Result(w, m, g, norms)


def oracle(w: Doubles, m: Doubles, grad: Doubles) -> tuple[Doubles, Doubles]:
    """Return w and m after one step of Muon, by the formula of the publication."""
    lr, mu, decay = HP
    m = mu * m + (1 - mu) * grad
    x = mu * m + (1 - mu) * grad
    x = x / max(float(np.linalg.norm(x)), 1e-300)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(5):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    x = x.T if transposed else x
    return (1 - lr * decay) * w - lr * math.sqrt(max(1, w.shape[0] / w.shape[1])) * x, m


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_a_step_equals_the_formula_in_float64(shape: tuple[int, int], clip: float) -> None:
    found = steps_of_muon(shape, clip=clip)
    w, m = start(shape)
    factor = min(1.0, clip / found.norms[0]) if clip and found.norms[0] else 1.0
    gradient = found.grad.astype(np.float64) * factor
    expected_w, expected_m = oracle(w.astype(np.float64), m.astype(np.float64), gradient)
    np.testing.assert_allclose(found.m, expected_m, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.w, expected_w, rtol=0, atol=2e-6)


@pytest.mark.threads
@pytest.mark.parametrize("shape", [(97, 130), (150, 64), (48, 48), (1, 40)], ids=str)
def test_the_bits_do_not_depend_on_the_number_of_threads(shape: tuple[int, int]) -> None:
    alone = steps_of_muon(shape, 3)
    for threads in (2, 3, 4):
        several = steps_of_muon(shape, 3, threads=threads)
        assert several.w.tobytes() == alone.w.tobytes()
        assert several.m.tobytes() == alone.m.tobytes()


def test_singular_values_of_an_update_are_close_to_one() -> None:
    w, _ = start((40, 60))
    found = steps_of_muon((40, 60))
    update = ((1 - HP[0] * HP[2]) * w.astype(np.float64) - found.w) / HP[0]
    values = np.linalg.svd(update, compute_uv=False)
    assert 0.6 < values.min() <= values.max() < 1.3


def test_steps_without_update_and_with_a_norm_that_is_not_finite_change_nothing() -> None:
    w, m = start((7, 5))
    for found in (steps_of_muon((7, 5), update=False), steps_of_muon((7, 5), scale=math.inf)):
        assert found.w.tobytes() == w.tobytes()
        assert found.m.tobytes() == m.tobytes()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20])
def test_very_short_and_long_gradients_give_finite_weights(scale: float) -> None:
    found = steps_of_muon((7, 5), 2, scale=scale)
    assert np.isfinite(found.w).all()
    assert not np.array_equal(found.w, start((7, 5))[0])

"""Every operator of the session API compared with float64 numpy: results and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from session_arrays import Array, Ids, declare, fill, row_major_shape
from toynn import Session, Tensor, TinyNNValueError
from toynn import tinynn as nn
from toynn.tinynn.calls import convolution, derivatives, experts, operators, recurrence

pytestmark = pytest.mark.quick

rng = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    """Return random f64 numbers that are exact in f32, so that toynn and the oracle start from equal values."""
    return rng.standard_normal(shape).astype(np.float32).astype(np.float64)


Build = Callable[..., Tensor]


Reference = Callable[..., Array]


@dataclass
class Case:
    """A test case: an operator, its definition in numpy (row-major), and operands.

    Integer operands are ids or positions.
    """

    name: str
    build: Build
    reference: Reference
    operands: list[npt.NDArray[Any]]
    differentiable: bool = True
    atol: float = 2e-5


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def masked(x: Array, closed: float) -> Array:
    return np.where(np.triu(np.ones(x.shape[-2:], dtype=bool), 1), closed, x)


def rope(x: Array, positions: Ids, base: float, neox: bool, factors: Array | None = None) -> Array:
    """Return x (T, heads, d) rotated by its positions."""
    d = x.shape[-1]
    speed = base ** (-2.0 * np.arange(d // 2) / d) / (1.0 if factors is None else factors)
    turn = np.exp(1j * positions[:, None, None] * speed)
    a, b = (x[..., : d // 2], x[..., d // 2 :]) if neox else (x[..., 0::2], x[..., 1::2])
    turned = (a + 1j * b) * turn
    if neox:
        return np.concatenate([turned.real, turned.imag], axis=-1)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def rms_norm(x: Array, gamma: Array, eps: float) -> Array:
    return np.asarray(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * gamma)


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * gamma + beta)


def cross_entropy(logits: Array, labels: Array) -> Array:
    return np.asarray(-(labels * np.log(softmax(logits))).sum(axis=-1).mean()).reshape(1)


def gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


def attention(q: Array, k: Array, v: Array) -> Array:
    """Return the attention of q (h, T, d), k (h_kv, S, d), v (h_kv, S, dv): shape (T, h, dv)."""
    group = q.shape[0] // k.shape[0]
    k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
    return np.asarray((softmax(q @ k.transpose(0, 2, 1) * 0.5) @ v).transpose(1, 0, 2))


IDS = np.array([3, 0, 5, 3, 1], dtype=np.int32)


POSITIONS = np.array([0, 1, 2, 7, 4], dtype=np.int32)


LABELS = softmax(normal(5, 7)).astype(np.float32).astype(np.float64)


def _rope(mode: int) -> Build:
    def build(s: Session, x: Tensor, positions: Tensor, factors: Tensor | None = None) -> Tensor:
        return nn.tnn_rope_ext(s, x, positions, 8, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0, factors, mode=mode, n_ctx_orig=0)

    return build


CASES = [
    Case("matmul", nn.tnn_matmul, lambda a, b: b @ a.T, [normal(6, 8), normal(5, 8)]),
    Case("matmul of a stack", nn.tnn_matmul, lambda a, b: b @ a.transpose(0, 2, 1), [normal(3, 6, 8), normal(3, 5, 8)]),
    Case("add", nn.tnn_add, lambda a, b: a + b, [normal(5, 8), normal(5, 8)]),
    Case("add of a row", nn.tnn_add, lambda a, b: a + b, [normal(5, 8), normal(8)]),
    Case("sub", nn.tnn_sub, lambda a, b: a - b, [normal(5, 8), normal(5, 8)]),
    Case("mul", nn.tnn_mul, lambda a, b: a * b, [normal(5, 8), normal(5, 8)]),
    Case("mul by a row", nn.tnn_mul, lambda a, b: a * b, [normal(5, 8), normal(8)]),
    Case("scale", lambda s, a: nn.tnn_scale(s, a, -1.5), lambda a: -1.5 * a, [normal(5, 8)]),
    Case("silu", nn.tnn_silu, lambda a: a / (1 + np.exp(-a)), [normal(5, 8)]),
    Case("gelu", nn.tnn_gelu, gelu, [normal(5, 8)], differentiable=False, atol=2e-3),
    Case("tanh", nn.tnn_tanh, np.tanh, [normal(5, 8)], differentiable=False),
    Case("sqrt", nn.tnn_sqrt, np.sqrt, [np.abs(normal(5, 8)) + 1.0]),
    Case(
        "rms_norm",
        lambda s, x, g: nn.tnn_rms_norm(s, x, g, 1e-5),
        lambda x, g: rms_norm(x, g, 1e-5),
        [normal(5, 8), normal(8)],
    ),
    Case(
        "layer_norm",
        lambda s, x, g, b: nn.tnn_layer_norm(s, x, g, b, 1e-5),
        lambda x, g, b: layer_norm(x, g, b, 1e-5),
        [normal(5, 8), normal(8), normal(8)],
        differentiable=False,
    ),
    Case("softmax", nn.tnn_softmax, softmax, [normal(5, 8)]),
    Case(
        "soft_max_ext",
        lambda s, a: nn.tnn_soft_max_ext(s, a, None, 0.5, 0.0),
        lambda a: softmax(0.5 * a),
        [normal(5, 8)],
    ),
    Case(
        "soft_max_ext under a mask",
        lambda s, a, zero: nn.tnn_soft_max_ext(s, a, zero, 0.5, 0.0),
        lambda a, mask: softmax(0.5 * a + mask),
        [normal(8, 8), np.where(np.triu(np.ones((8, 8)), 1) > 0, -1e30, 0.0)],
        differentiable=False,
    ),
    Case(
        "diag_mask_inf",
        lambda s, a: nn.tnn_softmax(s, nn.tnn_diag_mask_inf(s, a, 0)),
        lambda a: softmax(masked(a, -np.inf)),
        [normal(8, 8)],
    ),
    Case("rope, neox", _rope(2), lambda x, p: rope(x, p, 1e4, True), [normal(5, 3, 8), POSITIONS]),
    Case("rope, normal", _rope(0), lambda x, p: rope(x, p, 1e4, False), [normal(5, 3, 8), POSITIONS]),
    Case("get_rows", nn.tnn_get_rows, lambda table, ids: table[ids], [normal(6, 8), IDS]),
    Case(
        "concat along ne0",
        lambda s, a, b: nn.tnn_concat(s, a, b, 0),
        lambda a, b: np.concatenate([a, b], axis=-1),
        [normal(5, 8), normal(5, 3)],
    ),
    Case(
        "concat along ne1",
        lambda s, a, b: nn.tnn_concat(s, a, b, 1),
        lambda a, b: np.concatenate([a, b], axis=-2),
        [normal(5, 8), normal(2, 8)],
    ),
    Case(
        "concat of three",
        lambda s, *parts: nn.tnn_concat_n(s, parts, 0),
        lambda *parts: np.concatenate(parts, axis=-1),
        [normal(5, 8), normal(5, 3), normal(5, 8)],
    ),
    Case("transpose", nn.tnn_transpose, lambda a: a.T, [normal(5, 8)]),
    Case("cont_2d", lambda s, a: nn.tnn_cont_2d(s, a, 4, 10), lambda a: a.reshape(10, 4), [normal(5, 8)]),
    Case("reshape_2d", lambda s, a: nn.tnn_reshape_2d(s, a, 4, 10), lambda a: a.reshape(10, 4), [normal(5, 8)]),
    Case("reshape_3d", lambda s, a: nn.tnn_reshape_3d(s, a, 4, 2, 5), lambda a: a.reshape(5, 2, 4), [normal(5, 8)]),
    Case("view_1d", lambda s, a: nn.tnn_view_1d(s, a, 7, 12), lambda a: a.ravel()[3:10], [normal(5, 8)]),
    Case(
        "view_2d",
        lambda s, a: nn.tnn_cont_2d(s, nn.tnn_view_2d(s, a, 4, 5, 32, 8), 4, 5),
        lambda a: a[:, 2:6],
        [normal(5, 8)],
    ),
    Case("sum", nn.tnn_sum, lambda a: a.sum().reshape(1), [normal(5, 8)]),
    Case("sum_rows", nn.tnn_sum_rows, lambda a: a.sum(axis=-1, keepdims=True), [normal(5, 8)]),
    Case(
        "cross_entropy_loss",
        lambda s, x, y: nn.tnn_cross_entropy_loss(s, x, y),
        cross_entropy,
        [normal(5, 7), LABELS],
        differentiable=False,
    ),
    Case(
        "cast to f16 and back",
        lambda s, a: nn.tnn_cast(s, nn.tnn_cast(s, a, nn.TNN_F16), nn.TNN_F32),
        lambda a: a.astype(np.float16).astype(np.float64),
        [normal(5, 8)],
        differentiable=False,
        atol=0,
    ),
    Case(
        "cast to bf16 and back",
        lambda s, a: nn.tnn_cast(s, nn.tnn_cast(s, a, nn.TNN_BF16), nn.TNN_F32),
        lambda a: a,
        [normal(5, 8)],
        differentiable=False,
        atol=0.02,
    ),
    Case(
        "cpy",
        lambda s, a, b: nn.tnn_cpy(s, a, b),
        lambda a, b: a,
        [normal(5, 8), normal(5, 8)],
        differentiable=False,
        atol=0,
    ),
    Case(
        "set_rows",
        nn.tnn_set_rows,
        lambda dst, rows, ids: np.concatenate([rows[[1]], dst[[1]], rows[[0]], dst[[3]]]),
        [normal(4, 8), normal(2, 8), np.array([2, 0], dtype=np.int32)],
        differentiable=False,
        atol=0,
    ),
    Case(
        "flash_attn_ext",
        lambda s, q, k, v: nn.tnn_flash_attn_ext(s, q, k, v, None, 0.5, 0.0, 0.0),
        attention,
        [normal(4, 5, 8), normal(2, 6, 8), normal(2, 6, 8)],
        differentiable=False,
        atol=2e-3,
    ),
]


def selective_scan(state: Array, x: Array, dt: Array, a: Array, b: Array, c: Array, ids: Ids) -> Array:
    """Return y and the new states of Mamba's scan as one flat array.

    The shapes are state (n, heads, dim, d), x (n, T, heads, dim), dt (n, T, heads), b and c (n, T, groups, d).
    """
    y, states = np.zeros(x.shape), []
    for i, which in enumerate(ids):
        h = state[which].copy()  # (heads, dim, d)
        for t in range(x.shape[1]):
            speed = np.log1p(np.exp(dt[i, t]))  # (heads,)
            decay = np.exp(speed[:, None] * a)[:, None, :]  # (heads, 1, d or 1)
            into, out = (np.repeat(one[i, t], x.shape[2] // one.shape[2], axis=0) for one in (b, c))  # (heads, d)
            h = h * decay + (x[i, t] * speed[:, None])[:, :, None] * into[:, None, :]
            y[i, t] = (h * out[:, None, :]).sum(axis=-1)
        states.append(h)
    return np.concatenate([y.ravel(), np.stack(states).ravel()])


def delta_rule(q: Array, k: Array, v: Array, g: Array, beta: Array, state: Array) -> Array:
    """Return outputs (n, T, heads, d) and new states of the gated delta rule as one flat array.

    States are transposed: [j, i].
    """
    n, tokens, heads, d = v.shape
    out, states = np.zeros(v.shape), np.zeros(state.shape)
    for i in range(n):
        for h in range(heads):
            m = state[i, h].copy()
            for t in range(tokens):
                m = m * np.exp(g[i, t, h])  # in m, columns belong to the elements of key
                key, query = k[i, t, h % k.shape[2]], q[i, t, h % q.shape[2]]
                m = m + np.outer((v[i, t, h] - m @ key) * beta[i, t, h], key)
                out[i, t, h] = m @ query / np.sqrt(d)
            states[i, h] = m
    return np.concatenate([out.ravel(), states.ravel()]).reshape(-1, heads * d)


def convolution_2d(kernel: Array, x: Array, stride: int, padding: int, dilation: int) -> Array:
    """Return the convolution of x (n, c, h, w) with kernels (o, c, kh, kw)."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kh, kw = kernel.shape[2:]
    out = [(size - dilation * (k - 1) - 1) // stride + 1 for size, k in zip(x.shape[2:], (kh, kw), strict=True)]
    y = np.zeros((x.shape[0], kernel.shape[0], *out))
    for i in range(out[0]):
        for j in range(out[1]):
            rows = slice(i * stride, i * stride + dilation * (kh - 1) + 1, dilation)
            columns = slice(j * stride, j * stride + dilation * (kw - 1) + 1, dilation)
            y[:, :, i, j] = np.einsum("nchw,ochw->no", x[:, :, rows, columns], kernel)
    return y


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def rope_back(dy: Array, positions: Ids, base: float) -> Array:
    return rope(dy, -positions, base, True)


def patches(s: Session, kernel: Tensor, x: Tensor) -> Tensor:
    one_of_four = nn.tnn_reshape_3d(s, nn.tnn_view_1d(s, kernel, 12, 0), 3, 2, 2)
    shape = nn.tnn_detach(s, one_of_four)
    return nn.tnn_im2col(s, shape, x, 2, 1, 1, 0, 1, 2, 1)


def im2col_product(kernel: Array, x: Array) -> Array:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    windows = [[padded[:, i : i + 3 : 2, 2 * j : 2 * j + 3] for j in range(3)] for i in range(3)]
    return np.asarray(np.einsum("ijchw,ochw->ijo", np.array(windows), kernel.reshape(4, 2, 2, 3)))


TWO_IDS = np.array([1, 0, 2, 1, 0, 2], dtype=np.int32)


def as_matrix(s: Session, ids: Tensor, cols: int) -> Tensor:
    return nn.tnn_reshape_2d(s, ids, cols, nn.tnn_tensor_nelements(ids) // cols)


CASES += [
    Case("div", nn.tnn_div, lambda a, b: a / b, [normal(5, 8), np.abs(normal(5, 8)) + 0.5]),
    Case(
        "div by a row",
        nn.tnn_div,
        lambda a, b: a / b,
        [normal(5, 8), np.abs(normal(8)) + 0.5],
        differentiable=False,
    ),
    Case(
        "out_prod",
        nn.tnn_out_prod,
        lambda a, b: np.swapaxes(b, -1, -2) @ a,
        [normal(1, 6, 8), normal(3, 6, 5)],
        differentiable=False,
    ),
    Case("scale_bias", lambda s, a: nn.tnn_scale_bias(s, a, -1.5, 0.25), lambda a: -1.5 * a + 0.25, [normal(5, 8)]),
    Case("exp", nn.tnn_exp, np.exp, [normal(5, 8)]),
    Case("neg", nn.tnn_neg, lambda a: -a, [normal(5, 8)]),
    Case("softplus", nn.tnn_softplus, lambda a: np.log1p(np.exp(a)), [normal(5, 8)]),
    Case("sigmoid", nn.tnn_sigmoid, sigmoid, [normal(5, 8)], differentiable=False),
    Case("detach", nn.tnn_detach, lambda a: a, [normal(5, 8)], differentiable=False, atol=0),
    Case("swiglu_split", nn.tnn_swiglu_split, lambda g, u: g * sigmoid(g) * u, [normal(5, 8), normal(5, 8)]),
    Case(
        "l2_norm",
        lambda s, a: nn.tnn_l2_norm(s, a, 1e-6),
        lambda a: a / np.sqrt((a**2).sum(axis=-1, keepdims=True)),
        [normal(5, 8)],
        differentiable=False,
    ),
    Case(
        "repeat",
        lambda s, a: nn.tnn_repeat(s, a, nn.tnn_input_2d_f32(s, 6, 8)),
        lambda a: np.tile(a, (3, 2)),
        [normal(2, 4)],
    ),
    Case(
        "permute",
        lambda s, a: nn.tnn_cont_2d(s, nn.tnn_permute(s, a, 2, 0, 1, 3), 6, 40),
        lambda a: a.transpose(2, 0, 1).reshape(40, 6),  # axis0 = 2: dimension 0 of a becomes dimension 2
        [normal(5, 6, 8)],
    ),
    Case(
        "set_2d",
        lambda s, a, b: nn.tnn_set_2d(s, a, b, 32, 40),
        lambda a, b: np.concatenate([a[:1], np.concatenate([a[1:4, :2], b, a[1:4, 6:]], axis=1), a[4:]]),
        [normal(5, 8), normal(3, 4)],
    ),
    Case(
        "argsort, ascending",
        lambda s, a: nn.tnn_argsort(s, a, 0),
        lambda a: np.argsort(a, axis=-1, kind="stable").astype(np.float64),
        [normal(5, 9)],
        differentiable=False,
        atol=0,
    ),
    Case(
        "argsort, descending",
        lambda s, a: nn.tnn_argsort(s, a, 1),
        lambda a: np.argsort(-a, axis=-1, kind="stable").astype(np.float64),
        [np.array([[1.0, 3.0, 1.0, 3.0, 2.0, -np.inf, np.inf, 0.0, -0.0]])],
        differentiable=False,
        atol=0,
    ),
    Case(
        "top_k",
        lambda s, a: nn.tnn_top_k(s, a, 3),
        lambda a: np.argsort(-a, axis=-1, kind="stable")[..., :3].astype(np.float64),
        [normal(2, 5, 9)],
        differentiable=False,
        atol=0,
    ),
    Case(
        "get_rows of the largest",
        lambda s, table, a: nn.tnn_get_rows(s, table, nn.tnn_view_1d(s, nn.tnn_top_k(s, a, 2), 2, 0)),
        lambda table, a: table[np.argsort(-a[0], kind="stable")[:2]],
        [normal(9, 4), normal(1, 9)],
        differentiable=False,
    ),
    Case(
        "mul_mat_id",
        lambda s, w, b, ids: nn.tnn_mul_mat_id(s, w, b, as_matrix(s, ids, 2)),
        lambda w, b, ids: np.stack([[w[e] @ b[t, 0] for e in row] for t, row in enumerate(ids.reshape(3, 2))]),
        [normal(3, 5, 8), normal(3, 1, 8), TWO_IDS],
        differentiable=False,
    ),
    Case(
        "mul_mat_id by the largest",
        lambda s, w, b, a: nn.tnn_mul_mat_id(s, w, b, nn.tnn_top_k(s, a, 2)),
        lambda w, b, a: np.stack([[w[e] @ b[t, i] for i, e in enumerate(np.argsort(-a[t])[:2])] for t in range(4)]),
        [normal(3, 5, 8), normal(4, 2, 8), normal(4, 3)],
        differentiable=False,
    ),
    Case(
        "add_id",
        lambda s, a, b, ids: nn.tnn_add_id(s, a, b, as_matrix(s, ids, 2)),
        lambda a, b, ids: a + b[ids.reshape(3, 2)],
        [normal(3, 2, 8), normal(3, 8), TWO_IDS],
        differentiable=False,
    ),
    Case(
        "im2col and a product",
        lambda s, kernel, x: nn.tnn_matmul(s, nn.tnn_reshape_2d(s, kernel, 12, 4), patches(s, kernel, x)),
        im2col_product,
        [normal(8, 2, 3), normal(2, 5, 6)],
    ),
    Case(
        "im2col",
        lambda s, x: nn.tnn_im2col(
            s, nn.tnn_detach(s, nn.tnn_reshape_2d(s, nn.tnn_view_1d(s, x, 6, 0), 3, 2)), x, 1, 1, 0, 0, 1, 1, 1
        ),
        lambda x: np.stack([[x[i : i + 2, j : j + 3].ravel() for j in range(4)] for i in range(4)]),
        [normal(5, 6)],
    ),
    Case(
        "conv_1d",
        lambda s, kernel, x: nn.tnn_conv_1d(s, kernel, x, 2, 1, 2),
        lambda kernel, x: np.stack(
            [[(np.pad(x, ((0, 0), (1, 1)))[:, 2 * j : 2 * j + 5 : 2] * k).sum() for j in range(3)] for k in kernel]
        ),
        [normal(4, 2, 3), normal(2, 7)],
        differentiable=False,
        atol=2e-2,
    ),
    Case(
        "conv_2d",
        lambda s, kernel, x: nn.tnn_conv_2d(s, nn.tnn_reshape_3d(s, kernel, 3, 2, 4), x, 2, 2, 1, 1, 1, 1),
        lambda kernel, x: convolution_2d(kernel.reshape(1, 4, 2, 3), x[None], 2, 1, 1)[0],
        [normal(4, 2, 3), normal(4, 5, 6)],
        differentiable=False,
        atol=2e-2,
    ),
    Case(
        "ssm_conv",
        nn.tnn_ssm_conv,
        lambda x, kernel: np.stack(
            [[[(one[c, t : t + 3] * kernel[c]).sum() for c in range(4)] for t in range(5)] for one in x]
        ),
        [normal(2, 4, 7), normal(4, 3)],
        differentiable=False,
    ),
    Case(
        "ssm_scan of Mamba-2",
        lambda s, state, x, dt, a, b, c, ids: nn.tnn_ssm_scan(s, state, x, dt, a, b, c, ids),
        lambda state, x, dt, a, b, c, ids: selective_scan(state[None], x[None], dt[None], a, b[None], c[None], ids),
        [
            normal(4, 3, 5),
            normal(6, 4, 3),
            normal(6, 4),
            -np.abs(normal(4, 1)),
            normal(6, 2, 5),
            normal(6, 2, 5),
            IDS[1:2],
        ],
        differentiable=False,
    ),
    Case(
        "ssm_scan of Mamba-1",
        lambda s, state, x, dt, a, b, c, ids: nn.tnn_ssm_scan(s, state, x, dt, a, b, c, ids),
        lambda state, x, dt, a, b, c, ids: selective_scan(state[None], x[None], dt[None], a, b[None], c[None], ids),
        [
            normal(4, 3, 5),
            normal(6, 4, 3),
            normal(6, 4),
            -np.abs(normal(4, 5)),
            normal(6, 1, 5),
            normal(6, 1, 5),
            IDS[1:2],
        ],
        differentiable=False,
    ),
    Case(
        "gated_delta_net",
        lambda s, *operands: nn.tnn_gated_delta_net(s, *operands),
        lambda *operands: delta_rule(*(one[None] for one in operands)),
        [
            normal(5, 2, 6) / 3,
            normal(5, 4, 6) / 3,
            normal(5, 4, 6),
            -np.abs(normal(5, 4, 1)),
            normal(5, 4, 1),
            normal(4, 6, 6),
        ],
        differentiable=False,
    ),
    Case(
        "gated_delta_net with a decay for each element",
        lambda s, *operands: nn.tnn_gated_delta_net(s, *operands),
        lambda *operands: delta_rule(*(one[None] for one in operands)),
        [
            normal(5, 2, 6) / 3,
            normal(5, 1, 6) / 3,
            normal(5, 2, 6),
            -np.abs(normal(5, 2, 6)),
            normal(5, 2, 1),
            normal(2, 6, 6),
        ],
        differentiable=False,
    ),
    Case(
        "rms_norm_back",
        lambda s, dy, x: nn.tnn_rms_norm_back(s, dy, x, 1e-5),
        lambda dy, x: (
            (dy - x * (x * dy).mean(axis=-1, keepdims=True) / ((x**2).mean(axis=-1, keepdims=True) + 1e-5))
            / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
        ),
        [normal(5, 8), normal(5, 8)],
        differentiable=False,
    ),
    Case(
        "softmax_back",
        nn.tnn_softmax_back,
        lambda dy, y: y * (dy - (y * dy).sum(axis=-1, keepdims=True)),
        [normal(5, 7), LABELS],
        differentiable=False,
    ),
    Case(
        "silu_back",
        nn.tnn_silu_back,
        lambda x, dy: dy * sigmoid(x) * (1 + x * (1 - sigmoid(x))),
        [normal(5, 8), normal(5, 8)],
        differentiable=False,
    ),
    Case(
        "rope_ext_back",
        lambda s, dy, p: nn.tnn_rope_ext_back(s, dy, p, 8, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0),
        lambda dy, p: rope_back(dy, p, 1e4),
        [normal(5, 3, 8), POSITIONS],
        differentiable=False,
    ),
    Case(
        "get_rows_back",
        lambda s, dy, ids: nn.tnn_get_rows_back(s, dy, ids, nn.tnn_input_2d_f32(s, 6, 8)),
        lambda dy, ids: np.stack([dy[ids == row].sum(axis=0) for row in range(6)]),
        [normal(5, 8), IDS],
        differentiable=False,
    ),
]


FACTORS = np.linspace(1.0, 4.0, 4)


CASES.append(
    Case(
        "rope with frequency factors",
        _rope(2),
        lambda x, p, f: rope(x, p, 1e4, True, f),
        [normal(5, 3, 8), POSITIONS, FACTORS],
        differentiable=False,
    )
)


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


each_differentiable = pytest.mark.parametrize(
    "case", [case for case in CASES if case.differentiable], ids=lambda case: case.name
)


@each_case
def test_an_operator_agrees_with_its_float64_definition(case: Case) -> None:
    want = case.reference(*case.operands)
    with Session(n_threads=1) as s:
        tensors = [declare(s, array) for array in case.operands]
        nn.tnn_finalize_weights(s)
        out = case.build(s, *tensors)
        nn.tnn_set_output(out)
        nn.tnn_realize(s, out)
        for tensor, array in zip(tensors, case.operands, strict=True):
            fill(s, tensor, array)
        nn.tnn_compute(s)
        integers = nn.tnn_tensor_dtype(out) == nn.TNN_I32
        got = (nn.tnn_download_to_int_array if integers else nn.tnn_download)(s, out).reshape(row_major_shape(out))
    assert np.squeeze(got).shape == np.squeeze(want).shape
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-5, atol=case.atol)


def test_every_operator_has_a_case() -> None:
    """A new operator needs a case with its float64 definition in CASES. The optimizer steps have separate tests."""
    called = {name for case in CASES for name in (case.build.__name__, *case.build.__code__.co_names)}
    modules = (operators, experts, convolution, recurrence, derivatives)
    named = {name for module in modules for name in vars(module) if name.startswith("tnn_")}
    assert named - called == {"tnn_opt_step_adamw", "tnn_opt_step_sgd"}


@each_differentiable
def test_the_gradient_of_an_operator_equals_the_central_difference_of_its_definition(case: Case) -> None:
    weights = rng.standard_normal(case.reference(*case.operands).shape).astype(np.float32)

    def loss(operands: list[npt.NDArray[Any]]) -> float:
        return float((case.reference(*operands) * weights).sum())

    with Session(n_threads=1) as s:
        tensors = [declare(s, array) for array in case.operands]
        t_weights = declare(s, weights)
        params = [i for i, array in enumerate(case.operands) if array.dtype == np.float64]
        for i in params:
            nn.tnn_set_param(tensors[i])
        nn.tnn_finalize_weights(s)
        out = case.build(s, *tensors)
        flat = nn.tnn_reshape_2d(s, out, weights.size, 1)
        t_loss = nn.tnn_sum(s, nn.tnn_mul(s, flat, nn.tnn_reshape_2d(s, t_weights, weights.size, 1)))
        nn.tnn_set_output(t_loss)
        nn.tnn_set_loss(t_loss)
        nn.tnn_build_forward_only(s, t_loss)
        nn.tnn_build_backward(s)
        nn.tnn_pin_all_graph_b_nodes(s)
        nn.tnn_realize_backward(s)
        for tensor, array in zip([*tensors, t_weights], [*case.operands, weights], strict=True):
            fill(s, tensor, array)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        assert nn.download_row_major(s, t_loss, 1, 1)[0, 0] == pytest.approx(loss(case.operands), rel=1e-4, abs=1e-4)
        grads = {i: nn.tnn_download(s, nn.tnn_tensor_grad(s, tensors[i])) for i in params}

    operands: list[npt.NDArray[Any]] = list(case.operands)
    for i, grad in grads.items():
        want = np.zeros(grad.size)
        for j in range(grad.size):
            step = np.zeros(grad.size)
            step[j] = 1e-5
            there, back = (
                [a + sign * step.reshape(a.shape) if k == i else a for k, a in enumerate(operands)]
                for sign in (1.0, -1.0)
            )
            want[j] = (loss(there) - loss(back)) / 2e-5
        np.testing.assert_allclose(grad, want, rtol=1e-4, atol=2e-5)


def test_the_gradient_of_cross_entropy_is_softmax_minus_labels_over_rows() -> None:
    logits = normal(5, 7)
    with Session(n_threads=1) as s:
        t_logits, t_labels = declare(s, logits), declare(s, LABELS)
        nn.tnn_set_param(t_logits)
        nn.tnn_finalize_weights(s)
        t_loss = nn.tnn_cross_entropy_loss(s, nn.tnn_scale(s, t_logits, 1.0), t_labels)
        nn.tnn_set_loss(t_loss)
        nn.tnn_build_forward_only(s, t_loss)
        nn.tnn_build_backward(s)
        nn.tnn_pin_all_graph_b_nodes(s)
        nn.tnn_realize_backward(s)
        fill(s, t_logits, logits)
        fill(s, t_labels, LABELS)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        grad = nn.download_row_major(s, nn.tnn_tensor_grad(s, t_logits), 5, 7)
    np.testing.assert_allclose(grad, (softmax(logits) - LABELS) / 5, atol=1e-6)


def test_an_sgd_step_moves_the_weight_against_its_gradient() -> None:
    w = normal(3, 4)
    with Session(n_threads=1) as s:
        t_w = declare(s, w)
        nn.tnn_set_param(t_w)
        nn.tnn_finalize_weights(s)
        t_hp = nn.tnn_input_1d_f32(s, 2)
        t_loss = nn.tnn_sum(s, nn.tnn_mul(s, t_w, t_w))
        nn.tnn_set_loss(t_loss)
        nn.tnn_build_forward_only(s, t_loss)
        nn.tnn_build_backward(s)
        nn.tnn_extend_backward_graph(s, nn.tnn_opt_step_sgd(s, t_w, nn.tnn_tensor_grad(s, t_w), t_hp))
        nn.tnn_realize_backward(s)
        fill(s, t_w, w)
        nn.upload_row_major(s, t_hp, [[0.25, 0.125]])
        nn.tnn_graph_reset_grads_only(s)
        nn.tnn_compute_backward(s)
        np.testing.assert_allclose(
            nn.download_row_major(s, t_w, 3, 4), w * (1 - 0.25 * 0.125) - 0.25 * 2 * w, atol=1e-6
        )


@pytest.mark.threads
def test_flash_attention_of_one_query_has_the_same_bits_with_any_number_of_threads() -> None:
    """ggml's default kernel divides the keys among the threads, so the shim selects ggml's reference kernel."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal(64 * n).astype(np.float32) for n in (2, 600, 600))
    results = []
    for n_threads in (1, 2, 3):
        with Session(n_threads=n_threads, oversubscribe=True) as s:
            tq = nn.tnn_input_3d_f32_persistent(s, 2, 1, 64)
            tk, tv = (nn.tnn_input_3d_f32_persistent(s, 1, 600, 64) for _ in range(2))
            nn.tnn_finalize_weights(s)
            for tensor, values in ((tq, q), (tk, k), (tv, v)):
                nn.tnn_upload_from_float_array(s, tensor, values)
            out = nn.tnn_flash_attn_ext(s, tq, tk, tv, None, 0.125, 0.0, 0.0)
            nn.tnn_realize(s, out)
            nn.tnn_compute(s)
            results.append(nn.tnn_download(s, out))
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    scores = np.exp(q.reshape(2, 64).astype(np.float64) @ k.reshape(600, 64).T * 0.125)
    want = scores / scores.sum(axis=1, keepdims=True) @ v.reshape(600, 64)
    np.testing.assert_allclose(results[0].reshape(2, 64), want, atol=1e-3)


def test_set_rows_refuses_rows_in_the_memory_of_its_target() -> None:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 3, 4)
        nn.tnn_finalize_weights(s)
        ids = nn.tnn_input_1d_i32(s, 2)
        with pytest.raises(TinyNNValueError, match="rows and dst share memory"):
            nn.tnn_set_rows(s, w, nn.tnn_view_2d(s, w, 4, 2, 16, 16), ids)


def test_memory_inside_a_concat_cannot_be_an_operand_or_be_downloaded() -> None:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 3, 4)
        nn.tnn_finalize_weights(s)
        c = nn.tnn_concat(s, w, w, 0)
        last = nn.tnn_tensor_src(c, 0)
        assert last is not None
        base = nn.tnn_tensor_src(last, 0)
        assert base is not None
        assert nn.tnn_tensor_op_name(base) == "NONE"
        with pytest.raises(TinyNNValueError, match="internal memory of an operator"):
            nn.tnn_scale(s, base, 2.0)
        nn.tnn_realize(s, c)
        nn.tnn_compute(s)
        with pytest.raises(TinyNNValueError, match="internal memory of an operator"):
            nn.tnn_download(s, base)

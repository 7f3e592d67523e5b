"""Graphs that can be differentiated, trained and computed, and the errors for graphs that cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from session_calls import attempt
from toynn import Session, SessionError, Tensor, TinyNNValueError
from toynn import tinynn as nn

pytestmark = pytest.mark.quick

F32 = npt.NDArray[np.float32]


class Desk:
    """A session before its graph is built, with parameters and constants of several shapes."""

    def __init__(self) -> None:
        self.s = s = Session(n_threads=2, oversubscribe=True)
        self.w = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.bias = nn.tnn_input_1d_f32_persistent(s, 4)
        self.factors = nn.tnn_input_1d_f32_persistent(s, 2)
        self.x = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.m, self.v = (nn.tnn_input_2d_f32_persistent(s, 4, 4) for _ in range(2))
        self.vector = nn.tnn_input_1d_f32_persistent(s, 4)
        self.cube = nn.tnn_input_3d_f32_persistent(s, 3, 2, 4)
        self.half = nn.tnn_input_2d_persistent_typed(s, 4, 4, nn.TNN_F16)
        self.ids = nn.tnn_input_1d_i32_persistent(s, 4)
        self.hp = nn.tnn_input_1d_f32_persistent(s, 7)
        self.sgd = nn.tnn_input_1d_f32_persistent(s, 2)
        self.blocks = nn.tnn_input_3d_f32_persistent(s, 3, 2, 4)
        for parameter in (self.w, self.bias, self.factors, self.blocks):
            nn.tnn_set_param(parameter)
        nn.tnn_finalize_weights(s)
        draw = np.random.default_rng(1)
        for t in (self.w, self.x, self.vector, self.bias, self.factors, self.half):
            nn.tnn_upload_from_float_array(s, t, draw.uniform(0.5, 1.5, int(np.prod(t.ne))))
        nn.upload_int_array(s, self.ids, [3, 1, 2, 0])

    def huge(self, n: int) -> Tensor:
        """Return a parameter of n numbers in a graph that is never realized, so it needs no memory."""
        given = nn.tnn_input_1d_f32(self.s, n)
        nn.tnn_set_param(given)
        return given

    def backward(self, loss: Tensor) -> None:
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(self.s, loss)
        nn.tnn_build_backward(self.s)

    def gradient(self, loss: Tensor, parameter: Tensor) -> F32:
        self.backward(loss)
        grad = nn.tnn_tensor_grad(self.s, parameter)
        nn.tnn_set_output(grad)
        nn.tnn_realize_backward(self.s)
        nn.tnn_graph_reset(self.s)
        nn.tnn_compute_backward(self.s)
        return nn.tnn_download(self.s, grad)


@pytest.fixture
def desk() -> Iterator[Desk]:
    opened = Desk()
    with opened.s:
        yield opened


Build = Callable[[Session, Desk], Tensor]

# ---- ggml's derivatives ----

UNDERIVED: dict[str, tuple[Build, str]] = {
    "a view of a parameter in half precision": (
        lambda s, d: nn.tnn_matmul(s, nn.tnn_reshape_2d(s, nn.tnn_cast(s, d.w, nn.TNN_F16), 4, 4), d.x),
        "its dtype is not f32",
    ),
    "a copy over a parameter": (
        lambda s, d: nn.tnn_cpy(s, nn.tnn_scale(s, d.w, 2.0), d.w), "it overwrites a tensor that depends",
    ),
    "a parameter taken away from each row": (
        lambda s, d: nn.tnn_sub(s, d.x, d.bias), "no derivative for a tensor b that is repeated",
    ),
    "a weight for several of a fourth dimension": (
        lambda s, d: nn.tnn_matmul(s, d.w, nn.tnn_concat(s, d.cube, d.cube, 3)), "repeated over ne3",
    ),
    "a weight of three dimensions for several of a fourth": (
        lambda s, d: nn.tnn_matmul(s, d.blocks, nn.tnn_concat(s, d.cube, d.cube, 3)), "repeated over ne3",
    ),
    "a part of two gigabytes": (
        lambda s, d: nn.tnn_view_1d(s, d.huge(2**29), 2**29, 0), "larger than 2 GiB, ggml's limit",
    ),
    "a small part of two gigabytes": (
        lambda s, d: nn.tnn_view_1d(s, d.huge(2**29), 4, 0), "larger than 2 GiB, ggml's limit",
    ),
    "factors of RoPE that are parameters": (
        lambda s, d: nn.tnn_rope_ext(
            s, nn.tnn_reshape_3d(s, d.x, 4, 1, 4), d.ids, 4, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0, d.factors
        ),
        "its freq_factors depend on a parameter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERIVED)
def test_operators_without_a_ggml_derivative_are_refused_by_name(name: str, desk: Desk) -> None:
    build, says = UNDERIVED[name]
    with pytest.raises(TinyNNValueError, match=says):
        desk.backward(nn.tnn_sum(desk.s, build(desk.s, desk)))


# The gradient of the sum of each result with respect to each row of w.
DERIVED: dict[str, tuple[Build, list[float]]] = {
    "a cast to what it is": (lambda s, d: nn.tnn_cast(s, d.w, nn.TNN_F32), [1, 1, 1, 1]),
    "a cast of a constant beside it": (
        lambda s, d: nn.tnn_add(s, d.w, nn.tnn_cast(s, d.half, nn.TNN_F32)), [1, 1, 1, 1],
    ),
    "a copy over a constant": (lambda s, d: nn.tnn_cpy(s, d.w, d.m), [1, 1, 1, 1]),
    "a constant taken away": (lambda s, d: nn.tnn_sub(s, d.w, d.x), [1, 1, 1, 1]),
    "a parameter taken away": (lambda s, d: nn.tnn_sub(s, d.x, d.w), [-1, -1, -1, -1]),
    "rows by a view of ids": (
        lambda s, d: nn.tnn_get_rows(s, d.w, nn.tnn_view_1d(s, d.ids, 2, 4)), [0, 1, 1, 0],
    ),
    "a weight for several matrices": (lambda s, d: nn.tnn_matmul(s, d.w, d.cube), [12, 12, 12, 12]),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_operators_with_a_ggml_derivative_have_the_right_gradient(name: str, desk: Desk) -> None:
    build, expected = DERIVED[name]
    nn.tnn_upload_from_float_array(desk.s, desk.cube, np.full(24, 2.0))
    gradient = desk.gradient(nn.tnn_sum(desk.s, build(desk.s, desk)), desk.w)
    assert gradient.reshape(4, 4).tolist() == [[row] * 4 for row in expected]


def rounded(values: F32, dtype: int) -> npt.NDArray[np.float64]:
    """Return values rounded to f16 or bf16, to nearest even."""
    if dtype == nn.TNN_F16:
        return values.astype(np.float16).astype(np.float64)
    bits = values.view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16 << 16
    nearest: F32 = bits.view(np.float32)
    return nearest.astype(np.float64)


@pytest.mark.parametrize("dtype", [nn.TNN_F16, nn.TNN_BF16])
@pytest.mark.parametrize("weight", ["a cast of a parameter", "a constant"])
def test_a_product_with_a_matrix_in_half_precision_has_the_right_gradient(weight: str, dtype: int, desk: Desk) -> None:
    s = desk.s
    cast = weight == "a cast of a parameter"
    a = nn.tnn_cast(s, desk.w if cast else desk.x, dtype)
    product = nn.tnn_matmul(s, a, desk.w)  # (4 rows of w, 4 rows of a)
    gradient = desk.gradient(nn.tnn_sum(s, nn.tnn_mul(s, product, desk.x)), desk.w).reshape(4, 4)
    w, x = (nn.tnn_download(s, t).reshape(4, 4) for t in (desk.w, desk.x))
    expected = rounded(x, dtype) @ rounded(w if cast else x, dtype)  # the product also rounds its second operand
    if cast:
        expected += x.T.astype(np.float64) @ w
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [nn.TNN_F16, nn.TNN_BF16])
def test_a_matrix_in_half_precision_passes_gradients_to_several_matrices(dtype: int, desk: Desk) -> None:
    s = desk.s
    product = nn.tnn_matmul(s, nn.tnn_cast(s, desk.x, dtype), desk.blocks)  # desk.blocks has three matrices of two rows
    gradient = desk.gradient(nn.tnn_sum(s, product), desk.blocks).reshape(6, 4)
    expected = rounded(nn.tnn_download(s, desk.x).reshape(4, 4), dtype).sum(axis=0)
    np.testing.assert_allclose(gradient, np.tile(expected, (6, 1)), rtol=1e-6)


# ---- the fused backward ----


def loss_of(desk: Desk, logits: Tensor) -> Tensor:
    return nn.tnn_fused_cross_entropy(desk.s, logits, desk.ids, -1)


def normalized_beside_its_operand(s: Session, d: Desk) -> Tensor:
    """Return the head norm of x plus a matrix product with x. The gradient of x is then a sum of two gradients."""
    x, one = nn.tnn_fused_linear(s, d.x, [d.w]), nn.tnn_view_1d(s, d.vector, 1, 0)
    return nn.tnn_add(s, nn.tnn_fused_head_norm(s, x, one, one, 2, 1, 1.0), nn.tnn_fused_linear(s, x, [d.x]))


FUSED: dict[str, Build] = {
    "a bias and a constant addend": lambda s, d: nn.tnn_fused_linear(s, d.x, [d.w], [d.bias], d.x),
    "a bias and an addend that is a parameter": lambda s, d: nn.tnn_fused_linear(s, d.x, [d.w], [d.bias], d.w),
    "a sum with a constant": lambda s, d: nn.tnn_add(s, nn.tnn_fused_linear(s, d.x, [d.w]), d.x),
    "a weight that is added twice, too": lambda s, d: nn.tnn_add(
        s, nn.tnn_add(s, nn.tnn_fused_linear(s, d.x, [d.w]), d.w), d.w
    ),
    "a norm whose gamma is constant": lambda s, d: nn.tnn_fused_rms_norm(
        s, nn.tnn_fused_linear(s, d.x, [d.w]), d.vector, 1e-5
    ),
    "a norm of heads whose gammas are constant": lambda s, d: nn.tnn_fused_head_norm(
        s,
        nn.tnn_fused_linear(s, d.x, [d.w]),
        nn.tnn_view_1d(s, d.vector, 1, 0),
        nn.tnn_view_1d(s, d.vector, 1, 4),
        2,
        1,
        1.0,
    ),
    "a norm of heads beside its own operand": normalized_beside_its_operand,
}


@pytest.mark.parametrize("name", FUSED)
def test_a_gradient_of_the_fused_backward_equals_a_finite_difference(name: str, desk: Desk) -> None:
    s, step = desk.s, 1e-2
    gradient = desk.gradient(loss_of(desk, FUSED[name](s, desk)), desk.w).reshape(-1)
    start = nn.tnn_download(s, desk.w).reshape(-1)
    nn.tnn_reset_for_rebuild(s)
    loss = loss_of(desk, FUSED[name](s, desk))
    nn.tnn_realize(s, loss)
    for i in range(16):
        sides = []
        for side in (-step, step):
            moved = start.copy()
            moved[i] += side
            nn.tnn_upload_from_float_array(s, desk.w, moved)
            nn.tnn_compute(s)
            sides.append(float(nn.tnn_download(s, loss)[0]))
        assert (sides[1] - sides[0]) / (2 * step) == pytest.approx(float(gradient[i]), abs=2e-3)


def test_a_loss_that_reads_row_losses_of_another_loss_is_refused(desk: Desk) -> None:
    s = desk.s
    first = loss_of(desk, nn.tnn_fused_linear(s, desk.x, [desk.w]))
    rows = nn.tnn_tensor_src(first, 0)
    assert rows is not None
    target = nn.tnn_view_1d(s, desk.ids, 1, 0)
    with pytest.raises(TinyNNValueError, match="depends on a parameter, but no gradient flows to it"):
        desk.backward(nn.tnn_fused_cross_entropy(s, nn.tnn_add(s, rows, rows), target, -1))


@pytest.mark.parametrize("read_after", [False, True])
@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused_adamw"])
def test_ggml_optimizers_update_a_fused_graph_in_the_order_of_the_calls(
    kind: str, read_after: bool, desk: Desk
) -> None:
    s = desk.s
    desk.backward(loss_of(desk, nn.tnn_fused_linear(s, desk.x, [desk.w])))
    grad = nn.tnn_tensor_grad(s, desk.w)
    nn.tnn_set_output(grad)
    if kind == "sgd":
        nn.tnn_upload_from_float_array(s, desk.sgd, [0.25, 0.0])
        stepped = nn.tnn_opt_step_sgd(s, desk.w, grad, desk.sgd)
    else:
        nn.tnn_upload_from_float_array(s, desk.hp, [0.25, 0.0, 0.0, 1e-8, 0.0, 1.0, 1.0])
        call = nn.tnn_opt_step_adamw if kind == "adamw" else nn.tnn_fused_adamw
        stepped = call(s, desk.w, grad, desk.m, desk.v, desk.hp)
    last = nn.tnn_scale(s, stepped, 2.0) if read_after else stepped
    nn.tnn_set_output(last)
    nn.tnn_extend_backward_graph(s, last)
    nn.tnn_realize_backward(s)
    before = nn.tnn_download(s, desk.w)
    nn.tnn_graph_reset(s)
    nn.tnn_compute_backward(s)
    after, g = nn.tnn_download(s, desk.w), nn.tnn_download(s, grad)
    np.testing.assert_allclose(after, before - 0.25 * (g if kind == "sgd" else np.sign(g)), rtol=1e-4, atol=1e-5)
    if read_after:
        assert nn.tnn_download(s, last).tolist() == (2 * after).tolist()


def test_a_graph_too_long_to_be_grouped_has_the_same_losses(desk: Desk) -> None:
    """The graph is a chain of norms with weight 1.

    After the first norm, each norm changes its input only by rounding.
    """
    s = desk.s
    losses = []
    for norms in (1, 1500):
        nn.tnn_reset_for_rebuild(s)
        nn.upload_row_major(s, desk.vector, np.ones((1, 4)))
        x = nn.tnn_fused_linear(s, desk.x, [desk.w])
        for _ in range(norms):
            x = nn.tnn_fused_rms_norm(s, x, desk.vector, 0.0)
        loss = loss_of(desk, x)
        nn.tnn_set_output(loss)
        desk.backward(loss)
        nn.tnn_realize_backward(s)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        losses.append(float(nn.tnn_download(s, loss)[0]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


# ---- order ----


def test_set_loss_must_precede_the_backward_and_inputs_cannot_extend_it(desk: Desk) -> None:
    s = desk.s
    other = nn.tnn_sum(s, desk.w)
    desk.backward(nn.tnn_sum(s, desk.w))
    with pytest.raises(SessionError, match="the loss must be flagged before tnn_build_backward"):
        nn.tnn_set_loss(other)
    with pytest.raises(TinyNNValueError, match="is an input; it must be the result of an operator"):
        nn.tnn_extend_backward_graph(s, desk.m)


def test_a_graph_with_too_many_gradients_for_the_norm_is_refused() -> None:
    def scales(before_the_norm: int) -> tuple[Session, Tensor, Desk]:
        desk = Desk()
        nn.tnn_session_set_graph_capacity(desk.s, 60)
        desk.backward(loss_of(desk, nn.tnn_fused_linear(desk.s, desk.x, [desk.w])))
        for _ in range(before_the_norm):
            nn.tnn_scale(desk.s, desk.x, 1.0)
        return desk.s, nn.tnn_tensor_grad(desk.s, desk.w), desk

    s, _, desk = scales(0)
    room = 0
    while attempt(nn.tnn_scale, s, [desk.x, 1.0]) == "":
        room += 1
    for left in (0, 1):
        s, grad, desk = scales(room - left)
        with pytest.raises(SessionError, match="tnn_fused_grad_norm: the graph is full"):
            nn.tnn_fused_grad_norm(s, [grad], desk.sgd)
    s, grad, desk = scales(room - 2)
    assert nn.tnn_fused_grad_norm(s, [grad], desk.sgd).ne == (2, 1, 1, 1)


# ---- checks before each computation ----


@pytest.mark.parametrize("wrong", [[3, 1, 2, 4], [3, 1, 2, -1]])
def test_set_rows_refuses_row_ids_out_of_range(wrong: list[int], desk: Desk) -> None:
    s = desk.s
    nn.tnn_realize(s, nn.tnn_set_rows(s, desk.m, desk.x, desk.ids))
    nn.upload_int_array(s, desk.ids, wrong)
    with pytest.raises(TinyNNValueError, match=rf"\[3\] = {wrong[3]} must be the number of a row of"):
        nn.tnn_compute(s)
    assert not nn.tnn_download(s, desk.m).any()


@pytest.mark.parametrize("past", [-1, 1, 2**31 - 1])
def test_new_tokens_must_fit_in_the_cache(past: int) -> None:
    with Session(n_threads=1) as s:
        qkv, table = nn.tnn_input_2d_f32_persistent(s, 4, 12), nn.tnn_input_2d_f32_persistent(s, 4, 2)
        cache, n_past = nn.tnn_input_2d_f32_persistent(s, 4, 8), nn.tnn_input_1d_i32_persistent(s, 1)
        nn.tnn_finalize_weights(s)
        out = nn.tnn_fused_attention_cached(s, qkv, table, cache, n_past, 2, 2)
        nn.tnn_realize(s, out)
        nn.tnn_compute(s)
        nn.upload_int_array(s, n_past, [past])
        with pytest.raises(TinyNNValueError, match=rf"n_past\[0\] = {past} must be between 0 and 0"):
            nn.tnn_compute(s)


def test_a_view_of_a_tensor_without_memory_cannot_be_downloaded(desk: Desk) -> None:
    s = desk.s
    given = nn.tnn_input_2d_f32(s, 4, 4)
    view = nn.tnn_view_1d(s, given, 4, 0)
    nn.tnn_realize(s, nn.tnn_scale(s, view, 2.0))
    with pytest.raises(SessionError, match="was never uploaded"):
        nn.tnn_download(s, view)
    nn.tnn_upload_from_float_array(s, given, np.arange(16))
    assert nn.tnn_download(s, view).tolist() == [0, 1, 2, 3]


# ---- shapes of attention ----


def test_a_flash_attention_mask_must_fit_keys_queries_and_heads() -> None:
    with Session(n_threads=1) as s:
        q = nn.tnn_input_3d_f32_persistent(s, 4, 2, 4)
        k = nn.tnn_input_3d_f32_persistent(s, 2, 3, 4)
        masks = {
            (columns, rows, heads): nn.tnn_input_3d_f32_persistent(s, heads, rows, columns)
            for columns, rows, heads in ((3, 2, 1), (3, 5, 4), (2, 2, 1), (3, 1, 1), (3, 2, 3))
        }
        nn.tnn_finalize_weights(s)
        fitting = []
        for shape, mask in masks.items():
            half = nn.tnn_cast(s, mask, nn.TNN_F16)
            if shape in ((3, 2, 1), (3, 5, 4)):
                fitting.append(nn.tnn_flash_attn_ext(s, q, k, k, half, 0.5, 0.0, 0.0))
            else:
                with pytest.raises(TinyNNValueError, match="mask has shape"):
                    nn.tnn_flash_attn_ext(s, q, k, k, half, 0.5, 0.0, 0.0)
        fourfold = nn.tnn_cast(s, nn.tnn_concat(s, masks[3, 2, 1], masks[3, 2, 1], 3), nn.TNN_F16)
        with pytest.raises(TinyNNValueError, match="mask has shape"):
            nn.tnn_flash_attn_ext(s, q, k, k, fourfold, 0.5, 0.0, 0.0)
        assert [t.ne for t in fitting] == [(4, 4, 2, 1)] * 2


def test_an_attention_with_too_many_result_elements_is_refused() -> None:
    with Session(n_threads=1) as s:
        q = nn.tnn_input_3d_f32_persistent(s, 4, 3, 4)
        k = nn.tnn_input_3d_f32_persistent(s, 4, 2, 4)
        nn.tnn_finalize_weights(s)
        wide = nn.tnn_reshape_3d(s, nn.tnn_input_1d_f32(s, 2**31 - 8), 2**28 - 1, 2, 4)
        with pytest.raises(TinyNNValueError, match=r"the result would have more than 2\^31 - 1 elements"):
            nn.tnn_flash_attn_ext(s, q, k, wide, None, 0.5, 0.0, 0.0)

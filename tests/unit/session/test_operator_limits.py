"""Limits of operators: ids are checked before each compute, some derivatives are refused, and threads change no bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from toynn import Session, SessionError, Tensor, TinyNNValueError
from toynn import tinynn as nn

pytestmark = pytest.mark.quick

Build = Callable[[Session, Tensor], Tensor]


@pytest.fixture
def s() -> Iterator[Session]:
    with Session(n_threads=1) as session:
        yield session


# ---- ids ----


def _mul_mat_id(s: Session, ids: Tensor) -> Tensor:
    w, x = nn.tnn_input_2d_f32(s, 12, 4), nn.tnn_input_2d_f32(s, 2, 4)
    return nn.tnn_mul_mat_id(s, nn.tnn_reshape_3d(s, w, 4, 4, 3), nn.tnn_reshape_3d(s, x, 4, 1, 2), ids)


def _add_id(s: Session, ids: Tensor) -> Tensor:
    x = nn.tnn_input_2d_f32(s, 2, 4)
    return nn.tnn_add_id(s, nn.tnn_reshape_3d(s, x, 4, 1, 2), nn.tnn_input_2d_f32(s, 3, 4), ids)


def _get_rows_back(s: Session, ids: Tensor) -> Tensor:
    flat = nn.tnn_reshape_2d(s, ids, 2, 1)
    return nn.tnn_get_rows_back(s, nn.tnn_input_2d_f32(s, 2, 4), flat, nn.tnn_input_2d_f32(s, 3, 4))


def _ssm_scan(s: Session, ids: Tensor) -> Tensor:
    state = nn.tnn_concat_n(s, [nn.tnn_reshape_3d(s, nn.tnn_input_2d_f32(s, 2, 5), 5, 2, 1)] * 3, 3)
    x = nn.tnn_concat_n(s, [nn.tnn_reshape_3d(s, nn.tnn_input_1d_f32(s, 2), 2, 1, 1)] * 2, 3)
    dt = nn.tnn_reshape_3d(s, nn.tnn_input_1d_f32(s, 2), 1, 1, 2)
    b = nn.tnn_concat_n(s, [nn.tnn_reshape_3d(s, nn.tnn_input_1d_f32(s, 5), 5, 1, 1)] * 2, 3)
    a = nn.tnn_input_2d_f32(s, 1, 1)
    return nn.tnn_ssm_scan(s, state, x, dt, a, b, b, nn.tnn_reshape_2d(s, ids, 2, 1))


WITH_IDS: dict[str, Build] = {
    "mul_mat_id": _mul_mat_id,
    "add_id": _add_id,
    "get_rows_back": _get_rows_back,
    "ssm_scan": _ssm_scan,
}


@pytest.mark.parametrize("name", WITH_IDS)
def test_ids_are_checked_before_each_compute(s: Session, name: str) -> None:
    nn.tnn_finalize_weights(s)
    ids = nn.tnn_input_1d_i32(s, 2)
    nn.tnn_tensor_set_name(ids, "ids")
    out = WITH_IDS[name](s, nn.tnn_reshape_2d(s, ids, 1, 2))
    nn.tnn_realize(s, out)
    for i in range(nn.tnn_graph_n_nodes(s)):
        for j in range(7):
            one = nn.tnn_tensor_src(nn.tnn_graph_node(s, i), j)
            if one is not None and nn.tnn_tensor_flags(one) & 1 and one != ids:
                nn.tnn_zero_tensor(s, one)
    for wrong in ([0, 3], [-1, 0], [2**31 - 1, 0], [0, -(2**31)]):
        nn.upload_int_array(s, ids, wrong)
        with pytest.raises(TinyNNValueError, match=r"must be the number of a row of .*, which has 3 rows"):
            nn.tnn_compute(s)
    nn.upload_int_array(s, ids, [0, 2])
    nn.tnn_compute(s)


def test_sorted_ids_must_be_below_the_number_of_rows(s: Session) -> None:
    nn.tnn_finalize_weights(s)
    table, scores = nn.tnn_input_2d_f32(s, 3, 4), nn.tnn_input_1d_f32(s, 4)
    best = nn.tnn_top_k(s, scores, 2)
    with pytest.raises(
        TinyNNValueError,
        match=r"ids, a result of .*, can have values up to 3, but must have values below 3 \(the number of rows\)",
    ):
        nn.tnn_get_rows(s, table, best)


def test_computed_ids_are_refused_where_each_compute_must_check_them(s: Session) -> None:
    nn.tnn_finalize_weights(s)
    table, scores = nn.tnn_input_2d_f32(s, 4, 4), nn.tnn_input_1d_f32(s, 4)
    ids = nn.tnn_argsort(s, scores, 0)
    with pytest.raises(TinyNNValueError, match=r"ids is computed by the graph .*, but it must be an input"):
        nn.tnn_set_rows(s, table, nn.tnn_scale(s, table, 2.0), ids)
    with pytest.raises(TinyNNValueError, match="targets is computed by the graph"):
        nn.tnn_fused_cross_entropy(s, table, ids, -1)


def test_the_recurrences_refuse_a_row_with_a_longer_stride(s: Session) -> None:
    """The stride of a tensor with only one row has no meaning, and most operators ignore it.

    ggml's kernels for these three operators use this stride, so a stride that is longer than the row is refused.
    """
    nn.tnn_finalize_weights(s)
    x, one = nn.tnn_input_2d_f32(s, 4, 4), nn.tnn_input_1d_f32(s, 1)
    row, ids = nn.tnn_view_2d(s, x, 2, 1, 16, 0), nn.tnn_input_1d_i32(s, 1)
    with pytest.raises(TinyNNValueError, match="tnn_ssm_conv: x is a view with nb1 = 16, longer than its row"):
        nn.tnn_ssm_conv(s, row, one)
    with pytest.raises(TinyNNValueError, match="tnn_ssm_scan: state is a view with nb1 = 16"):
        nn.tnn_ssm_scan(s, row, one, one, one, one, one, ids)
    with pytest.raises(TinyNNValueError, match="tnn_gated_delta_net: v is a view with nb1 = 16"):
        nn.tnn_gated_delta_net(s, row, row, row, one, one, one)


# ---- order ----


def test_nan_comes_last_and_equal_elements_keep_their_order(s: Session) -> None:
    nn.tnn_finalize_weights(s)
    x = nn.tnn_input_2d_f32(s, 2, 40)
    up, down, best = nn.tnn_argsort(s, x, 0), nn.tnn_argsort(s, x, 1), nn.tnn_top_k(s, x, 3)
    for one in (up, down):
        nn.tnn_set_output(one)
        nn.tnn_add_to_graph(s, one)
    nn.tnn_realize(s, best)
    rng = np.random.default_rng(2)
    rows = rng.choice([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.5], (2, 40)).astype(np.float32)
    rows[1] = np.nan
    nn.upload_row_major(s, x, rows)
    nn.tnn_compute(s)
    places = np.arange(40)
    for got, sign in ((up, 1.0), (down, -1.0)):
        want = [np.lexsort((places, np.nan_to_num(sign * row, nan=0.0), np.isnan(row))) for row in rows]
        assert nn.tnn_download_to_int_array(s, got).reshape(2, 40).tolist() == np.array(want).tolist()
    assert nn.tnn_download_to_int_array(s, best).reshape(2, 3).tolist() == [
        order[:3].tolist() for order in nn.tnn_download_to_int_array(s, down).reshape(2, 40)
    ]


# ---- derivatives ----

REFUSED: dict[str, tuple[Build, str]] = {
    "a repeated divisor": (
        lambda s, w: nn.tnn_div(s, nn.tnn_input_2d_f32(s, 3, 4), nn.tnn_view_1d(s, w, 4, 0)),
        "ggml has no derivative for a tensor b that is repeated; use tnn_repeat first",
    ),
    "out_prod": (lambda s, w: nn.tnn_out_prod(s, w, w), "OUT_PROD.* ggml has no derivative for it"),
    "sigmoid": (nn.tnn_sigmoid, "SIGMOID.* ggml has no derivative for it"),
    "l2_norm": (lambda s, w: nn.tnn_l2_norm(s, w, 1e-6), "L2_NORM.* ggml has no derivative for it"),
    "rms_norm_back": (lambda s, w: nn.tnn_rms_norm_back(s, w, w, 1e-6), "RMS_NORM_BACK.* no derivative for it"),
    "softmax_back": (lambda s, w: nn.tnn_softmax_back(s, w, w), "SOFT_MAX_BACK.* ggml has no derivative for it"),
    "silu_back": (lambda s, w: nn.tnn_silu_back(s, w, w), "SILU_BACK.* ggml has no derivative for it"),
    "ssm_conv": (lambda s, w: nn.tnn_ssm_conv(s, w, w), "SSM_CONV.* ggml has no derivative for it"),
    "conv_2d": (
        lambda s, w: nn.tnn_conv_2d(s, w, nn.tnn_scale(s, w, 2.0), 1, 1, 0, 0, 1, 1),
        "IM2COL.* its dtype is not f32",
    ),
    "the kernel of im2col": (
        lambda s, w: nn.tnn_im2col(s, w, w, 1, 1, 0, 0, 1, 1, 1),
        "its kernel, of which only the shape is used, depends on a parameter; use tnn_detach",
    ),
    "mul_mat_id": (
        lambda s, w: nn.tnn_mul_mat_id(s, w, w, nn.tnn_reshape_2d(s, nn.tnn_input_1d_i32(s, 3), 3, 1)),
        "MUL_MAT_ID.* ggml has no derivative for it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_gradient_is_refused_by_name_if_ggml_has_none(s: Session, name: str) -> None:
    build, message = REFUSED[name]
    w = nn.tnn_input_2d_f32_persistent(s, 3, 4)
    nn.tnn_set_param(w)
    nn.tnn_finalize_weights(s)
    loss = nn.tnn_sum(s, build(s, w))
    nn.tnn_set_loss(loss)
    nn.tnn_build_forward_only(s, loss)
    with pytest.raises(TinyNNValueError, match=message):
        nn.tnn_build_backward(s)


def test_no_gradient_passes_a_detach(s: Session) -> None:
    """The loss is sum(w * detach(exp(w))): its gradient is exp(w), without the part w * exp(w)."""
    w = nn.tnn_input_1d_f32_persistent(s, 4)
    nn.tnn_set_param(w)
    nn.tnn_finalize_weights(s)
    loss = nn.tnn_sum(s, nn.tnn_mul(s, w, nn.tnn_detach(s, nn.tnn_exp(s, w))))
    nn.tnn_set_output(loss)
    nn.tnn_set_loss(loss)
    nn.tnn_build_forward_only(s, loss)
    nn.tnn_build_backward(s)
    grad = nn.tnn_tensor_grad(s, w)
    nn.tnn_set_output(grad)
    nn.tnn_realize_backward(s)
    values = np.array([-1.5, 0.5, 2.0, 3.0])
    nn.tnn_upload_from_float_array(s, w, values)
    nn.tnn_graph_reset(s)
    nn.tnn_compute_backward(s)
    np.testing.assert_allclose(nn.tnn_download(s, grad), np.exp(values), rtol=1e-6)
    np.testing.assert_allclose(nn.tnn_download(s, loss), (values * np.exp(values)).sum(), rtol=1e-6)


def test_a_loss_that_depends_on_parameters_only_through_a_detach_is_refused(s: Session) -> None:
    w = nn.tnn_input_1d_f32_persistent(s, 4)
    nn.tnn_set_param(w)
    nn.tnn_finalize_weights(s)
    loss = nn.tnn_sum(s, nn.tnn_detach(s, w))
    nn.tnn_set_loss(loss)
    nn.tnn_build_forward_only(s, loss)
    with pytest.raises(SessionError, match="depends on no parameter"):
        nn.tnn_build_backward(s)


# ---- threads ----


@pytest.mark.threads
def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((24, 40)).astype(np.float32)
    results = []
    for n_threads in (1, 2, 3, 4):
        with Session(n_threads=n_threads, oversubscribe=True) as s:
            nn.tnn_finalize_weights(s)
            a = nn.tnn_input_2d_f32(s, 24, 40)
            best = nn.tnn_top_k(s, a, 3)
            cube, thin = nn.tnn_reshape_3d(s, a, 40, 4, 6), nn.tnn_reshape_3d(s, a, 8, 3, 40)
            some = [nn.tnn_view_1d(s, a, n, 0) for n in (192, 54, 64)]
            made = [
                nn.tnn_out_prod(s, a, a), nn.tnn_l2_norm(s, a, 1e-6), nn.tnn_swiglu_split(s, a, a), best,
                nn.tnn_mul_mat_id(s, thin, nn.tnn_reshape_3d(s, some[0], 8, 1, 24), best),
                nn.tnn_conv_2d(s, nn.tnn_reshape_3d(s, some[1], 3, 3, 6), cube, 1, 1, 1, 1, 1, 1),
                nn.tnn_ssm_conv(s, nn.tnn_reshape_2d(s, a, 60, 16), nn.tnn_reshape_2d(s, some[2], 4, 16)),
                nn.tnn_rms_norm_back(s, a, a, 1e-6), nn.tnn_softmax_back(s, a, a), nn.tnn_silu_back(s, a, a),
            ]  # fmt: skip
            for one in made:
                nn.tnn_set_output(one)
                nn.tnn_add_to_graph(s, one)
            nn.tnn_realize(s, nn.tnn_exp(s, a))
            nn.upload_row_major(s, a, x)
            nn.tnn_compute(s)
            results.append(
                [(nn.tnn_download_to_int_array if one is best else nn.tnn_download)(s, one).tobytes() for one in made]
            )
    assert results[0] == results[1] == results[2] == results[3]

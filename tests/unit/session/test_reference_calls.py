"""The calls have the argument order of the Ruby project toy, and calls in the order of older versions are errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toynn import Session, SessionError, Tensor, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn

pytestmark = pytest.mark.quick

rng = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return rng.standard_normal(shape).astype(np.float32)


def test_declared_matrices_take_rows_then_cols() -> None:
    with Session(n_threads=1) as s:
        assert nn.tnn_input_2d_f32_persistent(s, 3, 5).ne == (5, 3, 1, 1)
        assert nn.tnn_input_3d_f32_persistent(s, 2, 3, 5).ne == (5, 3, 2, 1)
        assert nn.tnn_input_4d_f32_persistent(s, 7, 2, 3, 5).ne == (5, 3, 2, 7)
        half = nn.tnn_input_2d_persistent_typed(s, 3, 5, nn.TNN_F16)
        assert half.ne == (5, 3, 1, 1)
        assert nn.tnn_tensor_dtype(half) == nn.TNN_F16
        assert nn.tnn_rope_freq_factors_alloc(s, 4).ne == (4, 1, 1, 1)
        nn.tnn_finalize_weights(s)
        assert nn.tnn_input_2d_f32(s, 3, 5).ne == (5, 3, 1, 1)


OF_A_MATRIX: list[Callable[..., Any]] = [
    nn.tnn_input_2d_f32, nn.tnn_input_2d_f32_persistent, nn.tnn_input_3d_f32_persistent,
]  # fmt: skip


@pytest.mark.parametrize("declare", OF_A_MATRIX, ids=lambda call: call.__name__)
def test_the_old_names_of_sizes_are_refused(declare: Callable[..., Any]) -> None:
    with Session(n_threads=1) as s, pytest.raises(TypeError, match="unexpected keyword argument 'ne0'"):
        declare(s, ne0=5, ne1=3)


def test_a_matrix_declared_with_rows_and_cols_exchanged_refuses_its_values() -> None:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 5, 3)  # older versions took ne0, ne1 for a matrix of 3 rows
        nn.tnn_finalize_weights(s)
        message = r"^data has shape \(3, 5\), but <Tensor '' ne=\[3, 5, 1, 1\]> is a matrix of 5 rows and 3 cols"
        with pytest.raises(TinyNNValueError, match=message):
            nn.tnn_upload_from_float_array(s, w, normal(3, 5))
        with pytest.raises(TinyNNValueError, match=r"^m must have shape \(5, 3\)"):
            nn.upload_row_major(s, w, normal(3, 5))
        with pytest.raises(TinyNNValueError, match=r"^rows: rows and cols must be \(5, 3\)"):
            nn.download_row_major(s, w, 3, 5)
        with pytest.raises(TinyNNValueError, match="tnn_matmul: the tensor a has shape"):
            nn.tnn_matmul(s, w, nn.tnn_input_2d_f32(s, 2, 5))
        nn.tnn_upload_from_float_array(s, w, normal(5, 3))
        nn.tnn_upload_from_float_array(s, w, normal(15))


def test_rope_takes_the_frequency_factors_last_and_turns_as_neox_by_default() -> None:
    x, factors = normal(5, 3, 8), np.linspace(1.0, 4.0, 4, dtype=np.float32)
    positions = np.arange(5, dtype=np.int32)
    with Session(n_threads=1) as s:
        t_x, t_f = nn.tnn_input_3d_f32_persistent(s, 5, 3, 8), nn.tnn_rope_freq_factors_alloc(s, 4)
        t_p = nn.tnn_input_1d_i32_persistent(s, 5)
        nn.tnn_finalize_weights(s)
        out = nn.tnn_rope_ext(s, t_x, t_p, 8, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0, t_f)
        nn.tnn_realize(s, out)
        nn.tnn_upload_from_float_array(s, t_x, x)
        nn.tnn_upload_from_float_array(s, t_f, factors)
        nn.tnn_upload_from_int_array(s, t_p, positions, 5)
        nn.tnn_compute(s)
        got = nn.tnn_download(s, out).reshape(5, 3, 8)
        rope: Any = nn.tnn_rope_ext
        for old in ((None, 8, 2, 0), (t_f, 8, 2, 0)):
            with pytest.raises(TypeError, match="takes from 10 to 11 positional arguments but 13 were given"):
                rope(s, t_x, t_p, *old, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0)
    turn = np.exp(1j * positions[:, None, None] * 10000.0 ** (-np.arange(4) / 4) / factors)
    turned = (x[..., :4] + 1j * x[..., 4:]) * turn
    np.testing.assert_allclose(got, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-5)


OF_A_TENSOR: list[Callable[..., Any]] = [
    nn.tnn_set_output, nn.tnn_set_param, nn.tnn_set_loss, nn.tnn_tensor_name, nn.tnn_tensor_ne0, nn.tnn_tensor_ne1,
    nn.tnn_tensor_ne2, nn.tnn_tensor_ne3, nn.tnn_tensor_nbytes, nn.tnn_tensor_nelements, nn.tnn_tensor_dtype,
    nn.tnn_tensor_flags, nn.tnn_tensor_op, nn.tnn_tensor_op_name,
]  # fmt: skip


@pytest.mark.parametrize("call", OF_A_TENSOR, ids=lambda call: call.__name__)
def test_a_call_on_a_tensor_takes_no_session(call: Callable[..., Any]) -> None:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_1d_f32_persistent(s, 3)
        nn.tnn_finalize_weights(s)
        call(nn.tnn_sum(s, w) if call is nn.tnn_set_loss else w)
        with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
            call(s, w)
        with pytest.raises(TinyNNTypeError, match=r"^t must be a Tensor, got Session"):
            call(s)


def test_naming_a_tensor_and_reading_its_operands_take_no_session() -> None:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_1d_f32_persistent(s, 3)
        nn.tnn_finalize_weights(s)
        nn.tnn_tensor_set_name(w, "w")
        out = nn.tnn_scale(s, w, 2.0)
        assert nn.tnn_tensor_src(out, 0) == w
        assert nn.tnn_tensor_name(w) == "w"
        assert (nn.tnn_tensor_op(w), nn.tnn_tensor_op_name(w)) == (0, "NONE")
        assert nn.tnn_tensor_op(out) > 0
        with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
            nn.tnn_tensor_set_name(s, w, "w")  # type: ignore[arg-type,call-arg]
        with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
            nn.tnn_tensor_src(s, out, 0)  # type: ignore[arg-type,call-arg]


def test_a_tensor_whose_init_did_not_run_is_refused() -> None:
    with pytest.raises(SessionError, match="never initialised"):
        nn.tnn_set_output(Tensor.__new__(Tensor))


def test_a_session_can_be_made_only_on_device_0_of_the_cpu() -> None:
    with nn.tnn_session_new_on(0, 0, n_threads=1) as s:
        assert nn.tnn_backend_name(s) == "CPU"
    with pytest.raises(TinyNNValueError, match=r"device = 1 is unknown; the CPU has only device 0"):
        nn.tnn_session_new_on(0, 1)
    with pytest.raises(TinyNNValueError, match=r"kind = 1 is unknown"):
        nn.tnn_session_new_on(1, 0)


@pytest.mark.parametrize(("dtype", "n", "nbytes"), [(0, 32, 128), (1, 32, 64), (30, 3, 6), (8, 64, 68), (2, 32, 18)])
def test_the_size_of_a_row_follows_from_its_dtype(dtype: int, n: int, nbytes: int) -> None:
    assert nn.tnn_row_size(dtype, n) == nbytes


def test_an_impossible_size_of_a_row_is_refused() -> None:
    for dtype in (-1, 4, 9999):  # 4 is a number that ggml no longer uses
        with pytest.raises(TinyNNTypeError, match=f"dtype must be one of ggml's dtypes.*, got {dtype}"):
            nn.tnn_row_size(dtype, 32)
    for n in (0, -32, 33, 2**31):
        with pytest.raises(TinyNNValueError, match=f"n must be a multiple of the block of dtype 8, .*, got {n}"):
            nn.tnn_row_size(8, n)


def test_an_upload_may_state_its_number_of_elements() -> None:
    with Session(n_threads=1) as s:
        w, ids = nn.tnn_input_1d_f32_persistent(s, 3), nn.tnn_input_1d_i32_persistent(s, 2)
        nn.tnn_finalize_weights(s)
        nn.tnn_upload_from_float_array(s, w, [1.0, 2.0, 3.0], 3)
        nn.tnn_upload_from_int_array(s, ids, [4, 5], 2)
        assert nn.tnn_download(s, w).tolist() == [1.0, 2.0, 3.0]
        assert nn.tnn_download_to_int_array(s, ids).tolist() == [4, 5]
        with pytest.raises(TinyNNValueError, match=r"^n must be the number of elements of data, 3, got 2"):
            nn.tnn_upload_from_float_array(s, w, [1.0, 2.0, 3.0], 2)
        with pytest.raises(TinyNNValueError, match=r"^n must be the number of elements of data, 2, got 3"):
            nn.tnn_upload_from_int_array(s, ids, [4, 5], 3)


def test_the_helpers_compute_the_product_of_matrices() -> None:
    a, b = normal(4, 3), normal(3, 5)
    with nn.persistent_new(0) as s:
        nn.tnn_finalize_weights(s)
        t_a, t_b = nn.alloc_2d(s, 4, 3), nn.alloc_2d(s, 5, 3)
        t_c = nn.build_matmul(s, t_a, t_b)
        nn.realize(s, t_c)
        nn.upload_row_major(s, t_a, a)
        nn.upload_transposed(s, t_b, b)
        nn.compute(s)
        np.testing.assert_allclose(nn.download_matmul(s, t_c, 4, 5), a.astype(np.float64) @ b, atol=1e-5)
        assert nn.download_to_mat(s, t_c, 5, 4).tolist() == nn.download_matmul(s, t_c, 4, 5).T.tolist()
        with pytest.raises(TinyNNValueError, match=r"^m: m and n must be \(4, 5\) for .*, got \(5, 4\)"):
            nn.download_matmul(s, t_c, 5, 4)
        with pytest.raises(TinyNNValueError, match=r"^m has shape \(5, 3\), but it must be \(3, 5\), the transpose of"):
            nn.upload_transposed(s, t_b, b.T)
        nn.persistent_free(s)
        assert s.closed


def test_the_aliases_build_a_graph() -> None:
    x, gamma = normal(2, 4), normal(4)
    with nn.persistent_new(0) as s:
        nn.tnn_finalize_weights(s)
        t_x, t_gamma, t_ids = nn.alloc_2d(s, 2, 4), nn.alloc_2d(s, 1, 4), nn.alloc_1d_i32(s, 3)
        assert nn.tnn_tensor_dtype(t_ids) == nn.TNN_I32
        normed = nn.build_rms_norm(s, t_x, t_gamma, 1e-5)
        out = nn.build_scale(s, nn.build_softmax(s, nn.build_gelu(s, nn.build_add(s, normed, t_x))), 3.0)
        nn.realize(s, out)
        nn.upload_row_major(s, t_x, x)
        nn.upload_row_major(s, t_gamma, gamma)
        nn.compute(s)
        got = nn.download_row_major(s, out, 2, 4)
    y = nn.add(nn.rms_norm(x, gamma, 1e-5), x)
    np.testing.assert_array_equal(got, nn.scale(nn.softmax(nn.gelu(y)), 3.0))


def test_a_session_without_persistent_tensors_needs_no_finalize() -> None:
    """The Ruby project toy computes a single product in this way: it never finalizes the weights."""
    a, b = normal(2, 4), normal(3, 4)
    with nn.persistent_new(0) as s:
        with pytest.raises(TinyNNValueError, match="rows = 0"):  # an input that is refused changes nothing
            nn.alloc_2d(s, 0, 4)
        w = nn.tnn_input_1d_f32_persistent(s, 4)
        with pytest.raises(SessionError, match="only after tnn_finalize_weights"):
            nn.alloc_2d(s, 2, 4)
        nn.tnn_finalize_weights(s)
        assert nn.tnn_download(s, w).tolist() == [0.0] * 4
    with nn.persistent_new(0) as s:
        t_a, t_b = nn.alloc_2d(s, 2, 4), nn.alloc_2d(s, 3, 4)
        product = nn.build_matmul(s, t_a, t_b)
        nn.realize(s, product)
        nn.upload_row_major(s, t_a, a)
        nn.upload_row_major(s, t_b, b)
        nn.compute(s)
        np.testing.assert_allclose(nn.download_matmul(s, product, 2, 3), a.astype(np.float64) @ b.T, rtol=1e-5)
        with pytest.raises(SessionError, match="before the first tensor of a graph"):
            nn.tnn_input_1d_f32_persistent(s, 4)
        with pytest.raises(SessionError, match="before the first tensor of a graph"):
            nn.tnn_finalize_weights(s)


def test_the_one_shot_operators_agree_with_numpy() -> None:
    a, b, gamma = (one.astype(np.float64) for one in (normal(3, 4), normal(3, 4), normal(4)))
    exact = {
        "matmul": (nn.matmul(a, b.T), a @ b.T),
        "add": (nn.add(a, b), a + b),
        "mul": (nn.mul(a, b), a * b),
        "silu": (nn.silu(a), a / (1 + np.exp(-a))),
        "gelu": (nn.gelu(a), 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))),
        "softmax": (nn.softmax(a), np.exp(a) / np.exp(a).sum(axis=1, keepdims=True)),
        "scale": (nn.scale(a, -1.5), -1.5 * a),
        "transpose": (nn.transpose(a), a.T),
        "rms_norm": (nn.rms_norm(a, gamma, 1e-5), a / np.sqrt((a**2).mean(axis=1, keepdims=True) + 1e-5) * gamma),
    }
    for name, (got, want) in exact.items():
        assert got.dtype == np.float32, name
        np.testing.assert_allclose(got, want, atol=2e-3 if name == "gelu" else 1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: nn.matmul(a, a), r"^b must have 4 rows, because the shape of a is \(3, 4\), got \(3, 4\)"),
        (lambda a: nn.add(a, a.T), r"^b must have the shape of a, \(3, 4\), got \(4, 3\)"),
        (lambda a: nn.mul(a, a[0]), r"^b must be a matrix of at least one element, got shape \(4,\)"),
        (lambda a: nn.softmax(a[:0]), r"^a must be a matrix of at least one element, got shape \(0, 4\)"),
        (lambda a: nn.rms_norm(a, a[0, :3], 1e-5), r"^gamma must have shape \(4,\) for x of shape \(3, 4\), got"),
        (lambda a: nn.scale(a, float("nan")), "factor = nan must be finite"),
    ],
)
def test_a_one_shot_operator_refuses_shapes_that_do_not_fit(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(TinyNNValueError, match=message):
        call(normal(3, 4))

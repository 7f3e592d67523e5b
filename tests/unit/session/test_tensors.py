"""Tensors of a session: upload, download, handles, shapes, and the attributes of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from toynn import Session, SessionError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn
from toynn.tinynn import native, session

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "given",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(12, dtype=np.float16).reshape(2, 6)[:, ::2] / 2,
        [[0, 1, 2], [3, 4, 5]],
    ],
    ids=["f64", "i64", "big-endian", "column-major", "strided f16", "lists"],
)
def test_any_array_of_real_numbers_is_uploaded_in_row_major_order(given: npt.ArrayLike) -> None:
    with Session(n_threads=1) as s:
        t = nn.tnn_input_2d_f32_persistent(s, 2, 3)
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, t, given)
        got = nn.download_row_major(s, t, 2, 3)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.asarray(given, dtype=np.float64))


@pytest.mark.parametrize("dtype", [None, nn.TNN_F16, nn.TNN_BF16], ids=["f32", "f16", "bf16"])
def test_every_nan_is_downloaded_as_the_same_bits(dtype: int | None) -> None:
    """If an operator makes a NaN, the sign bit of the NaN is set on x86-64, and not on aarch64."""
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7FA00000, 0xFF800001, 0x7FFFFFFF, 0x7F800000, 0xFF800000, 0], np.uint32)
    with Session(n_threads=1) as s:
        t = nn.tnn_input_1d_f32_persistent(s, 8)
        nn.tnn_finalize_weights(s)
        if dtype is not None:
            t, given = nn.tnn_cast(s, t, dtype), t
            nn.tnn_set_output(t)
            nn.tnn_realize(s, t)
            nn.tnn_upload_from_float_array(s, given, bits.view(np.float32))
            nn.tnn_compute(s)
        else:
            nn.tnn_upload_from_float_array(s, t, bits.view(np.float32))
        got = nn.tnn_download(s, t).view(np.uint32).tolist()
    assert got == [0x7FC00000] * 5 + [0x7F800000, 0xFF800000, 0]


def test_the_nan_of_an_operator_is_downloaded_as_the_same_bits() -> None:
    with Session(n_threads=1) as s:
        t = nn.tnn_input_1d_f32_persistent(s, 5)
        nn.tnn_finalize_weights(s)
        product = nn.tnn_mul(s, t, nn.tnn_scale(s, t, 0.0))
        nn.tnn_set_output(product)
        nn.tnn_realize(s, product)
        nn.tnn_upload_from_float_array(s, t, [np.inf, -np.inf, np.nan, -np.nan, 1.0])
        nn.tnn_compute(s)
        assert nn.tnn_download(s, product).view(np.uint32).tolist() == [0x7FC00000] * 4 + [0]


def test_ids_of_any_integer_type_can_be_uploaded_and_downloaded() -> None:
    with Session(n_threads=1) as s:
        t = nn.tnn_input_1d_i32_persistent(s, 3)
        nn.tnn_finalize_weights(s)
        for ids in ([1, 2, 3], np.array([1, 2, 3], dtype=">u2"), np.array([1, 0, 2, 0, 3])[::2]):
            nn.upload_int_array(s, t, ids)
            assert nn.tnn_download_to_int_array(s, t).tolist() == [1, 2, 3]


def test_a_transfer_of_another_dtype_is_refused() -> None:
    with Session(n_threads=1) as s:
        ids, x = nn.tnn_input_1d_i32_persistent(s, 2), nn.tnn_input_1d_f32_persistent(s, 2)
        nn.tnn_finalize_weights(s)
        refused: list[tuple[Callable[[], object], str]] = [
            (lambda: nn.tnn_upload_from_float_array(s, ids, [1.0, 2.0]), "i32, but it must be f32, f16 or bf16; use "),
            (lambda: nn.tnn_upload_from_int_array(s, x, [1, 2]), "f32, but it must be i32; use tnn_upload_from_float"),
            (lambda: nn.tnn_download(s, ids), "i32, but it must be f32, f16, bf16 or quantized; use tnn_download_to_"),
            (lambda: nn.tnn_download_to_int_array(s, x), "f32, but it must be i32; use tnn_download"),
        ]
        for call, match in refused:
            with pytest.raises(TinyNNTypeError, match=f"has dtype {match}"):
                call()


def test_zero_tensor_sets_every_element_to_zero() -> None:
    with Session(n_threads=1) as s:
        t = nn.tnn_input_1d_f32_persistent(s, 3)
        nn.tnn_finalize_weights(s)
        nn.tnn_upload_from_float_array(s, t, [1, 2, 3])
        nn.tnn_zero_tensor(s, t)
        assert nn.tnn_download(s, t).tolist() == [0, 0, 0]


def test_an_f16_or_bf16_matrix_is_rounded_on_upload_and_can_be_multiplied() -> None:
    rng = np.random.default_rng(7)
    w, x = (rng.standard_normal((rows, 32)).astype(np.float32).astype(np.float64) for rows in (6, 5))
    for dtype, atol in ((nn.TNN_F16, 2e-2), (nn.TNN_BF16, 1e-1)):
        with Session(n_threads=1) as s:
            t_w = nn.tnn_input_2d_persistent_typed(s, 6, 32, dtype)
            nn.tnn_finalize_weights(s)
            t_x = nn.tnn_input_2d_f32(s, 5, 32)
            out = nn.tnn_matmul(s, t_w, t_x)
            nn.tnn_set_output(out)
            nn.tnn_realize(s, out)
            nn.upload_row_major(s, t_w, w)
            nn.upload_row_major(s, t_x, x)
            nn.tnn_compute(s)
            np.testing.assert_allclose(nn.download_row_major(s, out, 5, 6), x @ w.T, atol=atol)
            assert nn.tnn_tensor_dtype(t_w) == dtype


def test_nodes_of_a_graph_can_be_inspected() -> None:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 3, 4)
        nn.tnn_tensor_set_name(w, "größe")
        nn.tnn_finalize_weights(s)
        x = nn.tnn_input_2d_f32(s, 2, 4)
        out = nn.tnn_matmul(s, w, x)
        nn.tnn_set_output(out)
        assert nn.tnn_graph_n_nodes(s) == 0
        nn.tnn_realize(s, out)
        assert nn.tnn_graph_n_nodes(s) == 1
        assert nn.tnn_graph_node(s, 0) == out
        assert nn.tnn_tensor_src(out, 0) == w
        assert nn.tnn_tensor_src(out, 1) == x
        assert nn.tnn_tensor_src(out, 2) is None
        assert nn.tnn_tensor_op_name(out) == "MUL_MAT"
        assert nn.tnn_tensor_op_name(x) == "NONE"
        assert out.ne == (3, 2, 1, 1)
        assert nn.tnn_tensor_nelements(out) == 6
        assert nn.tnn_tensor_nbytes(out) == 24
        assert nn.tnn_tensor_flags(out) & 2
        assert w.name == "größe"
        assert repr(w) == "<Tensor 'größe' ne=[4, 3, 1, 1]>"
        assert len({w, x, out, nn.tnn_graph_node(s, 0)}) == 3
        assert nn.tnn_session_weights_nbytes(s) >= 48
        assert nn.tnn_session_compute_nbytes(s) > 0


def test_a_handle_of_a_dropped_graph_is_stale() -> None:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_1d_f32_persistent(s, 3)
        nn.tnn_finalize_weights(s)
        x = nn.tnn_silu(s, w)
        nn.tnn_reset_for_rebuild(s)
        with pytest.raises(SessionError, match="tnn_silu: a "):
            nn.tnn_silu(s, x)
        assert "stale" in repr(x)
        assert nn.tnn_silu(s, w).ne == (3, 1, 1, 1)


def test_a_shape_is_read_from_c_once_for_each_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(native.lib, name)

    with Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 2, 3)
        nn.tnn_finalize_weights(s)
        monkeypatch.setattr(session, "lib", Counting())
        shape = ["tnn_tensor_ne0", "tnn_tensor_ne1", "tnn_tensor_ne2", "tnn_tensor_ne3"]
        assert w.ne == (3, 2, 1, 1)
        assert calls == shape
        assert w.ne == (3, 2, 1, 1)
        assert nn.download_row_major(s, w, 2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
        assert calls == shape
        nn.tnn_reset_for_rebuild(s)
        calls.clear()
        # the shape is read from C again, because w could be a handle of the dropped graph
        assert w.ne == (3, 2, 1, 1)
        assert calls == shape


def test_a_cached_shape_does_not_hide_a_stale_handle_or_a_closed_session() -> None:
    s = Session(n_threads=1)
    w = nn.tnn_input_1d_f32_persistent(s, 3)
    nn.tnn_finalize_weights(s)
    x = nn.tnn_silu(s, w)
    assert x.ne == w.ne == (3, 1, 1, 1)
    nn.tnn_reset_for_rebuild(s)
    with pytest.raises(SessionError, match="stale handle"):
        _ = x.ne
    with pytest.raises(SessionError, match="stale handle"):
        nn.tnn_download(s, x)
    assert w.ne == (3, 1, 1, 1)
    s.close()
    for t in (w, x):
        with pytest.raises(SessionError, match="closed"):
            _ = t.ne


def test_a_handle_of_another_session_is_refused() -> None:
    with Session(n_threads=1) as s, Session(n_threads=1) as other:
        foreign = nn.tnn_input_1d_f32_persistent(other, 3)
        own = nn.tnn_input_1d_f32_persistent(s, 3)
        with pytest.raises(SessionError, match=r"^b is a tensor of another session"):
            nn.tnn_add(s, own, foreign)


@pytest.mark.parametrize("number", ["x", 1.5, None, True])
def test_a_tensor_needs_a_session_and_an_integer_handle(number: Any) -> None:
    with Session(n_threads=1) as s:
        with pytest.raises(TinyNNTypeError, match="handle must be an int"):
            nn.Tensor(s, number)
        with pytest.raises(TinyNNValueError, match="handle"):
            nn.Tensor(s, 2**70)
    with pytest.raises(TinyNNTypeError, match="session must be a Session"):
        nn.Tensor(None, 3)  # type: ignore[arg-type]


def test_a_realize_without_enough_memory_does_not_change_the_tensor() -> None:
    with Session(n_threads=1) as s:
        nn.tnn_finalize_weights(s)
        parts = [nn.tnn_input_1d_f32(s, 2**31 - 1) for _ in range(256)]  # each tensor needs 8 GiB
        out = parts[0]
        for part in parts[1:]:
            out = nn.tnn_add(s, out, part)
        for asked in (out, nn.tnn_view_1d(s, out, 4, 0)):  # ggml also flags the tensor of which a view is made
            with pytest.raises(TinyNNMemoryError, match="tnn_realize: the graph's tensors need"):
                nn.tnn_realize(s, asked)
            assert [nn.tnn_tensor_flags(t) for t in (out, asked)] == [
                0,
                0,
            ]  # these tensors are not flagged as outputs, because they were not realized
        small = nn.tnn_scale(s, nn.tnn_input_1d_f32(s, 3), 2.0)
        nn.tnn_realize(s, small)  # the failed calls have not changed the graph

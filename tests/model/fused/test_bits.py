"""The bits of the fused layout: sums have a fixed order, threads and options change no bit, and AdamW equals ggml's."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_engines import F32, HP, all_weights, engine, load, targets
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import (
    SmolLM2Config,
)
from toynn import tinynn as nn

pytestmark = pytest.mark.quick


def _fmaf() -> ctypes._NamedFuncPointer:
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    libm.fmaf.restype = ctypes.c_float
    libm.fmaf.argtypes = [ctypes.c_float] * 3
    return libm.fmaf


def linear(x: F32, ws: list[F32], biases: list[F32] | None = None, add: F32 | None = None, n_threads: int = 1) -> F32:
    """Return tnn_fused_linear of numpy arrays: x (rows, k), ws (m, k) -> (rows, sum of m)."""
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        arrays = [x, *ws, *(biases or []), *([add] if add is not None else [])]
        tensors = [
            nn.tnn_input_2d_f32_persistent(s, a.shape[0], a.shape[1]) if a.ndim == 2
            else nn.tnn_input_1d_f32_persistent(s, a.shape[0])
            for a in arrays
        ]  # fmt: skip
        nn.tnn_finalize_weights(s)
        for tensor, a in zip(tensors, arrays, strict=True):
            nn.tnn_upload_from_float_array(s, tensor, a)
        n = len(ws)
        y = nn.tnn_fused_linear(
            s, tensors[0], tensors[1 : 1 + n], tensors[1 + n : 1 + 2 * n] if biases else None,
            tensors[-1] if add is not None else None,
        )  # fmt: skip
        nn.tnn_realize(s, y)
        nn.tnn_compute(s)
        return nn.download_row_major(s, y, x.shape[0], sum(w.shape[0] for w in ws))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 20), k=st.one_of(st.integers(1, 40), st.integers(380, 400)), m=st.integers(1, 40),
    n_threads=st.integers(1, 3), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_an_element_of_a_product_is_one_chain_of_fused_multiply_adds(
    rows: int, k: int, m: int, n_threads: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, k), dtype=np.float32)
    w = rng.standard_normal((m, k), dtype=np.float32)
    y = linear(x, [w], n_threads=n_threads)
    fmaf = _fmaf()
    for i, j in {(0, 0), (rows - 1, m - 1), (int(rng.integers(rows)), int(rng.integers(m)))}:
        chain = 0.0
        for p in range(k):
            chain = fmaf(x[i, p], w[j, p], chain)
        assert float(y[i, j]).hex() == chain.hex()


def test_several_weights_in_one_product_equal_separate_products_plus_bias_plus_addend() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((19, 30), dtype=np.float32)
    ws = [rng.standard_normal((m, 30), dtype=np.float32) for m in (7, 16, 33)]
    biases = [rng.standard_normal(m, dtype=np.float32) for m in (7, 16, 33)]
    add = rng.standard_normal((19, 56), dtype=np.float32)
    together = linear(x, ws, biases, add, n_threads=2)
    alone = np.concatenate([linear(x, [w]) for w in ws], axis=1)
    want = (alone + np.concatenate(biases)) + add
    assert together.tobytes() == want.tobytes()


@pytest.mark.parametrize("name", ["everything at once", "batch of 3", "gqa, head_dim of its own", "tied"])
@pytest.mark.threads
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    variant = VARIANTS[name]
    runs = []
    for n_threads in (1, 2, 3, 4):
        with engine(variant, n_threads=n_threads, clip=True, keep_gradients=True) as e:
            load(e, variant)
            steps = [e.train_step(variant.ids(), targets(variant), HP.hp(1), max_norm=0.5) for _ in range(2)]
            runs.append((steps, all_weights(e), {n: e.gradient(n).tobytes() for n in e.param_names()}))
    assert runs[0] == runs[1] == runs[2] == runs[3]


@pytest.mark.threads
def test_a_larger_model_has_the_same_bits_with_any_number_of_threads() -> None:
    """Products are larger than one block in each dimension, and there are several blocks of queries."""
    cfg = SmolLM2Config(600, 400, 6, 3, 530, 1, 256, 10000.0, 1e-5, head_dim=64)
    variant = Variant(cfg, 130, t_batch=2)
    runs = []
    for n_threads in (1, 2, 3):
        with engine(variant, n_threads=n_threads) as e:
            steps = [e.train_step(variant.ids(), targets(variant), HP.hp(1)) for _ in range(2)]
            runs.append((steps, all_weights(e)))
    assert runs[0] == runs[1] == runs[2]


def test_a_token_does_not_see_later_tokens() -> None:
    variant = VARIANTS["gqa"]
    with engine(variant) as e:
        ids = variant.ids()
        before = e.forward(ids)
        ids[-1] = (ids[-1] + 1) % variant.cfg.vocab
        after = e.forward(ids)
    assert before[:-1].tobytes() == after[:-1].tobytes()
    assert before[-1].tobytes() != after[-1].tobytes()


@each_variant
@pytest.mark.parametrize("build", [{"pin": True}, {"taps": True}, {"keep_gradients": True}, {"clip": True}])
def test_keeping_tensors_of_a_graph_changes_no_bit(variant: Variant, build: dict[str, Any]) -> None:
    runs = []
    for kept in (dict[str, Any](), build):
        with engine(variant, **kept) as e:
            steps = [e.train_step(variant.ids(), targets(variant), HP.hp(i + 1))[0] for i in range(3)]
            runs.append((steps, all_weights(e)))
    assert runs[0] == runs[1]


def test_gradients_share_memory_unless_they_are_kept() -> None:
    variant = Variant(SmolLM2Config(23, 32, 2, 2, 64, 12, 16, 10000.0, 1e-5), 4)
    sizes = {}
    for kept, build in (("neither", dict[str, Any]()), ("clip", {"clip": True}), ("pin", {"pin": True})):
        with engine(variant, **build) as e:
            sizes[kept] = nn.tnn_session_compute_nbytes(e.sess)
            weights = nn.tnn_session_weights_nbytes(e.sess)
    assert sizes["neither"] + weights / 6 < sizes["clip"] < sizes["pin"]


def test_adamw_equals_that_of_ggml_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    w, g, m, v = (rng.standard_normal((5, 37), dtype=np.float32) for _ in range(4))
    v = np.abs(v)
    results = []
    for layout in ("ggml", "fused"):
        with nn.Session(n_threads=2, oversubscribe=True) as s:
            tw, tm, tv, ids, table = (
                nn.tnn_input_2d_f32_persistent(s, 5, 37), nn.tnn_input_2d_f32_persistent(s, 5, 37),
                nn.tnn_input_2d_f32_persistent(s, 5, 37), nn.tnn_input_1d_i32_persistent(s, 5),
                nn.tnn_input_2d_f32_persistent(s, 5, 37),
            )  # fmt: skip
            nn.tnn_finalize_weights(s)
            for tensor, values in ((tw, w), (tm, m), (tv, v), (table, g)):
                nn.upload_row_major(s, tensor, values)
            nn.upload_int_array(s, ids, range(5))
            nn.tnn_set_param(tw)
            hp = nn.tnn_input_1d_f32(s, 7)
            tg = nn.tnn_get_rows(s, table, ids)  # the gradient g is the result of an operator
            if layout == "fused":
                x = nn.tnn_input_2d_f32(s, 1, 37)
                targets = nn.tnn_input_1d_i32(s, 1)
                loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [tw]), targets, -1)
                nn.tnn_set_loss(loss)
                nn.tnn_build_forward_only(s, loss)
                nn.tnn_build_backward(s)
                step = nn.tnn_fused_adamw(s, tw, tg, tm, tv, hp)
                nn.tnn_extend_backward_graph(s, step)
                nn.tnn_realize_backward(s)
                nn.upload_row_major(s, x, np.ones((1, 37)))
                nn.upload_int_array(s, targets, [0])
                nn.upload_row_major(s, hp, HP.hp(3))
                nn.tnn_graph_reset_grads_only(s)
                nn.tnn_compute_backward(s)
            else:
                step = nn.tnn_opt_step_adamw(s, tw, tg, tm, tv, hp)
                nn.tnn_realize(s, step)
                nn.upload_row_major(s, hp, HP.hp(3))
                nn.tnn_compute(s)
            results.append([nn.tnn_download(s, tensor).tobytes() for tensor in (tw, tm, tv)])
    assert results[0] == results[1]
    assert results[0][0] != w.tobytes()

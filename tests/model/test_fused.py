"""The fused layout: against the float64 oracle, against the other layout, and its promises about bits."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toynn
from engines import realized, weights_of
from oracle.params import random_weights, trainable_names
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import (
    AdamW,
    FromScratch,
    LlamaSeqEngine,
    RecipeOptions,
    SessionError,
    SmolLM2Config,
    TinyNNTypeError,
    TinyNNValueError,
    TrainingBatch,
    labels,
)
from toynn import tinynn as nn
from toynn.llm.layouts import to_fused, to_per_head

F32 = npt.NDArray[np.float32]

HP = AdamW(lr=0.01, weight_decay=0.1, eps=1e-3, bias_correct=True)


@contextmanager
def engine(variant: Variant, layout: str = "fused", n_threads: int = 1, **build: Any) -> Iterator[LlamaSeqEngine]:
    """A realized engine with a training graph."""
    with realized(variant.cfg, **variant.options, layout=layout, seed=3, init_scale=1.5, n_threads=n_threads) as e:
        e.build_training_step(**build)
        yield e


def targets(variant: Variant) -> npt.NDArray[np.int32]:
    return labels.targets(variant.ids(), variant.cfg.vocab, variant.t_seq, variant.t_batch)


def load(e: LlamaSeqEngine, variant: Variant) -> dict[str, npt.NDArray[np.float64]]:
    """Uploads the oracle's random weights, and returns them by their per_head names."""
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    for name, values in to_fused({n: w.astype(np.float32) for n, w in weights.items()}, variant.cfg).items():
        e.upload_weight(name, values)
    return weights


def all_weights(e: LlamaSeqEngine) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in weights_of(e).items()}


# ---- against the oracle ----


@each_variant
def test_loss_and_every_gradient_are_the_float64_oracles(variant: Variant) -> None:
    llama = pytest.importorskip("oracle.llama")
    with engine(variant, keep_gradients=True) as e:
        weights = load(e, variant)
        want = llama.loss_and_grads(
            variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), variant.t_seq, variant.t_batch
        )
        loss, norm = e.train_step(variant.ids(), targets(variant), HP.hp(1))
        assert norm is None
        assert loss == pytest.approx(want.loss, rel=2e-6)
        got = to_per_head({name: e.gradient(name) for name in e.param_names()}, variant.cfg)
        assert set(want.grads) == set(got)
        for name, grad in want.grads.items():
            np.testing.assert_allclose(got[name], grad, rtol=0, atol=2e-5 * np.abs(grad).max(), err_msg=name)


@each_variant
def test_three_adamw_steps_are_the_float64_oracles(variant: Variant) -> None:
    llama = pytest.importorskip("oracle.llama")
    with engine(variant) as e:
        weights = load(e, variant)
        want = llama.adamw_steps(
            variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), [HP.hp(i) for i in (1, 2, 3)],
            variant.t_seq, variant.t_batch,
        )  # fmt: skip
        losses = [e.train_step(variant.ids(), targets(variant), HP.hp(i))[0] for i in (1, 2, 3)]
        np.testing.assert_allclose(losses, want.losses, rtol=5e-6)
        names = [name + moment for name in e.param_names() for moment in ("", ".m", ".v")]
        got = to_per_head({name: e.download_weight(name) for name in names}, variant.cfg)
        for name in trainable_names(variant.cfg, variant.untied, variant.qkv_bias):
            np.testing.assert_allclose(got[name], want.weights[name], rtol=0, atol=1e-5, err_msg=name)
            for moment, values in ((f"{name}.m", want.m[name]), (f"{name}.v", want.v[name])):
                bound = 1e-4 * np.abs(values).max()
                np.testing.assert_allclose(got[moment], values, rtol=0, atol=bound, err_msg=moment)


def slopes_are_the_gradients(e: LlamaSeqEngine, variant: Variant, wanted: npt.NDArray[np.int32]) -> None:
    """Finite differences of the engine itself, along each parameter's gradient."""

    def loss() -> float:
        return e.train_step(variant.ids(), wanted, HP.hp(1), update=False)[0]

    loss()
    grads = {name: e.gradient(name).astype(np.float64) for name in e.param_names()}
    for name, grad in grads.items():
        start, length = e.download_weight(name), float(np.sqrt((grad**2).sum()))
        h = 0.02 / max(1.0, length)
        ends = []
        for sign in (1, -1):
            e.upload_weight(name, start + np.float32(sign * h) * (grad / length).astype(np.float32))
            ends.append(loss())
        e.upload_weight(name, start)
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(length, rel=0.02, abs=2e-4), name


@each_variant
def test_a_gradient_is_the_slope_of_the_loss(variant: Variant) -> None:
    with engine(variant, keep_gradients=True) as e:
        load(e, variant)
        slopes_are_the_gradients(e, variant, targets(variant))


@each_variant
def test_with_ignored_targets_too_a_gradient_is_the_slope_of_the_loss(variant: Variant) -> None:
    wanted = targets(variant)
    wanted[[1, 4]] = -1
    with engine(variant, keep_gradients=True) as e:
        load(e, variant)
        slopes_are_the_gradients(e, variant, wanted)


def test_several_query_blocks_and_ragged_tiles_are_the_oracle_too() -> None:
    """T beyond a block of queries, d_head that is no multiple of the vector, rows that fill no tile."""
    llama = pytest.importorskip("oracle.llama")
    cfg = SmolLM2Config(37, 33, 4, 2, 50, 1, 256, 10000.0, 1e-5, head_dim=22)
    variant = Variant(cfg, 211, t_batch=2, untied=True, qkv_bias=True)
    with engine(variant, keep_gradients=True, n_threads=2) as e:
        weights = load(e, variant)
        want = llama.loss_and_grads(
            cfg, weights, variant.ids(), variant.positions(), variant.labels(), variant.t_seq, variant.t_batch
        )
        loss, _ = e.train_step(variant.ids(), targets(variant), HP.hp(1))
        assert loss == pytest.approx(want.loss, rel=2e-6)
        got = to_per_head({name: e.gradient(name) for name in e.param_names()}, cfg)
        for name, grad in want.grads.items():
            np.testing.assert_allclose(got[name], grad, rtol=0, atol=4e-5 * np.abs(grad).max(), err_msg=name)


# ---- against the other layout ----


@each_variant
@pytest.mark.parametrize("init_stream", ["lcg31", "xorshift64"])
def test_both_layouts_start_from_the_same_bits(variant: Variant, init_stream: str) -> None:
    start = {}
    for layout in ("per_head", "fused"):
        draws = {"seed": 3, "init_scale": 1.5, "init_stream": init_stream}
        with realized(variant.cfg, layout=layout, **variant.options, **draws) as e:
            start[layout] = weights_of(e)
    for converted, want in ((to_fused(start["per_head"], variant.cfg), start["fused"]),
                            (to_per_head(start["fused"], variant.cfg), start["per_head"])):  # fmt: skip
        assert {n: w.tobytes() for n, w in converted.items()} == {n: w.tobytes() for n, w in want.items()}


def test_weights_have_the_names_of_llama_cpp() -> None:
    with engine(VARIANTS["qkv_bias"]) as e:
        first_block = [name for name in e.weights if name.startswith("blk.0.")]
    stems = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm"]
    want = [f"blk.0.{stem}.weight" for stem in stems] + [f"blk.0.attn_{x}.bias" for x in "qkv"]
    assert sorted(first_block) == sorted(want)


def test_conversion_refuses_heads_that_are_missing_or_of_another_shape() -> None:
    variant = VARIANTS["gqa"]
    with engine(variant, "per_head") as e:
        weights = weights_of(e)
    missing = {name: values for name, values in weights.items() if name != "blk.1.attn_k.head_1.weight"}
    with pytest.raises(TinyNNValueError, match=r"blk\.1\.attn_k\.weight needs the heads 0 to 1"):
        to_fused(missing, variant.cfg)
    bent = {**weights, "blk.0.attn_q.head_2.weight": np.zeros((3, 3), dtype=np.float32)}
    with pytest.raises(TinyNNValueError, match=r"head 2 of blk\.0\.attn_q\.weight must have shape \(4, 24\)"):
        to_fused(bent, variant.cfg)
    with pytest.raises(TinyNNValueError, match=r"blk\.0\.attn_v\.weight must have shape \(8, 24\)"):
        to_per_head({"blk.0.attn_v.weight": np.zeros((9, 24), dtype=np.float32)}, variant.cfg)


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.t_batch == 1])
def test_forwards_of_both_layouts_agree_and_part_at_the_first_norm(name: str) -> None:
    """The embedding is a copy and has the same bits. The norm adds its squares in f32 lanes where ggml adds them in
    f64, and a matrix product is one chain where tinyBLAS has eight: from there on they agree within rounding."""
    variant = VARIANTS[name]
    taps, logits = {}, {}
    for layout in ("per_head", "fused"):
        with engine(variant, layout) as e:
            logits[layout] = e.forward(variant.ids(), taps=True)
            taps[layout] = {tap: e.download_tap(tap) for tap in e.taps}
    assert taps["fused"]["embed"].tobytes() == taps["per_head"]["embed"].tobytes()
    assert set(taps["per_head"]) - set(taps["fused"]) == {f"blk.{i}.ffn" for i in range(variant.cfg.n_layers)}
    for tap, values in taps["fused"].items():
        want = taps["per_head"][tap]
        np.testing.assert_allclose(values, want, rtol=0, atol=3e-6 * np.abs(want).max(), err_msg=tap)
    np.testing.assert_allclose(logits["fused"], logits["per_head"], rtol=0, atol=1e-6)


# ---- bits ----


def _fmaf() -> ctypes._NamedFuncPointer:
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    libm.fmaf.restype = ctypes.c_float
    libm.fmaf.argtypes = [ctypes.c_float] * 3
    return libm.fmaf


def linear(x: F32, ws: list[F32], biases: list[F32] | None = None, add: F32 | None = None, n_threads: int = 1) -> F32:
    """tnn_fused_linear on numpy arrays: x (rows, k), ws (m, k) -> (rows, sum of m)."""
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        arrays = [x, *ws, *(biases or []), *([add] if add is not None else [])]
        tensors = [
            nn.tnn_input_2d_f32_persistent(s, a.shape[1], a.shape[0]) if a.ndim == 2
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


def test_weights_side_by_side_are_each_the_product_of_their_own_plus_bias_plus_addend() -> None:
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
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    variant = VARIANTS[name]
    runs = []
    for n_threads in (1, 2, 3, 4):
        with engine(variant, n_threads=n_threads, clip=True, keep_gradients=True) as e:
            load(e, variant)
            steps = [e.train_step(variant.ids(), targets(variant), HP.hp(1), max_norm=0.5) for _ in range(2)]
            runs.append((steps, all_weights(e), {n: e.gradient(n).tobytes() for n in e.param_names()}))
    assert runs[0] == runs[1] == runs[2] == runs[3]


def test_a_larger_model_too_has_the_same_bits_at_any_number_of_threads() -> None:
    """Products larger than one block of any dimension, several blocks of queries."""
    cfg = SmolLM2Config(600, 400, 6, 3, 530, 1, 256, 10000.0, 1e-5, head_dim=64)
    variant = Variant(cfg, 130, t_batch=2)
    runs = []
    for n_threads in (1, 2, 3):
        with engine(variant, n_threads=n_threads) as e:
            steps = [e.train_step(variant.ids(), targets(variant), HP.hp(1)) for _ in range(2)]
            runs.append((steps, all_weights(e)))
    assert runs[0] == runs[1] == runs[2]


def test_a_token_does_not_see_those_after_it() -> None:
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
def test_what_a_graph_keeps_changes_no_bit(variant: Variant, build: dict[str, Any]) -> None:
    runs = []
    for kept in (dict[str, Any](), build):
        with engine(variant, **kept) as e:
            steps = [e.train_step(variant.ids(), targets(variant), HP.hp(i + 1))[0] for i in range(3)]
            runs.append((steps, all_weights(e)))
    assert runs[0] == runs[1]


def test_gradients_that_need_not_be_kept_share_memory() -> None:
    variant = Variant(SmolLM2Config(23, 32, 2, 2, 64, 12, 16, 10000.0, 1e-5), 4)
    sizes = {}
    for kept, build in (("neither", dict[str, Any]()), ("clip", {"clip": True}), ("pin", {"pin": True})):
        with engine(variant, **build) as e:
            sizes[kept] = nn.tnn_session_compute_nbytes(e.sess)
            weights = nn.tnn_session_weights_nbytes(e.sess)
    assert sizes["neither"] + weights / 6 < sizes["clip"] < sizes["pin"]


# ---- the loss ----


def cross_entropy(logits: F32, wanted: npt.ArrayLike, ignore_id: int = -1) -> float:
    with nn.Session(n_threads=2, oversubscribe=True) as s:
        x = nn.tnn_input_2d_f32_persistent(s, logits.shape[1], logits.shape[0])
        t = nn.tnn_input_1d_i32_persistent(s, logits.shape[0])
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, x, logits)
        nn.upload_int_array(s, t, wanted)
        loss = nn.tnn_fused_cross_entropy(s, x, t, ignore_id)
        nn.tnn_realize(s, loss)
        nn.tnn_compute(s)
        return float(nn.tnn_download(s, loss)[0])


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 40), vocab=st.integers(1, 70), scale=st.sampled_from([0.01, 1.0, 30.0, 1000.0]),
       seed=st.integers(0, 2**32 - 1))  # fmt: skip
def test_the_loss_is_the_mean_over_the_rows_that_have_a_target(rows: int, vocab: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.standard_normal((rows, vocab))).astype(np.float32)
    wanted = rng.integers(-1, vocab, rows)
    wanted[rng.integers(rows)] = rng.integers(vocab)  # one at least
    x = logits.astype(np.float64)
    top = x.max(axis=1)
    log_sum = np.log(np.exp(x - top[:, None]).sum(axis=1)) + top
    used = wanted >= 0
    want = (log_sum - x[np.arange(rows), np.maximum(wanted, 0)])[used].mean()
    assert cross_entropy(logits, wanted) == pytest.approx(want, rel=2e-6, abs=2e-6)


def test_a_logit_that_is_not_a_number_makes_the_loss_one_too() -> None:
    logits = np.zeros((3, 20), dtype=np.float32)
    for spoiled in (np.nan, np.inf):
        logits[1, 7] = spoiled
        assert math.isnan(cross_entropy(logits, [0, 1, 2]))
    logits[1, 7] = -np.inf
    assert cross_entropy(logits, [0, 1, 2]) == pytest.approx((2 * math.log(20) + math.log(19)) / 3, rel=1e-6)


# ---- the optimizer ----


def test_adamw_is_ggmls_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    w, g, m, v = (rng.standard_normal((5, 37), dtype=np.float32) for _ in range(4))
    v = np.abs(v)
    results = []
    for layout in ("ggml", "fused"):
        with nn.Session(n_threads=2, oversubscribe=True) as s:
            tw, tm, tv, ids, table = (
                nn.tnn_input_2d_f32_persistent(s, 37, 5), nn.tnn_input_2d_f32_persistent(s, 37, 5),
                nn.tnn_input_2d_f32_persistent(s, 37, 5), nn.tnn_input_1d_i32_persistent(s, 5),
                nn.tnn_input_2d_f32_persistent(s, 37, 5),
            )  # fmt: skip
            nn.tnn_finalize_weights(s)
            for tensor, values in ((tw, w), (tm, m), (tv, v), (table, g)):
                nn.upload_row_major(s, tensor, values)
            nn.upload_int_array(s, ids, range(5))
            nn.tnn_set_param(s, tw)
            hp = nn.tnn_input_1d_f32(s, 7)
            tg = nn.tnn_get_rows(s, table, ids)  # g, as a computed tensor
            if layout == "fused":
                x = nn.tnn_input_2d_f32(s, 37, 1)
                targets = nn.tnn_input_1d_i32(s, 1)
                loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [tw]), targets, -1)
                nn.tnn_set_loss(s, loss)
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


def test_the_norm_is_that_of_all_gradients_and_clipping_scales_them_to_it() -> None:
    variant = VARIANTS["everything at once"]
    with engine(variant, clip=True, keep_gradients=True) as e:
        load(e, variant)
        start = {name: e.download_weight(name) for name in e.param_names()}
        sgd = np.array(
            [[0.1, 0.0, 0.0, 1e6, 0.0, 1e6, 0.0]], dtype=np.float32
        )  # w - 0.1 g: m = g, eps swallows the root
        _, norm = e.train_step(variant.ids(), targets(variant), sgd, reset_moments=True, max_norm=0.25)
        squares = sum(float((e.gradient(name).astype(np.float64) ** 2).sum()) for name in start)
        assert norm is not None
        assert norm == pytest.approx(math.sqrt(squares), rel=1e-6)
        assert norm > 0.25
        for name, before in start.items():
            step = before.astype(np.float64) - e.download_weight(name)
            want = 0.1 * e.gradient(name).astype(np.float64) * 0.25 / norm
            np.testing.assert_allclose(step, want, rtol=0, atol=2e-7, err_msg=name)


def test_no_limit_on_the_norm_changes_no_bit_and_a_limit_above_it_neither() -> None:
    variant = VARIANTS["gqa"]
    runs = []
    for limit in (0.0, 1e9):
        with engine(variant, clip=True) as e:
            runs.append([e.train_step(variant.ids(), targets(variant), HP.hp(i), max_norm=limit) for i in (1, 2, 3)])
    with engine(variant) as e:
        plain = [e.train_step(variant.ids(), targets(variant), HP.hp(i))[0] for i in (1, 2, 3)]
    assert runs[0] == runs[1]
    assert [loss for loss, _ in runs[0]] == plain


def test_a_norm_that_is_not_finite_leaves_weights_and_moments_alone() -> None:
    variant = VARIANTS["tied"]
    with engine(variant, clip=True) as e:
        e.train_step(variant.ids(), targets(variant), HP.hp(1))
        huge = np.full_like(e.download_weight("blk.0.ffn_up.weight"), 1e38)
        e.upload_weight("blk.0.ffn_up.weight", huge)
        names = [name + moment for name in e.param_names() for moment in ("", ".m", ".v")]
        before = {name: e.download_weight(name).tobytes() for name in names}
        _, norm = e.train_step(variant.ids(), targets(variant), HP.hp(2), max_norm=1.0)
        assert norm is not None
        assert not math.isfinite(norm)
        assert before == {name: e.download_weight(name).tobytes() for name in names}


def test_accumulated_gradients_add_up_to_those_of_the_whole_batch() -> None:
    cfg = VARIANTS["gqa"].cfg
    whole, one = Variant(cfg, 7, t_batch=3), Variant(cfg, 7)
    ids = whole.ids()
    with engine(whole, keep_gradients=True) as e:
        load(e, whole)
        e.train_step(ids, targets(whole), HP.hp(1), update=False)
        want = {name: e.gradient(name) for name in e.param_names()}
    with engine(one, keep_gradients=True, clip=True) as e:
        load(e, one)
        before = all_weights(e)
        for i, part in enumerate(ids.reshape(3, 7)):
            wanted = labels.targets(part, cfg.vocab, 7, 1)
            if i == 2:
                assert all_weights(e) == before, "update=False leaves the weights"
            _, norm = e.train_step(
                part, wanted, HP.hp(1), accumulate=i > 0, update=i == 2, gradient_scale=1 / 3 if i == 2 else 1.0
            )
        assert norm == pytest.approx(math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in want.values())))
        for name, grad in want.items():
            np.testing.assert_allclose(e.gradient(name) / 3, grad, rtol=0, atol=1e-6 * np.abs(grad).max(), err_msg=name)
        assert all_weights(e) != before


def test_norms_and_biases_can_be_stepped_without_decay() -> None:
    variant = VARIANTS["qkv_bias"]
    decay_only = np.array([[0.5, 0.9, 0.9, 1e6, 0.2, 0.0, 0.0]], dtype=np.float32)  # no gradient gets through
    for decay_vectors in (True, False):
        with engine(variant, decay_vectors=decay_vectors) as e:
            load(e, variant)
            before = {name: e.download_weight(name) for name in e.param_names()}
            e.train_step(variant.ids(), targets(variant), decay_only)
            for name, start in before.items():
                decays = decay_vectors or start.ndim == 2
                want = start * np.float32(1.0 - np.float32(0.5) * np.float32(0.2)) if decays else start
                np.testing.assert_allclose(e.download_weight(name), want, rtol=1e-6, err_msg=name)


# ---- the recipe, the batch, the profile ----


def test_a_recipe_of_the_fused_layout_steps_on_targets() -> None:
    cfg = SmolLM2Config.tiny()
    batch = TrainingBatch(cfg.vocab, 8, 2)
    batch.fill(range(16))
    assert batch.targets.tolist() == [*range(1, 8), 7, *range(9, 16), 15]
    with FromScratch() as recipe:
        recipe.realize(cfg, RecipeOptions(t_seq=8, t_batch=2, layout="fused"))
        assert recipe.fs_cache.layout == "fused"
        assert recipe.fs_cache.t_seq_attn_mask is None
        losses = [
            recipe.step(batch.seq_ids, batch.positions, batch.targets, AdamW().hp(i + 1), i == 0) for i in range(5)
        ]
        assert losses[4] < losses[0]
        with pytest.raises(TinyNNValueError, match="targets"):
            recipe.step(batch.seq_ids, batch.positions, batch.targets[:-1], batch.m_hp, False)


@pytest.mark.parametrize("layout", ["per_head", "fused"])
def test_a_profiled_step_is_a_step_and_names_its_nodes(layout: str) -> None:
    cfg = SmolLM2Config.tiny()
    batch = TrainingBatch(cfg.vocab, 16)
    batch.fill(range(16))
    curves = []
    for profiled in (False, True):
        with FromScratch() as recipe:
            recipe.realize(
                cfg, RecipeOptions(t_seq=16, layout=layout, n_threads=2 if nn.tnn_available_cores() > 1 else 1)
            )
            losses = []
            for i in range(3):
                fed = batch.targets if layout == "fused" else batch.m_labels
                if profiled:
                    profile = toynn.profile(recipe, batch.seq_ids, batch.positions, fed, batch.m_hp, i == 0)
                    losses.append(profile.loss)
                else:
                    losses.append(recipe.step(batch.seq_ids, batch.positions, fed, batch.m_hp, i == 0))
            curves.append(losses)
    assert curves[0] == curves[1]
    assert profile.seconds == pytest.approx(sum(profile.by_op().values()))
    assert all(node.seconds >= 0 for node in profile.nodes)
    assert ("LINEAR" if layout == "fused" else "MUL_MAT") in profile.by_op()
    assert "logits" in profile.by_name()
    for longest in (next(iter(profile.by_op())), next(iter(profile.by_name()))):
        assert longest[:40] in str(profile)


# ---- graphs of one's own ----


def cached(s: nn.Session, table: nn.Tensor, cache: nn.Tensor, n_past: nn.Tensor) -> nn.Tensor:
    """A cached attention of one head of 8 over five tokens."""
    return nn.tnn_fused_attention_cached(s, nn.tnn_input_2d_f32(s, 24, 5), table, cache, n_past, 1, 1)


def small_graph(s: nn.Session) -> tuple[nn.Tensor, nn.Tensor, nn.Tensor]:
    """A parameter (6, 8), an input (5, 8) and targets, before any graph."""
    w = nn.tnn_input_2d_f32_persistent(s, 8, 6)
    nn.tnn_finalize_weights(s)
    nn.upload_row_major(s, w, np.linspace(-1, 1, 48).reshape(6, 8))
    nn.tnn_set_param(s, w)
    return w, nn.tnn_input_2d_f32(s, 8, 5), nn.tnn_input_1d_i32(s, 5)


def test_a_tensor_read_by_several_gets_the_sum_of_their_gradients() -> None:
    """y = x W^T feeds two SwiGLUs, an add of itself with itself and a linear; checked against finite differences."""
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_fused_linear(s, x, [w])  # ne=[6, 5]
        a, b = nn.tnn_fused_swiglu(s, y), nn.tnn_fused_swiglu(s, nn.tnn_add(s, y, y))  # ne=[3, 5]
        logits = nn.tnn_add(s, nn.tnn_add(s, a, b), nn.tnn_fused_swiglu(s, nn.tnn_fused_linear(s, x, [w], add=y)))
        loss = nn.tnn_fused_cross_entropy(s, logits, wanted, -1)
        nn.tnn_set_loss(s, loss)
        nn.tnn_set_output(s, loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, w)
        nn.tnn_set_output(s, grad)
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


def test_an_operator_without_a_derivative_is_named() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_scale(s, nn.tnn_fused_linear(s, x, [w]), 2.0)
        loss = nn.tnn_fused_cross_entropy(s, y, wanted, -1)
        nn.tnn_set_loss(s, loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match=r"SCALE.*no derivative in a fused graph"):
            nn.tnn_build_backward(s)


def test_a_fused_operator_under_ggmls_loss_is_named() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, _ = small_graph(s)
        loss = nn.tnn_sum(s, nn.tnn_fused_linear(s, x, [w]))
        nn.tnn_set_loss(s, loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match=r"LINEAR.*tnn_fused_cross_entropy"):
            nn.tnn_build_backward(s)


def test_a_cross_entropy_that_is_not_the_loss_is_refused() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_fused_linear(s, x, [w])
        first = nn.tnn_fused_cross_entropy(s, y, wanted, -1)
        wide = nn.tnn_fused_linear(s, first, [nn.tnn_input_2d_f32(s, 1, 6)])  # ne=[6, 1]
        loss = nn.tnn_fused_cross_entropy(s, wide, nn.tnn_input_1d_i32(s, 1), -1)
        nn.tnn_set_loss(s, loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(SessionError, match="cross entropy that depends on a parameter, but it is not the loss"):
            nn.tnn_build_backward(s)


def test_the_row_losses_lead_to_their_mean_only() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        inner = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), wanted, -1)
        rows = nn.tnn_tensor_src(s, inner, 0)
        assert rows is not None
        loss = nn.tnn_fused_cross_entropy(s, rows, nn.tnn_input_1d_i32(s, 1), -1)
        nn.tnn_set_loss(s, loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match="no gradient flows to it"):
            nn.tnn_build_backward(s)


def test_two_losses_are_refused() -> None:
    with nn.Session(n_threads=1) as s:
        w, x, wanted = small_graph(s)
        y = nn.tnn_fused_linear(s, x, [w])
        first, second = (nn.tnn_fused_cross_entropy(s, y, wanted, -1) for _ in range(2))
        both = nn.tnn_add(s, first, second)
        nn.tnn_set_loss(s, first)
        nn.tnn_set_loss(s, second)
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
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, None, 3, 1e4, 1.0, 1.0), TinyNNValueError, "d_head = 3"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, None, 4, -1.0, 1.0, 1.0), TinyNNValueError, "freq_base"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, x, 4, 1e4, 1.0, 1.0), TinyNNValueError, "freq_factors"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, x, None, 4, 1e4, 1.0, 1.0), TinyNNTypeError, "positions"),
        (lambda s, w, x, t: nn.tnn_fused_rope_table(s, t, None, 2**30, 1e4, 1.0, 1.0), TinyNNValueError, "table"),
        (lambda s, w, x, t: nn.tnn_fused_attention(s, x, x, 1, 1, 5), TinyNNValueError, "qkv has shape"),
        (lambda s, w, x, t: nn.tnn_fused_attention(s, x, x, 3, 2, 5), TinyNNValueError, "n_kv = 2"),
        (
            lambda s, w, x, t: nn.tnn_fused_attention(s, nn.tnn_input_2d_f32(s, 24, 5), x, 1, 1, 3),
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
        (lambda s, w, x, t: nn.tnn_fused_swiglu(s, nn.tnn_input_2d_f32(s, 3, 2)), TinyNNValueError, "gate_up"),
        (lambda s, w, x, t: nn.tnn_fused_cross_entropy(s, w, t, -1), TinyNNValueError, "targets has shape"),
        (lambda s, w, x, t: nn.tnn_fused_cross_entropy(s, x, t, 7), TinyNNValueError, "ignore_id = 7"),
        (lambda s, w, x, t: nn.tnn_fused_cross_entropy(s, x, x, -1), TinyNNTypeError, "targets has dtype f32"),
        (lambda s, w, x, t: nn.tnn_fused_adamw(s, w, w, w, w, w), SessionError, "tnn_build_backward"),
        (lambda s, w, x, t: nn.tnn_fused_grad_norm(s, [w], x), SessionError, "tnn_build_backward"),
        (lambda s, w, x, t: nn.tnn_compute_profiled(s), SessionError, "realized graph"),
    ],
)
def test_operands_that_do_not_fit_are_named(build: Any, error: type[Exception], mentions: str) -> None:
    with nn.Session(n_threads=1) as s:
        w, x, t = small_graph(s)
        with pytest.raises(error, match=mentions):
            build(s, w, x, t)
        y = nn.tnn_fused_linear(s, x, [w])  # and the graph can be gone on with
        nn.tnn_set_output(s, y)
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
def test_targets_out_of_the_vocabulary_compute_nothing(wrong: list[int], mentions: str) -> None:
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


# ---- the engine refuses ----


def test_steps_that_do_not_fit_the_graph_are_refused_and_change_nothing() -> None:
    variant = VARIANTS["tied"]
    ids, wanted, hp = variant.ids(), targets(variant), HP.hp(1)
    with engine(variant) as e:
        before = all_weights(e)
        with pytest.raises(SessionError, match="accumulate"):
            e.train_step(ids, wanted, hp, accumulate=True)
        with pytest.raises(TinyNNValueError, match="max_norm and gradient_scale need"):
            e.train_step(ids, wanted, hp, max_norm=1.0)
        with pytest.raises(TinyNNValueError, match=r"targets\[0\] is 23"):
            e.train_step(ids, [23, *wanted[1:]], hp)
        with pytest.raises(TinyNNValueError, match="targets are all -1"):
            e.train_step(ids, [-1] * len(ids), hp)
        with pytest.raises(TinyNNValueError, match="takes no one-hot labels"):
            e.train_step(ids, np.eye(7, 23, dtype=np.int64), hp)
        with pytest.raises(TinyNNTypeError, match="targets must hold integers"):
            e.train_step(ids, variant.labels(), hp)
        with pytest.raises(SessionError, match="gradients are kept only"):
            e.gradient("output_norm.weight")
        with pytest.raises(SessionError, match="taps=True"):
            e.download_tap("embed")
        assert all_weights(e) == before
    with engine(variant, keep_gradients=True) as e, pytest.raises(SessionError, match="no gradient yet"):
        e.train_step(ids, wanted, hp, accumulate=True)
    with engine(variant, clip=True) as e:
        for name, value in (("max_norm", -1.0), ("max_norm", math.nan), ("gradient_scale", 0.0)):
            with pytest.raises(TinyNNValueError, match=name):
                e.train_step(ids, wanted, hp, **{name: value})  # type: ignore[arg-type]
    with engine(variant, "per_head") as e:
        for option in ({"accumulate": True}, {"update": False}):
            with pytest.raises((SessionError, TinyNNValueError), match=next(iter(option))):
                e.train_step(ids, wanted, hp, **option)  # type: ignore[arg-type]
        for option in ({"clip": True}, {"keep_gradients": True}, {"decay_vectors": False}):
            with pytest.raises(TinyNNValueError, match=next(iter(option))):
                e.build_training_step(**option)


@pytest.mark.parametrize("weight_dtype", [nn.TNN_F16, nn.TNN_BF16])
def test_half_precision_is_refused_with_the_reason(weight_dtype: int) -> None:
    with pytest.raises(TinyNNValueError, match=rf"weight_dtype {weight_dtype}.*F32 only"):
        realized(SmolLM2Config.tiny(), weight_dtype=weight_dtype)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(TinyNNValueError, match="layout must be"):
        RecipeOptions(layout="fast")


# ---- found by trying to break it ----


@pytest.mark.parametrize("kind", ["linear", "rms_norm", "swiglu", "rows"])
def test_a_fused_operator_that_is_no_cross_entropy_cannot_be_the_loss_to_differentiate(kind: str) -> None:
    with nn.Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 2 if kind == "swiglu" else 1, 1)
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(s, w)
        if kind == "linear":
            loss: nn.Tensor | None = nn.tnn_fused_linear(s, nn.tnn_input_2d_f32(s, 1, 1), [w])
        elif kind == "rms_norm":
            loss = nn.tnn_fused_rms_norm(s, w, nn.tnn_input_1d_f32(s, 1), 1e-5)
        elif kind == "swiglu":
            loss = nn.tnn_fused_swiglu(s, w)
        else:
            loss = nn.tnn_tensor_src(s, nn.tnn_fused_cross_entropy(s, w, nn.tnn_input_1d_i32(s, 1), -1), 0)
        assert loss is not None
        nn.tnn_set_loss(s, loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match="whose loss is tnn_fused_cross_entropy"):
            nn.tnn_build_backward(s)


def two_weights_as_one(s: nn.Session, *, outputs: bool = True) -> tuple[list[nn.Tensor], nn.Tensor, nn.Tensor]:
    """logits = (x W^T) (W + V)^T; the two parameters, the targets and the loss, realized."""
    rng = np.random.default_rng(0)
    w, v, x = (nn.tnn_input_2d_f32_persistent(s, 4, rows) for rows in (4, 4, 3))
    nn.tnn_finalize_weights(s)
    for tensor, rows in ((w, 4), (v, 4), (x, 3)):
        nn.upload_row_major(s, tensor, rng.standard_normal((rows, 4)))
    nn.tnn_set_param(s, w)
    nn.tnn_set_param(s, v)
    wanted = nn.tnn_input_1d_i32(s, 3)
    h = nn.tnn_fused_linear(s, x, [w])
    loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, h, [nn.tnn_add(s, w, v)]), wanted, -1)
    nn.tnn_set_output(s, loss)
    nn.tnn_set_loss(s, loss)
    nn.tnn_build_forward_only(s, loss)
    nn.tnn_build_backward(s)
    for tensor in (w, v):
        nn.tnn_set_output(s, nn.tnn_tensor_grad(s, tensor))
    nn.tnn_realize_backward(s)
    nn.upload_int_array(s, wanted, [0, 1, 2])
    return [w, v], wanted, loss


def test_parameters_that_are_added_get_gradients_of_their_own() -> None:
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


def test_gradients_accumulate_only_where_a_kernel_can_add_to_them() -> None:
    """P is an addend: its gradient is another tensor's, written anew in each step."""
    with nn.Session(n_threads=1) as s:
        p = nn.tnn_input_2d_f32_persistent(s, 4, 3)
        w, m, v = (nn.tnn_input_2d_f32_persistent(s, 4, 5) for _ in range(3))
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(s, p)
        nn.tnn_set_param(s, w)
        wanted, ids, hp = nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_f32(s, 7)
        x = nn.tnn_add(s, p, nn.tnn_get_rows(s, w, ids))
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), wanted, -1)
        nn.tnn_set_output(s, loss)
        nn.tnn_set_loss(s, loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        for tensor in (p, w):
            nn.tnn_set_output(s, nn.tnn_tensor_grad(s, tensor))
        nn.tnn_extend_backward_graph(s, nn.tnn_fused_adamw(s, w, nn.tnn_tensor_grad(s, w), m, v, hp))
        nn.tnn_realize_backward(s)
        step = nn.TrainStep(ids, wanted, hp, loss)
        nn.tnn_train_step(s, step, [0, 1, 2], [0, 1, 2], np.zeros(7))
        with pytest.raises(SessionError, match="to accumulate, each gradient must be flagged"):
            nn.tnn_train_step(s, step, [0, 1, 2], [0, 1, 2], np.zeros(7), accumulate=True)


def test_a_step_reads_only_a_loss_and_a_norm_that_are_outputs() -> None:
    with nn.Session(n_threads=1) as s:
        w, m, v = (nn.tnn_input_2d_f32_persistent(s, 4, 5) for _ in range(3))
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(s, w)
        wanted, ids, hp = nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_f32(s, 7)
        clip = nn.tnn_input_1d_f32(s, 2)
        x = nn.tnn_get_rows(s, w, ids)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), wanted, -1)
        nn.tnn_set_loss(s, loss)
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


def test_positions_of_a_recipes_step_are_not_those_of_the_next() -> None:
    cfg = SmolLM2Config.mha(23, 12, 3, 20, 2, 16, 10000.0, 1e-5)
    still = AdamW(lr=0.0).hp(1)
    losses = []
    for between in (False, True):
        with FromScratch() as recipe:
            recipe.realize(cfg, RecipeOptions(t_seq=4, layout="fused"))
            if between:
                recipe.step([1, 2, 3, 4], [9, 3, 15, 0], [2, 3, 4, 5], still, True)
            losses.append(recipe.fs_cache.train_step([1, 2, 3, 4], [2, 3, 4, 5], still)[0])
    assert losses[0] == losses[1]


def test_a_list_that_lies_about_its_length_is_taken_by_its_items() -> None:
    class Liar(list):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 3

    with nn.Session(n_threads=1) as s:
        w, x, _ = small_graph(s)
        assert nn.tnn_tensor_ne0(s, nn.tnn_fused_linear(s, x, Liar([w]))) == 6


def test_drawing_the_weights_of_many_layers_looks_at_each_of_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work, not the seconds: the time to realize a model must grow linearly with its layers."""
    from toynn.llm import parameters
    from toynn.model.weights import weights_by_head_of

    looked = 0

    class Counted(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            nonlocal looked
            for item in super().__iter__():
                looked += 1
                yield item

    monkeypatch.setattr(parameters, "weights_by_head_of", lambda shape: Counted(weights_by_head_of(shape)))
    with realized(SmolLM2Config.mha(10, 2, 1, 2, 200, 16, 10000.0, 1e-5), layout="fused"):
        assert looked == 2 + 9 * 200


def test_more_layers_than_can_be_declared_are_refused_at_once() -> None:
    cfg = SmolLM2Config.mha(10, 2, 1, 2, 2**31 - 1, 16, 10000.0, 1e-5)
    for layout in ("per_head", "fused"):
        with pytest.raises(TinyNNValueError, match="n_layers must be at most 4096"):
            realized(cfg, layout=layout)

"""The fused layout compared with the float64 oracle and with the per_head layout."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized, weights_of
from fused_engines import HP, engine, load, targets
from oracle.params import trainable_names
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import (
    LlamaSeqEngine,
    SmolLM2Config,
    TinyNNValueError,
    build_info,
)
from toynn.llm.layouts import to_fused, to_per_head


@each_variant
def test_loss_and_every_gradient_agree_with_the_float64_oracle(variant: Variant) -> None:
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
def test_three_adamw_steps_agree_with_the_float64_oracle(variant: Variant) -> None:
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
    """Compare each gradient with the finite difference of the engine's loss in the direction of the gradient."""

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
def test_a_gradient_equals_the_finite_difference_of_the_loss(variant: Variant) -> None:
    with engine(variant, keep_gradients=True) as e:
        load(e, variant)
        slopes_are_the_gradients(e, variant, targets(variant))


@each_variant
def test_with_ignored_targets_a_gradient_equals_the_finite_difference_of_the_loss(variant: Variant) -> None:
    wanted = targets(variant)
    wanted[[1, 4]] = -1
    with engine(variant, keep_gradients=True) as e:
        load(e, variant)
        slopes_are_the_gradients(e, variant, wanted)


def test_several_query_blocks_and_partial_tiles_agree_with_the_oracle() -> None:
    """T is larger than a block of queries, d_head is not a multiple of the vector size, and rows do not fill a tile."""
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


def test_conversion_refuses_missing_heads_and_wrong_shapes() -> None:
    variant = VARIANTS["gqa"]
    with engine(variant, "per_head") as e:
        weights = weights_of(e)
    missing = {name: values for name, values in weights.items() if name != "blk.1.attn_k.head_1.weight"}
    with pytest.raises(TinyNNValueError, match=r"blk\.1\.attn_k\.weight must have the heads 0 to 1"):
        to_fused(missing, variant.cfg)
    bent = {**weights, "blk.0.attn_q.head_2.weight": np.zeros((3, 3), dtype=np.float32)}
    with pytest.raises(TinyNNValueError, match=r"head 2 of blk\.0\.attn_q\.weight must have shape \(4, 24\)"):
        to_fused(bent, variant.cfg)
    with pytest.raises(TinyNNValueError, match=r"blk\.0\.attn_v\.weight must have shape \(8, 24\)"):
        to_per_head({"blk.0.attn_v.weight": np.zeros((9, 24), dtype=np.float32)}, variant.cfg)


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.t_batch == 1])
def test_forwards_of_both_layouts_agree_and_differ_in_bits_after_the_first_norm(name: str) -> None:
    """The embedding is a copy and has the same bits.

    The fused norm sums squares in f32 lanes, and ggml sums them in f64. The fused layout adds the terms of a matrix
    product in one sequence, and tinyBLAS adds one partial sum for each lane. So after the first norm the layouts agree
    only within rounding.
    """
    variant = VARIANTS[name]
    # The largest difference is 2.0e-6 with the eight lanes of AVX2 in tinyBLAS, and 4.1e-6 with the four lanes of NEON.
    bound = 6e-6 if build_info()["profile"] == "aarch64" else 3e-6
    taps, logits = {}, {}
    for layout in ("per_head", "fused"):
        with engine(variant, layout) as e:
            logits[layout] = e.forward(variant.ids(), taps=True)
            taps[layout] = {tap: e.download_tap(tap) for tap in e.taps}
    assert taps["fused"]["embed"].tobytes() == taps["per_head"]["embed"].tobytes()
    assert set(taps["per_head"]) - set(taps["fused"]) == {f"blk.{i}.ffn" for i in range(variant.cfg.n_layers)}
    for tap, values in taps["fused"].items():
        want = taps["per_head"][tap]
        np.testing.assert_allclose(values, want, rtol=0, atol=bound * np.abs(want).max(), err_msg=tap)
    np.testing.assert_allclose(logits["fused"], logits["per_head"], rtol=0, atol=1e-6)

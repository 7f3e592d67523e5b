"""A training step of the fused layout: loss, gradient norm, accumulation, decay, recipe, profile, and errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toynn
from engines import realized
from fused_engines import F32, HP, all_weights, engine, load, targets
from oracle.variants import VARIANTS, Variant
from toynn import (
    AdamW,
    FromScratch,
    RecipeOptions,
    SessionError,
    SmolLM2Config,
    TinyNNTypeError,
    TinyNNValueError,
    TrainingBatch,
    labels,
)
from toynn import tinynn as nn


def cross_entropy(logits: F32, wanted: npt.ArrayLike, ignore_id: int = -1) -> float:
    with nn.Session(n_threads=2, oversubscribe=True) as s:
        x = nn.tnn_input_2d_f32_persistent(s, logits.shape[0], logits.shape[1])
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
def test_the_loss_is_the_mean_over_the_rows_with_a_target(rows: int, vocab: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.standard_normal((rows, vocab))).astype(np.float32)
    wanted = rng.integers(-1, vocab, rows)
    wanted[rng.integers(rows)] = rng.integers(vocab)  # at least one position has a target
    x = logits.astype(np.float64)
    top = x.max(axis=1)
    log_sum = np.log(np.exp(x - top[:, None]).sum(axis=1)) + top
    used = wanted >= 0
    want = (log_sum - x[np.arange(rows), np.maximum(wanted, 0)])[used].mean()
    assert cross_entropy(logits, wanted) == pytest.approx(want, rel=2e-6, abs=2e-6)


def test_a_nan_logit_makes_the_loss_nan() -> None:
    logits = np.zeros((3, 20), dtype=np.float32)
    for spoiled in (np.nan, np.inf):
        logits[1, 7] = spoiled
        assert math.isnan(cross_entropy(logits, [0, 1, 2]))
    logits[1, 7] = -np.inf
    assert cross_entropy(logits, [0, 1, 2]) == pytest.approx((2 * math.log(20) + math.log(19)) / 3, rel=1e-6)


def test_the_loss_and_the_norm_of_a_diverged_model_are_the_same_nan_on_every_processor() -> None:
    variant = VARIANTS["tied"]
    with engine(variant, clip=True) as e:
        load(e, variant)
        e.upload_weight("output_norm.weight", np.full(variant.cfg.d_model, 3e38, dtype=np.float32))
        loss, norm = e.train_step(variant.ids(), targets(variant), HP.hp(1))
    for value in (loss, norm):
        assert np.float32(value).view(np.uint32) == 0x7FC00000


@pytest.mark.quick
def test_clipping_scales_all_gradients_to_the_maximum_norm() -> None:
    variant = VARIANTS["everything at once"]
    with engine(variant, clip=True, keep_gradients=True) as e:
        load(e, variant)
        start = {name: e.download_weight(name) for name in e.param_names()}
        sgd = np.array(
            [[0.1, 0.0, 0.0, 1e6, 0.0, 1e6, 0.0]], dtype=np.float32
        )  # w becomes w - 0.1 g, because m = g and eps is much larger than the root of v
        _, norm = e.train_step(variant.ids(), targets(variant), sgd, reset_moments=True, max_norm=0.25)
        squares = sum(float((e.gradient(name).astype(np.float64) ** 2).sum()) for name in start)
        assert norm is not None
        assert norm == pytest.approx(math.sqrt(squares), rel=1e-6)
        assert norm > 0.25
        for name, before in start.items():
            step = before.astype(np.float64) - e.download_weight(name)
            want = 0.1 * e.gradient(name).astype(np.float64) * 0.25 / norm
            np.testing.assert_allclose(step, want, rtol=0, atol=2e-7, err_msg=name)


def test_a_maximum_norm_that_is_not_reached_changes_no_bit() -> None:
    variant = VARIANTS["gqa"]
    runs = []
    for limit in (0.0, 1e9):
        with engine(variant, clip=True) as e:
            runs.append([e.train_step(variant.ids(), targets(variant), HP.hp(i), max_norm=limit) for i in (1, 2, 3)])
    with engine(variant) as e:
        plain = [e.train_step(variant.ids(), targets(variant), HP.hp(i))[0] for i in (1, 2, 3)]
    assert runs[0] == runs[1]
    assert [loss for loss, _ in runs[0]] == plain


def test_a_norm_that_is_not_finite_changes_neither_weights_nor_moments() -> None:
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


@pytest.mark.quick
def test_accumulated_gradients_sum_to_those_of_the_whole_batch() -> None:
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
                assert all_weights(e) == before, "update=False must not change the weights"
            _, norm = e.train_step(
                part, wanted, HP.hp(1), accumulate=i > 0, update=i == 2, gradient_scale=1 / 3 if i == 2 else 1.0
            )
        assert norm == pytest.approx(math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in want.values())))
        for name, grad in want.items():
            np.testing.assert_allclose(e.gradient(name) / 3, grad, rtol=0, atol=1e-6 * np.abs(grad).max(), err_msg=name)
        assert all_weights(e) != before


def test_norms_and_biases_can_be_updated_without_weight_decay() -> None:
    variant = VARIANTS["qkv_bias"]
    decay_only = np.array(
        [[0.5, 0.9, 0.9, 1e6, 0.2, 0.0, 0.0]], dtype=np.float32
    )  # the factors of m and v are 0, so gradients have no effect
    for decay_vectors in (True, False):
        with engine(variant, decay_vectors=decay_vectors) as e:
            load(e, variant)
            before = {name: e.download_weight(name) for name in e.param_names()}
            e.train_step(variant.ids(), targets(variant), decay_only)
            for name, start in before.items():
                decays = decay_vectors or start.ndim == 2
                want = start * np.float32(1.0 - np.float32(0.5) * np.float32(0.2)) if decays else start
                np.testing.assert_allclose(e.download_weight(name), want, rtol=1e-6, err_msg=name)


@pytest.mark.quick
def test_a_recipe_of_the_fused_layout_trains_on_targets() -> None:
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
def test_a_profiled_step_gives_the_same_losses_and_the_names_of_nodes(layout: str) -> None:
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


@pytest.mark.quick
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
        with pytest.raises(TinyNNValueError, match="targets are all -100 or -1"):
            e.train_step(ids, [-1] * len(ids), hp)
        with pytest.raises(TinyNNValueError, match="takes no one-hot labels"):
            e.train_step(ids, np.eye(7, 23, dtype=np.int64), hp)
        with pytest.raises(TinyNNTypeError, match="targets must hold integers"):
            e.train_step(ids, variant.labels(), hp)
        with pytest.raises(SessionError, match="the graph does not keep the gradients"):
            e.gradient("output_norm.weight")
        with pytest.raises(SessionError, match="taps=True"):
            e.download_tap("embed")
        assert all_weights(e) == before
    with (
        engine(variant, keep_gradients=True) as e,
        pytest.raises(SessionError, match="gradients of an earlier call, but there are none"),
    ):
        e.train_step(ids, wanted, hp, accumulate=True)
    with engine(variant, clip=True) as e:
        for name, value in (("max_norm", -1.0), ("max_norm", math.nan), ("gradient_scale", 0.0)):
            with pytest.raises(TinyNNValueError, match=name):
                e.train_step(ids, wanted, hp, **{name: value})  # type: ignore[arg-type]
    with engine(variant, "per_head") as e:
        for option in ({"accumulate": True}, {"update": False}):
            with pytest.raises((SessionError, TinyNNValueError), match=next(iter(option))):
                e.train_step(ids, wanted, hp, **option)  # type: ignore[arg-type]
        builds: tuple[dict[str, Any], ...] = ({"clip": True}, {"keep_gradients": True}, {"decay_vectors": False})
        for build in builds:
            with pytest.raises(TinyNNValueError, match=next(iter(build))):
                e.build_training_step(**build)


@pytest.mark.parametrize("weight_dtype", [nn.TNN_F16, nn.TNN_BF16])
def test_half_precision_is_refused_with_the_reason(weight_dtype: int) -> None:
    with pytest.raises(TinyNNValueError, match=rf"weight_dtype must be 0 .*F32 only, got {weight_dtype}"):
        realized(SmolLM2Config.tiny(), weight_dtype=weight_dtype)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(TinyNNValueError, match="layout must be"):
        RecipeOptions(layout="fast")


def test_positions_of_a_recipe_step_do_not_affect_the_next_step() -> None:
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


def test_drawing_the_weights_of_many_layers_reads_each_of_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to realize a model must grow linearly with its layers. The test counts the work, not the seconds."""
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


def test_too_many_layers_are_refused_at_once() -> None:
    cfg = SmolLM2Config.mha(10, 2, 1, 2, 2**31 - 1, 16, 10000.0, 1e-5)
    for layout in ("per_head", "fused"):
        with pytest.raises(TinyNNValueError, match="n_layers must be at most 4096"):
            realized(cfg, layout=layout)

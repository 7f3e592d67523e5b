"""FromScratch: gradients and steps compared with the float64 oracle, states, and values that a step must not change."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from oracle.params import random_weights
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import (
    AdamW,
    FromScratch,
    RecipeOptions,
    SessionError,
    SmolLM2Config,
    TinyNNMemoryError,
    TinyNNValueError,
    TrainingBatch,
)
from toynn import tinynn as nn


def options(variant: Variant, **changes: object) -> RecipeOptions:
    return RecipeOptions(**variant.options, n_threads=1, **changes)  # type: ignore[arg-type]


def steps(recipe: FromScratch, variant: Variant, n: int, adamw: AdamW | None = None) -> list[float]:
    adamw = adamw or AdamW()
    return [
        recipe.step(variant.ids(), variant.positions(), variant.labels(), adamw.hp(i + 1), i == 0) for i in range(n)
    ]


@pytest.fixture
def recipe() -> Iterator[FromScratch]:
    with FromScratch() as recipe:
        yield recipe


# ---- against the oracle ----


@each_variant
def test_loss_and_every_gradient_agree_with_the_float64_oracle(variant: Variant) -> None:
    llama = pytest.importorskip("oracle.llama")
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    want = llama.loss_and_grads(
        variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), variant.t_seq, variant.t_batch
    )
    with FromScratch(pin=True) as recipe:
        recipe.realize(variant.cfg, options(variant))
        for name, values in weights.items():
            recipe.fs_cache.upload_weight(name, values)
        (loss,) = steps(recipe, variant, 1)
        assert loss == pytest.approx(want.loss, rel=2e-6)
        assert set(want.grads) == set(recipe.fs_cache.param_names())
        for name, grad in want.grads.items():
            got = recipe.fs_cache.gradient(name)
            np.testing.assert_allclose(got, grad, rtol=0, atol=2e-5 * np.abs(grad).max(), err_msg=name)


@each_variant
@pytest.mark.parametrize("bias_correct", [False, True])
def test_three_adamw_steps_agree_with_the_float64_oracle(variant: Variant, bias_correct: bool) -> None:
    llama = pytest.importorskip("oracle.llama")
    adamw = AdamW(lr=0.01, weight_decay=0.1, eps=1e-3, bias_correct=bias_correct)
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    want = llama.adamw_steps(
        variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), [adamw.hp(i) for i in (1, 2, 3)],
        variant.t_seq, variant.t_batch,
    )  # fmt: skip
    with FromScratch() as recipe:
        recipe.realize(variant.cfg, options(variant))
        engine = recipe.fs_cache
        for name, values in weights.items():
            engine.upload_weight(name, values)
        losses = steps(recipe, variant, 3, adamw)
        np.testing.assert_allclose(losses, want.losses, rtol=5e-6)
        for name in engine.param_names():
            np.testing.assert_allclose(
                engine.download_weight(name), want.weights[name], rtol=0, atol=1e-5, err_msg=name
            )
            for moment, values in ((f"{name}.m", want.m[name]), (f"{name}.v", want.v[name])):
                bound = 1e-4 * np.abs(values).max()
                np.testing.assert_allclose(engine.download_weight(moment), values, rtol=0, atol=bound, err_msg=moment)


@each_variant
def test_pinning_changes_no_bit(variant: Variant) -> None:
    curves = []
    for pin in (False, True):
        with FromScratch(pin=pin) as recipe:
            recipe.realize(variant.cfg, options(variant))
            curves.append([loss.hex() for loss in steps(recipe, variant, 4)])
    assert curves[0] == curves[1]
    assert float.fromhex(curves[0][-1]) < float.fromhex(curves[0][0])


# ---- the effects of a step ----


def test_only_the_first_step_clears_the_moments(recipe: FromScratch) -> None:
    variant = VARIANTS["tied"]
    recipe.realize(variant.cfg, options(variant))
    first = steps(recipe, variant, 3)
    start = {name: recipe.fs_cache.download_weight(name) for name in recipe.fs_cache.weights}
    moment = recipe.fs_cache.download_weight("output_norm.weight.m")
    assert moment.any()
    still = np.array([[0, 0.5, 0.5, 1e-8, 0, 1, 1]], dtype=np.float32)  # the learning rate is 0
    recipe.step(variant.ids(), variant.positions(), variant.labels(), still, True)
    after_first = recipe.fs_cache.download_weight("output_norm.weight.m")
    recipe.step(variant.ids(), variant.positions(), variant.labels(), still, False)
    after_second = recipe.fs_cache.download_weight("output_norm.weight.m")
    np.testing.assert_allclose(after_second, 1.5 * after_first, rtol=1e-6)  # the moment is g/2, then g/4 + g/2
    for name, values in start.items():
        np.testing.assert_array_equal(values, recipe.fs_cache.download_weight(name))
    assert first[0] > first[-1]


def test_the_embedding_of_a_donor_never_changes(recipe: FromScratch) -> None:
    variant = VARIANTS["projection lens"]
    recipe.realize(variant.cfg, options(variant))
    before = recipe.fs_cache.download_weight("token_embd.weight")
    lens = recipe.fs_cache.download_weight("lens.proj.weight")
    steps(recipe, variant, 3)
    np.testing.assert_array_equal(before, recipe.fs_cache.download_weight("token_embd.weight"))
    assert not np.array_equal(lens, recipe.fs_cache.download_weight("lens.proj.weight"))


def test_a_row_of_zero_labels_is_accepted(recipe: FromScratch) -> None:
    variant = VARIANTS["tied"]
    recipe.realize(variant.cfg, options(variant))
    labels = variant.labels()
    whole = recipe.step(variant.ids(), variant.positions(), labels, AdamW(lr=0).hp(1), True)
    labels[3] = 0
    part = recipe.step(variant.ids(), variant.positions(), labels, AdamW(lr=0).hp(1), True)
    assert 0 < part < whole


def test_a_step_accepts_the_arrays_of_a_training_batch(recipe: FromScratch) -> None:
    cfg = SmolLM2Config.tiny()
    recipe.realize(cfg, RecipeOptions(t_seq=8, t_batch=2, n_threads=1))
    batch = TrainingBatch(cfg.vocab, 8, 2)
    losses = []
    for i in range(3):
        batch.fill(range(100, 116), AdamW().hp(i + 1))
        losses.append(recipe.step(batch.seq_ids, batch.positions, batch.m_labels, batch.m_hp, i == 0))
    assert losses[0] == pytest.approx(math.log(cfg.vocab), abs=0.1)
    assert losses[0] > losses[1] > losses[2]
    assert isinstance(losses[0], float)
    assert float(np.float32(losses[0])) == losses[0]


def test_logits_of_a_step_are_those_before_the_update(recipe: FromScratch) -> None:
    variant = VARIANTS["tied"]
    recipe.realize(variant.cfg, options(variant))
    before = recipe.fs_cache.forward(variant.ids())
    recipe.build_training_step()
    steps(recipe, variant, 1)
    np.testing.assert_array_equal(before, recipe.fs_cache.download_tap("logits"))
    assert not np.array_equal(before, recipe.fs_cache.forward(variant.ids()))


def test_uploaded_inputs_stay_from_step_to_step(recipe: FromScratch) -> None:
    variant = VARIANTS["everything at once"]
    recipe.realize(variant.cfg, options(variant))
    s = recipe.fs_cache.sess
    loss = recipe.step(variant.ids(), variant.positions(), variant.labels(), AdamW(lr=0).hp(1), True)
    assert recipe.fs_t_loss is not None
    for _ in range(3):
        nn.tnn_graph_reset_grads_only(s)
        nn.tnn_compute_backward(s)
        assert nn.tnn_download(s, recipe.fs_t_loss)[0] == loss


# ---- lifetime ----


def test_attributes_have_values_only_after_realize(recipe: FromScratch) -> None:
    assert (recipe.fs_t_loss, recipe.fs_t_labels, recipe.fs_t_hp, recipe.fs_step_index) == (None, None, None, 0)
    variant = VARIANTS["tied"]
    assert recipe.realize(variant.cfg, options(variant)) is None  # type: ignore[func-returns-value]
    assert recipe.fs_t_loss is not None and recipe.fs_t_loss.ne == (1, 1, 1, 1)
    assert recipe.fs_t_labels is not None and recipe.fs_t_labels.ne == (23, 7, 1, 1)
    assert recipe.fs_t_hp is not None and recipe.fs_t_hp.ne == (7, 1, 1, 1)
    assert recipe.fs_cache.seq_t == 7
    assert recipe.fs_cache.seq_b == 1
    assert recipe.fs_step_index == 0
    recipe.close()
    assert recipe.fs_t_loss is None


def test_training_continues_after_a_forward_and_a_rebuild(recipe: FromScratch) -> None:
    variant = VARIANTS["untied"]
    with FromScratch() as undisturbed:
        undisturbed.realize(variant.cfg, options(variant))
        want = steps(undisturbed, variant, 4)
    recipe.realize(variant.cfg, options(variant))
    got = steps(recipe, variant, 2)
    recipe.fs_cache.forward(variant.ids())
    with pytest.raises(SessionError, match="build_training_step"):
        steps(recipe, variant, 1)
    recipe.build_training_step()
    for i in (2, 3):
        got.append(recipe.step(variant.ids(), variant.positions(), variant.labels(), AdamW().hp(i + 1), False))
    assert got == want


def test_a_closed_recipe_can_be_realized_again_with_the_same_weights(recipe: FromScratch) -> None:
    variant = VARIANTS["tied"]
    curves = []
    for _ in range(2):
        recipe.realize(variant.cfg, options(variant))
        curves.append(steps(recipe, variant, 3))
        recipe.close()
        recipe.close()
    assert curves[0] == curves[1]
    with pytest.raises(SessionError, match="realize"):
        steps(recipe, variant, 1)


def test_a_second_realize_is_refused_and_training_continues(recipe: FromScratch) -> None:
    variant = VARIANTS["tied"]
    recipe.realize(variant.cfg, options(variant))
    with pytest.raises(SessionError, match="new recipe"):
        recipe.realize(variant.cfg, options(variant))
    assert len(steps(recipe, variant, 2)) == 2


def test_after_a_failed_realize_the_recipe_can_be_realized(
    recipe: FromScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = VARIANTS["tied"]

    def fail(*_: object, **__: object) -> None:
        raise TinyNNMemoryError("no memory for the graph")

    with monkeypatch.context() as patch:
        patch.setattr("toynn.llm.layout.tnn_realize_backward", fail)
        with pytest.raises(TinyNNMemoryError):
            recipe.realize(variant.cfg, options(variant))
    assert not recipe.fs_cache.realized
    recipe.realize(variant.cfg, options(variant))
    assert len(steps(recipe, variant, 1)) == 1


def test_gradients_need_a_pinned_graph(recipe: FromScratch) -> None:
    variant = VARIANTS["tied"]
    recipe.realize(variant.cfg, options(variant))
    steps(recipe, variant, 1)
    with pytest.raises(SessionError, match="pin=True"):
        recipe.fs_cache.gradient("output_norm.weight")
    with pytest.raises(TinyNNValueError, match="nonsense"):
        recipe.fs_cache.gradient("nonsense")


def test_losses_that_are_not_finite_are_returned(recipe: FromScratch) -> None:
    variant = VARIANTS["tied"]
    recipe.realize(variant.cfg, options(variant))
    wild = np.array([[1e30, 0.9, 0.95, 1e-8, 0, 0.9, 0.95]], dtype=np.float32)
    losses = [recipe.step(variant.ids(), variant.positions(), variant.labels(), wild, i == 0) for i in range(3)]
    assert math.isfinite(losses[0])
    assert not math.isfinite(losses[-1])

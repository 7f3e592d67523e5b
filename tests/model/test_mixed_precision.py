"""Mixed precision: all weights are F32, and the graph rounds the matrices of the layers to F16 or BF16."""

from __future__ import annotations

import numpy as np
import pytest

from curves import SMOKE_IDS
from oracle.params import random_weights
from oracle.variants import VARIANTS, Variant
from toynn import AdamW, FromScratch, RecipeOptions, SmolLM2Config, TrainingBatch
from toynn import tinynn as nn

each_dtype = pytest.mark.parametrize("weight_dtype", [nn.TNN_F16, nn.TNN_BF16], ids=["f16", "bf16"])
each_case = pytest.mark.parametrize("name", ["tied", "qkv_bias", "everything at once"])

# Allowed relative difference from the oracle. The value of a node in f32 and its value in the oracle can be rounded to
# two different f16 or bf16 numbers.
CLOSE = {nn.TNN_F16: 2e-3, nn.TNN_BF16: 1.5e-2}


def realized(variant: Variant, weight_dtype: int, pin: bool = False) -> tuple[FromScratch, dict[str, np.ndarray]]:
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    recipe = FromScratch(pin=pin)
    recipe.realize(variant.cfg, RecipeOptions(**variant.options, weight_dtype=weight_dtype, n_threads=1))
    for name, values in weights.items():
        recipe.fs_cache.upload_weight(name, values)
    return recipe, weights


def torch_dtype(weight_dtype: int) -> object:
    torch = pytest.importorskip("torch")
    return {nn.TNN_F16: torch.float16, nn.TNN_BF16: torch.bfloat16}[weight_dtype]


@each_case
@each_dtype
def test_loss_and_every_gradient_agree_with_the_float64_oracle(name: str, weight_dtype: int) -> None:
    llama = pytest.importorskip("oracle.llama")
    variant = VARIANTS[name]
    recipe, weights = realized(variant, weight_dtype, pin=True)
    args = (variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), variant.t_seq, variant.t_batch)
    want, exact = (llama.loss_and_grads(*args, rounded=dtype) for dtype in (torch_dtype(weight_dtype), None))
    with recipe:
        loss = recipe.step(variant.ids(), variant.positions(), variant.labels(), AdamW().hp(1), True)
        assert loss == pytest.approx(want.loss, rel=CLOSE[weight_dtype] / 10)
        assert abs(loss - want.loss) < abs(exact.loss - want.loss)  # the rounding changes the loss visibly
        for key, grad in want.grads.items():
            bound = CLOSE[weight_dtype] * np.abs(grad).max()
            np.testing.assert_allclose(recipe.fs_cache.gradient(key), grad, rtol=0, atol=bound, err_msg=key)


@each_dtype
def test_the_weights_and_their_moments_are_float32(weight_dtype: int) -> None:
    variant = VARIANTS["everything at once"]
    recipe, weights = realized(variant, weight_dtype)
    with recipe:
        engine = recipe.fs_cache
        assert {nn.tnn_tensor_dtype(one) for one in engine.weights.values()} == {nn.TNN_F32}
        for name, values in weights.items():
            np.testing.assert_array_equal(engine.download_weight(name), values.astype(np.float32))
        before = {name: engine.download_weight(name) for name in engine.weights}
        # with this rate, an update is smaller than the distance of two neighbouring F16 or BF16 numbers
        tiny = AdamW(lr=1e-6)
        recipe.step(variant.ids(), variant.positions(), variant.labels(), tiny.hp(1), True)
        for name in engine.param_names():
            assert not np.array_equal(engine.download_weight(name), before[name]), name


@each_dtype
def test_exactly_the_matrices_of_the_layers_are_rounded(weight_dtype: int) -> None:
    variant = VARIANTS["everything at once"]
    recipe, _ = realized(variant, weight_dtype)
    with recipe:
        s, cast = recipe.fs_cache.sess, set()
        for i in range(nn.tnn_graph_n_nodes(s)):
            node = nn.tnn_graph_node(s, i)
            if nn.tnn_tensor_dtype(node) == weight_dtype and nn.tnn_tensor_op_name(node) == "CPY":
                source = nn.tnn_tensor_src(node, 0)
                assert source is not None
                cast.add(source.name)
        weights = recipe.fs_cache.weights
        assert cast == {name for name in weights if name.startswith("blk.") and weights[name].ne[1] > 1}


def final_loss(weight_dtype: int) -> float:
    """Return the loss of step 60 of the tiny model with seed 42, on the sentence of the smoke test."""
    cfg = SmolLM2Config.tiny()
    batch = TrainingBatch(cfg.vocab, 32)
    with FromScratch() as recipe:
        recipe.realize(cfg, RecipeOptions(t_seq=32, untied=True, seed=42, weight_dtype=weight_dtype))
        for step in range(1, 61):
            batch.fill(SMOKE_IDS, AdamW().hp(step))
            loss = recipe.step(batch.seq_ids, batch.positions, batch.m_labels, batch.m_hp, step == 1)
    return loss


@each_dtype
def test_after_60_steps_the_loss_is_within_5_percent_of_f32(weight_dtype: int) -> None:
    f32, half = final_loss(nn.TNN_F32), final_loss(weight_dtype)
    assert half != f32
    assert abs(half / f32 - 1) < 0.05
    assert f32 < 2

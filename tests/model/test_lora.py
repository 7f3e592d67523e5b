"""LoRA: adapters of the query heads agree with the float64 oracle, start as specified, and leave the base unchanged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from oracle.variants import Variant
from toynn import AdamW, LlamaSeqEngine, LoRA, RecipeOptions, SessionError, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn
from tuned_models import BASES, base_of, hashes, random_adapters

RANK = 2

each_base = pytest.mark.parametrize("variant", BASES.values(), ids=BASES.keys())


def options(variant: Variant, **changes: object) -> RecipeOptions:
    return RecipeOptions(**{**variant.options, "n_threads": 1, "init_scale": 0.01, **changes})


def steps(recipe: LoRA, variant: Variant, n: int, adamw: AdamW) -> list[float]:
    return [
        recipe.step(variant.ids(), variant.positions(), variant.labels(), adamw.hp(i + 1), i == 0) for i in range(n)
    ]


@pytest.fixture
def recipe() -> Iterator[LoRA]:
    with LoRA() as recipe:
        yield recipe


# ---- against the oracle ----


@each_base
def test_loss_and_the_gradients_of_a_and_b_agree_with_the_float64_oracle(variant: Variant) -> None:
    llama = pytest.importorskip("oracle.llama")
    model, weights = base_of(variant)
    adapters = random_adapters(weights, RANK)
    want = llama.loss_and_grads(
        variant.cfg, {**weights, **adapters}, variant.ids(), variant.positions(), variant.labels(), variant.t_seq,
        variant.t_batch, trained=set(adapters),
    )  # fmt: skip
    with LoRA(pin=True) as recipe:
        recipe.realize(model, model.shape, RANK, options(variant))
        engine = recipe.lora_cache
        for name, values in adapters.items():
            engine.upload_weight(name, values)
        (loss,) = steps(recipe, variant, 1, AdamW())
        assert loss == pytest.approx(want.loss, rel=2e-6)
        assert set(engine.param_names()) == set(want.grads) == set(adapters)
        for name, grad in want.grads.items():
            np.testing.assert_allclose(
                engine.gradient(name), grad, rtol=0, atol=2e-5 * np.abs(grad).max(), err_msg=name
            )


@each_base
def test_three_steps_agree_with_the_float64_oracle(variant: Variant) -> None:
    llama = pytest.importorskip("oracle.llama")
    model, weights = base_of(variant)
    adapters = random_adapters(weights, RANK)
    adamw = AdamW(lr=0.01, beta2=0.999, weight_decay=0.1, eps=1e-3, bias_correct=True)
    want = llama.adamw_steps(
        variant.cfg, {**weights, **adapters}, variant.ids(), variant.positions(), variant.labels(),
        [adamw.hp(i) for i in (1, 2, 3)], variant.t_seq, variant.t_batch, trained=set(adapters),
    )  # fmt: skip
    with LoRA() as recipe:
        recipe.realize(model, model.shape, RANK, options(variant))
        for name, values in adapters.items():
            recipe.lora_cache.upload_weight(name, values)
        np.testing.assert_allclose(steps(recipe, variant, 3, adamw), want.losses, rtol=5e-6)
        for name in adapters:
            for which, values in ((name, want.weights[name]), (f"{name}.m", want.m[name]), (f"{name}.v", want.v[name])):
                bound = 1e-4 * np.abs(values).max()
                got = recipe.lora_cache.download_weight(which)
                np.testing.assert_allclose(got, values, rtol=0, atol=bound, err_msg=which)


def test_a_gradient_equals_a_finite_difference() -> None:
    variant = BASES["llama3 rope"]
    model, weights = base_of(variant)
    adapters = random_adapters(weights, RANK)
    with LoRA(pin=True) as recipe:
        recipe.realize(model, model.shape, RANK, options(variant))
        engine = recipe.lora_cache
        for name, values in adapters.items():
            engine.upload_weight(name, values)
        steps(recipe, variant, 1, AdamW(lr=0))
        grads = {name: engine.gradient(name).astype(np.float64) for name in adapters}
        size = math.sqrt(sum(float((grad**2).sum()) for grad in grads.values()))
        step, sides = 5e-3, []
        for sign in (-1, 1):  # the finite difference is in the direction of the gradient of all adapters together
            for name, values in adapters.items():
                engine.upload_weight(name, values + sign * step / size * grads[name])
            sides.append(engine.mean_loss(variant.ids(), variant.labels()))
        assert (sides[1] - sides[0]) / (2 * step) == pytest.approx(size, rel=2e-3)


# ---- initial values ----


def scalar_start(seed: int, scale: float, n: int) -> list[float]:
    """Return the first n values of the random stream of A, drawn one by one as the specification says."""
    s, values = seed, []
    for _ in range(n):
        u = []
        for _ in range(2):
            s = (s * 1103515245 + 12345) & 0x7FFFFFFF
            u.append((s + 1) / 2**31)
        values.append(scale * math.sqrt(-2 * math.log(u[0])) * math.cos(2 * math.pi * u[1]))
    return values


@pytest.mark.parametrize(("seed", "scale"), [(42, 0.01), (0, 1.0), (-3, 0.5), (2**40 + 5, 0.25)])
def test_the_matrices_a_start_with_one_random_stream_and_the_matrices_b_with_zeros(
    recipe: LoRA, seed: int, scale: float
) -> None:
    variant = BASES["gqa, head_dim of its own"]
    model, _ = base_of(variant)
    recipe.realize(model, model.shape, 3, options(variant, seed=seed, init_scale=scale))
    engine = recipe.lora_cache
    names = [f"blk.{i}.attn_q.head_{h}.lora_a.weight" for i in range(2) for h in range(4)]
    drawn = np.concatenate([engine.download_weight(name).ravel() for name in names])
    assert engine.download_weight(names[0]).shape == (3, 14)
    want = np.array(scalar_start(seed, scale, drawn.size)).astype(np.float32)
    assert drawn.tobytes() == want.tobytes()
    for name in names:
        b = engine.download_weight(name.replace("lora_a", "lora_b"))
        assert b.shape == (6, 3)
        assert not b.any()


def test_before_the_first_step_the_logits_are_those_of_the_base(recipe: LoRA) -> None:
    variant = BASES["tied"]
    model, _ = base_of(variant)
    recipe.realize(model, model.shape, RANK, options(variant))
    with LlamaSeqEngine() as plain:
        plain.realize_for_q8_copy(model, model.shape, variant.t_seq, False, False, n_threads=1)
        assert plain.param_names() == []
        np.testing.assert_array_equal(recipe.lora_cache.forward(variant.ids()), plain.forward(variant.ids()))
        with pytest.raises(TinyNNValueError, match="no weight of the model is trained: before the model is realized"):
            plain.build_training_step()


# ---- the frozen base ----


@each_base
def test_training_changes_the_adapters_and_no_byte_of_the_base(variant: Variant, recipe: LoRA) -> None:
    model, weights = base_of(variant)
    recipe.realize(model, model.shape, RANK, options(variant))
    engine = recipe.lora_cache
    before = hashes(engine)
    losses = steps(recipe, variant, 3, AdamW(lr=0.01))
    after = hashes(engine)
    assert losses[2] < losses[0]
    assert {name for name in before if before[name] != after[name]} == set(engine.param_names())
    assert set(weights) == set(before) - set(engine.param_names())
    for name in weights:
        with pytest.raises(TinyNNValueError, match="must be the name of a weight or of its moment"):
            engine.download_weight(f"{name}.m")


def test_adapters_are_stepped_layer_by_layer_and_head_by_head_first_a_then_b(recipe: LoRA) -> None:
    variant = BASES["gqa"]
    model, _ = base_of(variant)
    recipe.realize(model, model.shape, RANK, options(variant))
    s = recipe.lora_cache.sess
    stepped = []
    for i in range(nn.tnn_graph_n_nodes(s)):
        node = nn.tnn_graph_node(s, i)
        if nn.tnn_tensor_op_name(node) == "OPT_STEP_ADAMW":
            weight = nn.tnn_tensor_src(node, 0)
            assert weight is not None
            stepped.append(weight.name)
    assert stepped == [
        f"blk.{i}.attn_q.head_{h}.{part}.weight" for i in range(2) for h in range(6) for part in ("lora_a", "lora_b")
    ]


# ---- attributes and states ----


def test_attributes_have_values_only_after_realize(recipe: LoRA) -> None:
    assert (recipe.lora_t_loss, recipe.lora_t_labels, recipe.lora_t_hp, recipe.lora_step_index) == (None, None, None, 0)
    variant = BASES["tied"]
    model, _ = base_of(variant)
    assert recipe.realize(model, variant.cfg, RANK, options(variant)) is None  # type: ignore[func-returns-value]
    assert recipe.lora_t_loss is not None and recipe.lora_t_loss.ne == (1, 1, 1, 1)
    assert recipe.lora_t_labels is not None and recipe.lora_t_labels.ne == (23, 7, 1, 1)
    assert recipe.lora_t_hp is not None and recipe.lora_t_hp.ne == (7, 1, 1, 1)
    with pytest.raises(SessionError, match="already realized"):
        recipe.realize(model, variant.cfg, RANK, options(variant))
    recipe.close()
    assert recipe.lora_t_loss is None
    with pytest.raises(SessionError, match=r"call realize\(gguf_handle, cfg, rank, opts\) first"):
        steps(recipe, variant, 1, AdamW())
    recipe.realize(model, variant.cfg, RANK + 1, options(variant))
    assert recipe.lora_cache.download_weight("blk.0.attn_q.head_0.lora_a.weight").shape == (3, 12)


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (0, TinyNNValueError, "rank must be an integer from 1"),
        (-1, TinyNNValueError, "rank must be an integer from 1"),
        (5, TinyNNValueError, "rank must be from 1 to head_dim = 4, got 5"),
        (1.5, TinyNNTypeError, "rank must be an integer"),
    ],
)
def test_a_wrong_rank_is_refused(recipe: LoRA, rank: int, error: type[Exception], message: str) -> None:
    variant = BASES["tied"]
    model, _ = base_of(variant)
    with pytest.raises(error, match=message):
        recipe.realize(model, variant.cfg, rank, options(variant))
    recipe.realize(model, variant.cfg, RANK, options(variant))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab": 24}, "vocab must be 23, as in the base, got 24"),
        ({"d_model": 15, "head_dim": 4}, "d_model must be 12"),
        # the weights of both bases have the same sizes
        ({"n_heads": 6, "n_kv": 6, "head_dim": 2}, "n_heads must be 3"),
        ({"n_layers": 3}, "n_layers must be 2"),
        ({"rope_base": 500.0}, "rope_base must be 10000.0"),
        ({"donor_d_in": 4}, "donor_d_in"),
    ],
)
def test_a_base_of_another_shape_is_refused(recipe: LoRA, changes: dict[str, object], message: str) -> None:
    variant = BASES["tied"]
    model, _ = base_of(variant)
    with pytest.raises(TinyNNValueError, match=message):
        recipe.realize(model, dataclasses.replace(variant.cfg, **changes), RANK, options(variant))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"untied": True}, "untied must be False, as in the base, got True"),
        ({"qkv_bias": True}, "qkv_bias must be False"),
        ({"weight_dtype": 1}, "weight_dtype must be 0, because a base keeps its types, got 1"),
        ({"layout": "fused"}, 'layout must be "per_head", the only layout that this recipe supports'),
    ],
)
def test_options_that_a_base_does_not_have_are_refused(recipe: LoRA, changes: dict[str, object], message: str) -> None:
    variant = BASES["tied"]
    model, _ = base_of(variant)
    with pytest.raises(TinyNNValueError, match=message):
        recipe.realize(model, variant.cfg, RANK, options(variant, **changes))


def test_a_value_that_is_not_a_base_is_refused(recipe: LoRA) -> None:
    variant = BASES["tied"]
    with pytest.raises(TinyNNTypeError, match=r"gguf must be .*, got dict"):
        recipe.realize({}, variant.cfg, RANK, options(variant))


# ---- adapters in the engine ----


def test_adapters_that_are_not_trained_are_part_of_the_model() -> None:
    variant = BASES["qkv_bias"]
    model, weights = base_of(variant)
    adapters = random_adapters(weights, RANK)
    llama = pytest.importorskip("oracle.llama")
    want = llama.loss_and_grads(
        variant.cfg, {**weights, **adapters}, variant.ids(), variant.positions(), variant.labels(), variant.t_seq, 1
    )
    with LlamaSeqEngine() as engine:
        engine.enable_lora_q(RANK)
        engine.realize_for_q8_copy(model, variant.cfg, variant.t_seq, False, True, n_threads=1)
        assert engine.param_names() == []
        for name, values in adapters.items():
            engine.upload_weight(name, values)
        np.testing.assert_allclose(engine.forward(variant.ids()), want.logits, rtol=0, atol=2e-5)


def test_adapters_are_moved_to_another_model_on_the_same_base(recipe: LoRA) -> None:
    variant = BASES["gqa"]
    model, _ = base_of(variant)
    recipe.realize(model, variant.cfg, RANK, options(variant))
    steps(recipe, variant, 3, AdamW(lr=0.01))
    trained, logits = recipe.lora_cache.download_lora_q(), recipe.lora_cache.forward(variant.ids())
    assert list(trained) == recipe.lora_cache.param_names()
    with LlamaSeqEngine() as engine:
        engine.enable_lora_q(RANK)
        engine.realize_for_q8_copy(model, variant.cfg, variant.t_seq, False, False, n_threads=1)
        engine.upload_lora_q(trained)
        np.testing.assert_array_equal(engine.forward(variant.ids()), logits)


@pytest.mark.parametrize(
    ("other", "rank", "message"),
    [
        ("tied", RANK, r"but 'blk\.0\.attn_q\.head_2.* is unknown"),
        ("gqa", RANK, r"but .* is unknown"),
        ("llama3 rope", RANK + 1, r"lora_a\.weight must have shape \(2, 20\), got \(3, 20\): .*another rank"),
    ],
)
def test_an_adapter_of_another_base_is_refused_and_changes_nothing(
    recipe: LoRA, other: str, rank: int, message: str
) -> None:
    variant = BASES["llama3 rope"]  # this model has 2 heads
    model, _ = base_of(variant)
    recipe.realize(model, variant.cfg, RANK, options(variant))
    before = recipe.lora_cache.download_lora_q()
    another, _ = base_of(BASES[other])
    with LlamaSeqEngine() as engine:
        engine.enable_lora_q(rank)
        engine.realize_for_q8_copy(another, another.shape, 4, another.shape.untied, False, n_threads=1)
        adapters = engine.download_lora_q()
    with pytest.raises(TinyNNValueError, match=message):
        recipe.lora_cache.upload_lora_q(adapters)
    wrong = {name: values * np.nan for name, values in before.items()}
    with pytest.raises(TinyNNValueError, match="must contain only finite numbers"):
        recipe.lora_cache.upload_lora_q(wrong)
    for name, values in recipe.lora_cache.download_lora_q().items():
        np.testing.assert_array_equal(values, before[name])


def test_the_engine_refuses_calls_in_the_wrong_order() -> None:
    variant = BASES["tied"]
    model, _ = base_of(variant)
    with LlamaSeqEngine() as engine:
        with pytest.raises(SessionError, match="realize"):
            engine.upload_lora_q_init(0, 0.01)
        engine.realize_for_q8_copy(model, variant.cfg, variant.t_seq, False, False, n_threads=1)
        calls: list[Callable[[], None]] = [
            lambda: engine.enable_lora_q(2),
            engine.enable_lora_q_adamw,
            engine.enable_full_finetune,
            engine.enable_full_finetune_embeddings,
        ]
        for call in calls:
            with pytest.raises(SessionError, match="must be called before the model is realized"):
                call()
        with pytest.raises(SessionError, match="no adapters: call enable_lora_q"):
            engine.upload_lora_q_init(0, 0.01)
        engine.close()
        engine.enable_full_finetune()
        with pytest.raises(SessionError, match="realize_for_q8_copy freezes the base"):
            engine.realize_for_q8_copy(model, variant.cfg, variant.t_seq, False, False)

"""Adapters in the fused layout: gradients and steps agree with the float64 oracle, and the base keeps its bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from oracle.variants import Variant
from toynn import AdamW, LlamaSeqEngine, RecipeOptions, SessionError, TinyNNTypeError, TinyNNValueError, labels
from toynn.llm.adapters.spec import AdapterSpec
from tuned_models import BASES, base_of, divided, hashes, joined

F64 = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[np.float32]]
TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
HP = AdamW(lr=0.01, weight_decay=0.1, eps=1e-3, bias_correct=True)
each_base = pytest.mark.parametrize("variant", BASES.values(), ids=BASES.keys())


def spec_of(variant: Variant, rank: int = 2) -> AdapterSpec:
    return AdapterSpec(rank, 3.0, True, (*TARGETS, "output") if variant.untied else TARGETS)


def random_tensors(spec: AdapterSpec, variant: Variant, seed: int = 8) -> Tensors:
    """Return random matrices A and B of an adapter. B is not zero."""
    model, _ = base_of(variant)
    rng = np.random.default_rng(seed)
    return {one.name: rng.normal(0, 0.3, one.size).astype(np.float32) for one in spec.weights(model.shape)}


def options(variant: Variant, n_threads: int = 1) -> RecipeOptions:
    return RecipeOptions(variant.t_seq, variant.t_batch, n_threads=n_threads, layout="fused")


def step(engine: LlamaSeqEngine, variant: Variant, number: int = 1) -> float:
    targets = labels.targets(variant.ids(), variant.cfg.vocab, variant.t_seq, variant.t_batch)
    hp = HP.hp(number)
    loss, _ = engine.train_step(variant.ids(), targets, hp, reset_moments=number == 1)
    return loss


def loss_and_gradients(variant: Variant, spec: AdapterSpec, tensors: dict[str, F64]) -> tuple[float, dict[str, F64]]:
    """Return the loss and the gradients of A and B in float64.

    With W' = W + scale B A, the gradients are scale B^T dW' and scale dW' A^T.
    """
    llama = pytest.importorskip("oracle.llama")
    _, weights = base_of(variant)
    merged = joined(weights, variant)
    adapted = [name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")]
    for name in adapted:
        merged[name] = merged[name] + spec.scale * tensors[f"{name}.lora_b"] @ tensors[f"{name}.lora_a"]
    result = llama.loss_and_grads(
        variant.cfg,
        divided(merged, variant),
        variant.ids(),
        variant.positions(),
        variant.labels(),
        variant.t_seq,
        variant.t_batch,
    )
    grads = joined(result.grads, variant)
    found = {}
    for name in adapted:
        found[f"{name}.lora_a"] = spec.scale * tensors[f"{name}.lora_b"].T @ grads[name]
        found[f"{name}.lora_b"] = spec.scale * grads[name] @ tensors[f"{name}.lora_a"].T
    return result.loss, found


@each_base
def test_loss_and_gradients_agree_with_the_float64_oracle(variant: Variant) -> None:
    spec, (model, _) = spec_of(variant), base_of(variant)
    tensors = random_tensors(spec, variant)
    loss, grads = loss_and_gradients(variant, spec, {name: one.astype(np.float64) for name, one in tensors.items()})
    with LlamaSeqEngine() as engine:
        engine.realize_with_adapter(model, spec, options(variant), tensors)
        engine.build_training_step(keep_gradients=True)
        assert step(engine, variant) == pytest.approx(loss, rel=2e-6)
        assert set(engine.param_names()) == set(grads) == set(tensors)
        for name, grad in grads.items():
            np.testing.assert_allclose(
                engine.gradient(name), grad, rtol=0, atol=2e-5 * np.abs(grad).max(), err_msg=name
            )


@pytest.mark.parametrize("name", ["gqa, head_dim of its own", "llama3 rope"])
def test_three_steps_agree_with_the_float64_oracle_and_leave_the_base_unchanged(name: str) -> None:
    llama = pytest.importorskip("oracle.llama")
    variant = BASES[name]
    spec, (model, _) = spec_of(variant), base_of(variant)
    start = random_tensors(spec, variant)
    want = {name: one.astype(np.float64) for name, one in start.items()}
    moments = {name: (np.zeros_like(one), np.zeros_like(one)) for name, one in want.items()}
    with LlamaSeqEngine() as engine:
        engine.realize_with_adapter(model, spec, options(variant), start)
        engine.build_training_step()
        before = hashes(engine)
        for number in (1, 2, 3):
            loss, grads = loss_and_gradients(variant, spec, want)
            assert step(engine, variant, number) == pytest.approx(loss, rel=5e-6)
            for one, grad in grads.items():
                llama.adamw_update(want[one], grad, *moments[one], HP.hp(number))
        for one, values in want.items():
            got = engine.download_weight(one)
            np.testing.assert_allclose(got, values, rtol=0, atol=2e-5 * np.abs(values).max(), err_msg=one)
        after = hashes(engine)
    assert {one for one in after if after[one] != before[one]} == set(start)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    variant = BASES["batch of 3"]
    spec, (model, _) = spec_of(variant), base_of(variant)
    found = set()
    for n_threads in (1, 2, 3, 4):
        with LlamaSeqEngine() as engine:
            engine.realize_with_adapter(
                model, spec, options(variant, n_threads), random_tensors(spec, variant), oversubscribe=True
            )
            engine.build_training_step()
            losses = [step(engine, variant, number) for number in (1, 2, 3)]
            found.add((tuple(losses), tuple(hashes(engine).values())))
    assert len(found) == 1


def test_bits_do_not_depend_on_the_batches_of_a_step() -> None:
    variant = BASES["batch of 3"]
    spec, (model, _) = spec_of(variant), base_of(variant)
    ids = variant.ids().reshape(3, -1)
    wanted = labels.targets(variant.ids(), variant.cfg.vocab, variant.t_seq, 3).reshape(3, -1)
    found = []
    for batch in (3, 1):
        with LlamaSeqEngine() as engine:
            sizes = RecipeOptions(variant.t_seq, batch, n_threads=1, layout="fused")
            engine.realize_with_adapter(model, spec, sizes, random_tensors(spec, variant))
            engine.build_training_step(clip=True, keep_gradients=True)
            for at in range(0, 3, batch):
                part = slice(at, at + batch)
                _, norm = engine.train_step(
                    ids[part].ravel(), wanted[part].ravel(), HP.hp(1), reset_moments=at == 0, accumulate=at > 0,
                    update=at + batch == 3, max_norm=0.1, loss_divisor=ids.size,
                )  # fmt: skip
            gradients = {name: engine.gradient(name).tobytes() for name in engine.param_names()}
            found.append((norm, gradients, hashes(engine)))
    assert found[0] == found[1]


def test_initial_values_are_those_of_peft() -> None:
    """A is uniform with the standard deviation of Kaiming's initialization with a = sqrt(5); B is zero."""
    variant = BASES["gqa"]
    spec, (model, _) = spec_of(variant, rank=8), base_of(variant)
    with LlamaSeqEngine() as engine:
        engine.realize_with_adapter(model, spec, options(variant))
        own = engine.forward(variant.ids())
        for name in (one.name for one in spec.weights(model.shape)):
            values = engine.download_weight(name)
            bound = 1 / np.sqrt(values.shape[1])
            if name.endswith(".lora_b"):
                assert not values.any()
            else:
                assert 0.8 * bound < np.abs(values).max() <= bound
                assert abs(values.std() - bound / np.sqrt(3)) < 0.1 * bound
    with LlamaSeqEngine() as engine:
        engine.realize(variant.cfg, options(variant), model.weights)
        np.testing.assert_array_equal(own, engine.forward(variant.ids()))  # adding B (A x) = 0 changes no bit


def test_initial_values_depend_on_the_seed_only() -> None:
    variant = BASES["gqa"]
    spec, (model, _) = spec_of(variant), base_of(variant)
    one, same, other = (spec.initial(model.shape, seed) for seed in (3, 3, 4))
    name = "blk.0.attn_q.weight.lora_a"
    assert one[name].tobytes() == same[name].tobytes() != other[name].tobytes()
    assert one[name][0].tobytes() != one["blk.0.attn_k.weight.lora_a"][0].tobytes()


def test_an_adapter_that_does_not_fit_is_refused() -> None:
    variant = BASES["tied"]
    spec, (model, _) = spec_of(variant), base_of(variant)
    with LlamaSeqEngine() as engine:
        for wrong, options_, tensors, error, message in (
            (AdapterSpec(13, 1.0, False, ("q",)), options(variant), None, TinyNNValueError, "rank must be at most 12"),
            (AdapterSpec(1, 1.0, False, ("output",)), options(variant), None, TinyNNValueError, "no matrix 'output'"),
            (spec, RecipeOptions(7), None, TinyNNValueError, 'layout must be "fused"'),
            ("q", options(variant), None, TinyNNTypeError, "spec must be a AdapterSpec"),
            (spec, options(variant), {}, TinyNNValueError, "but 'blk.0.attn_q.weight.lora_a' is missing"),
        ):
            with pytest.raises(error, match=message):
                engine.realize_with_adapter(model, wrong, options_, tensors)  # type: ignore[arg-type]
            assert not engine.realized
        engine.realize_with_adapter(model, spec, options(variant))
        with pytest.raises(SessionError, match="already realized"):
            engine.realize_with_adapter(model, spec, options(variant))

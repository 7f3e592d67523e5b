"""Full fine-tuning of a base model: trained weights agree with the float64 oracle, and frozen weights stay the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from oracle.variants import Variant
from toynn import AdamW, LlamaSeqEngine, SessionError, SmolLM2Config, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn
from toynn.model.shape import ModelShape
from tuned_models import BASES, base_of, hashes

GLOBALS = ["token_embd.weight", "output_norm.weight", "output.weight"]

each_base = pytest.mark.parametrize("variant", BASES.values(), ids=BASES.keys())
each_layout = pytest.mark.parametrize("layout", ["per_head", "fused"])
each_choice = pytest.mark.parametrize("embeddings", [False, True], ids=["globals frozen", "all trained"])


def realize(engine: LlamaSeqEngine, variant: Variant, embeddings: bool, layout: str = "per_head") -> None:
    model, _ = base_of(variant)
    engine.enable_full_finetune()
    if embeddings:
        engine.enable_full_finetune_embeddings()
    engine.realize_for_full_finetune(
        model, variant.cfg, variant.t_seq, variant.untied, variant.qkv_bias, t_batch=variant.t_batch, n_threads=1,
        layout=layout,
    )  # fmt: skip


def steps(engine: LlamaSeqEngine, variant: Variant, n: int, adamw: AdamW) -> list[float]:
    targets = variant.labels().argmax(axis=1).astype(np.int32)
    return [engine.train_step(variant.ids(), targets, adamw.hp(i + 1), reset_moments=i == 0)[0] for i in range(n)]


@pytest.fixture
def engine() -> Iterator[LlamaSeqEngine]:
    with LlamaSeqEngine() as engine:
        yield engine


@each_base
@each_choice
def test_gradients_and_three_steps_agree_with_the_float64_oracle(
    engine: LlamaSeqEngine, variant: Variant, embeddings: bool
) -> None:
    llama = pytest.importorskip("oracle.llama")
    _, weights = base_of(variant)
    trained = {name for name in weights if embeddings or name.startswith("blk.")}
    adamw = AdamW(lr=0.01, beta2=0.999, eps=1e-3, bias_correct=True)
    args = (variant.cfg, weights, variant.ids(), variant.positions(), variant.labels())
    sizes = (variant.t_seq, variant.t_batch, trained)
    first = llama.loss_and_grads(*args, *sizes)
    want = llama.adamw_steps(*args, [adamw.hp(i) for i in (1, 2, 3)], *sizes)
    realize(engine, variant, embeddings)
    assert set(engine.param_names()) == trained
    engine.build_training_step(pin=True)
    losses = steps(engine, variant, 1, adamw)
    for name, grad in first.grads.items():
        np.testing.assert_allclose(engine.gradient(name), grad, rtol=0, atol=2e-5 * np.abs(grad).max(), err_msg=name)
    losses += [engine.train_step(variant.ids(), variant.labels(), adamw.hp(i))[0] for i in (2, 3)]
    np.testing.assert_allclose(losses, want.losses, rtol=5e-6)
    for name in weights:
        np.testing.assert_allclose(engine.download_weight(name), want.weights[name], rtol=0, atol=1e-5, err_msg=name)


@each_base
@each_layout
def test_frozen_globals_keep_their_bytes(engine: LlamaSeqEngine, variant: Variant, layout: str) -> None:
    realize(engine, variant, embeddings=False, layout=layout)
    engine.build_training_step()
    before = hashes(engine)
    losses = steps(engine, variant, 3, AdamW(lr=0.01))
    after = hashes(engine)
    assert losses[2] < losses[0]
    frozen = {name for name in before if before[name] == after[name]}
    assert frozen == set(GLOBALS) & set(before)
    for name in frozen:
        with pytest.raises(TinyNNValueError, match="must be the name of a weight or of its moment"):
            engine.download_weight(f"{name}.m")


def test_globals_are_stepped_after_the_layers_in_the_order_of_their_declaration(engine: LlamaSeqEngine) -> None:
    realize(engine, BASES["untied"], embeddings=True)
    engine.build_training_step()
    stepped = []
    for i in range(nn.tnn_graph_n_nodes(engine.sess)):
        node = nn.tnn_graph_node(engine.sess, i)
        if nn.tnn_tensor_op_name(node) == "OPT_STEP_ADAMW":
            weight = nn.tnn_tensor_src(node, 0)
            assert weight is not None
            stepped.append(weight.name)
    layers = [name for name in engine.weights if name.startswith("blk.")]
    assert stepped == [*layers, *GLOBALS]


def test_full_fine_tuning_must_be_enabled(engine: LlamaSeqEngine) -> None:
    variant = BASES["tied"]
    model, _ = base_of(variant)
    for _ in range(2):
        with pytest.raises(SessionError, match=r"full fine-tuning is not enabled: call enable_full_finetune\(\) first"):
            engine.realize_for_full_finetune(model, variant.cfg, variant.t_seq, False, False)
        engine.enable_full_finetune_embeddings()
    engine.enable_full_finetune()
    engine.enable_lora_q(2)
    with pytest.raises(SessionError, match="cannot have adapters"):
        engine.realize_for_full_finetune(model, variant.cfg, variant.t_seq, False, False)


def test_the_earlier_order_of_the_arguments_is_refused(engine: LlamaSeqEngine) -> None:
    """In an earlier version, the arguments were (cfg, weights, t_seq, t_batch, untied, qkv_bias)."""
    model, _ = base_of(BASES["tied"])
    engine.enable_full_finetune()
    with pytest.raises(TypeError):
        engine.realize_for_full_finetune(model.shape, model.weights, 7, 1, False, False)  # type: ignore[call-arg, arg-type]
    with pytest.raises(TinyNNTypeError, match=r"gguf must be .*, got ModelShape"):
        engine.realize_for_full_finetune(model.shape, model, 7, False, False)  # type: ignore[arg-type]


def test_a_base_of_another_shape_is_refused(engine: LlamaSeqEngine) -> None:
    model, _ = base_of(BASES["gqa"])
    engine.enable_full_finetune()
    other = SmolLM2Config(23, 24, 6, 3, 20, 2, 16, 10000.0, 1e-5)
    with pytest.raises(TinyNNValueError, match="n_kv must be 2, as in the base, got 3"):
        engine.realize_for_full_finetune(model, other, 7, False, False)
    with pytest.raises(TinyNNValueError, match="t_seq must be at most"):
        engine.realize_for_full_finetune(model, ModelShape.of(BASES["gqa"].cfg), 17, False, False)
    assert not engine.realized

"""LlamaSeqEngine: its weights, their initial values, its results, and its states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engines import realize
from oracle import llama_numpy
from oracle.init_streams import STREAMS
from oracle.params import initial_weights, param_shapes, random_weights, trainable_names
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import LlamaSeqEngine, SessionError, SmolLM2Config, TinyNNMemoryError, TinyNNValueError
from toynn import tinynn as nn
from toynn.model.init_streams import make_stream

pytestmark = pytest.mark.quick

each_stream = pytest.mark.parametrize("init_stream", ["lcg31", "xorshift64"])


def realize_variant(engine: LlamaSeqEngine, variant: Variant, **options: Any) -> None:
    realize(engine, variant.cfg, **{**variant.options, "layout": "per_head", "seed": 3, "init_scale": 1.5, **options})


@pytest.fixture
def engine() -> Iterator[LlamaSeqEngine]:
    with LlamaSeqEngine() as engine:
        yield engine


# ---- init streams ----


@each_stream
@pytest.mark.parametrize("seed", [0, 1, -1, 42, -104729, 2**31 - 1, 2**40 + 17, 2**63 - 1, -(2**63)])
def test_an_init_stream_equals_the_scalar_loop_bit_for_bit(init_stream: str, seed: int) -> None:
    fast, slow = make_stream(init_stream, seed), STREAMS[init_stream](seed)
    for n, std in ((1, 1.0), (7, 0.02), (1000, 0.125), (0, 1.0), (333, 1e-3)):
        assert fast.gaussian(n, std).tobytes() == slow.gaussian(n, std).tobytes()


# ---- declaration and start ----


@each_variant
def test_weights_have_the_specified_names_shapes_and_order(engine: LlamaSeqEngine, variant: Variant) -> None:
    realize_variant(engine, variant)
    shapes = param_shapes(variant.cfg, variant.untied, variant.qkv_bias)
    assert list(engine.weights) == list(shapes)
    assert engine.param_names() == trainable_names(variant.cfg, variant.untied, variant.qkv_bias)
    for name, tensor in engine.weights.items():
        assert tensor.name == name
        assert engine.download_weight(name).shape == shapes[name]
        assert tensor.ne[: len(shapes[name])] == shapes[name][::-1]
    for name in engine.param_names():
        for moment in (f"{name}.m", f"{name}.v"):
            assert engine.download_weight(moment).shape == shapes[name]
            assert not engine.download_weight(moment).any()


@each_variant
@each_stream
@pytest.mark.parametrize("embedding_std", [0.02, 0.3])
def test_initial_weights_equal_those_of_the_scalar_streams(
    engine: LlamaSeqEngine, variant: Variant, init_stream: str, embedding_std: float
) -> None:
    realize_variant(engine, variant, init_stream=init_stream, embedding_std=embedding_std)
    want = initial_weights(variant.cfg, variant.untied, variant.qkv_bias, 3, 1.5, init_stream, embedding_std)
    for name, values in want.items():
        assert engine.download_weight(name).tobytes() == values.astype(np.float32).tobytes(), name


def test_a_projection_lens_freezes_the_embedding_of_the_donor(engine: LlamaSeqEngine) -> None:
    realize_variant(engine, VARIANTS["projection lens"])
    assert "lens.proj.weight" in engine.params()
    assert "token_embd.weight" not in engine.params()
    with pytest.raises(TinyNNValueError, match=r"token_embd\.weight\.m"):
        engine.download_weight("token_embd.weight.m")


def test_only_a_batch_of_several_sequences_has_a_block_causal_mask(engine: LlamaSeqEngine) -> None:
    realize_variant(engine, VARIANTS["tied"])
    assert engine.t_seq_attn_mask is None
    engine.close()
    variant = VARIANTS["batch of 3"]
    realize_variant(engine, variant)
    t_mask = engine.t_seq_attn_mask
    assert t_mask is not None
    rows = variant.t_seq * variant.t_batch
    mask = nn.download_row_major(engine.sess, t_mask, rows, rows)
    for query in range(rows):
        for key in range(rows):
            seen = query // variant.t_seq == key // variant.t_seq and key <= query
            assert mask[query, key] == (0.0 if seen else np.float32(-1e30))


# ---- forward ----


@each_variant
def test_forward_agrees_with_the_float64_oracle(engine: LlamaSeqEngine, variant: Variant) -> None:
    realize_variant(engine, variant)
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    for name, values in weights.items():
        engine.upload_weight(name, values)
    for seed in (0, 1):
        logits = engine.forward(variant.ids(seed))
        want = llama_numpy.forward(
            variant.cfg, weights, variant.ids(seed), variant.positions(), variant.t_seq, variant.t_batch
        )
        assert logits.shape == want.shape
        np.testing.assert_allclose(logits, want, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(logits, engine.forward(variant.ids(1), variant.positions()))


def test_forward_keeps_its_graph_and_other_positions_change_the_logits(engine: LlamaSeqEngine) -> None:
    variant = VARIANTS["tied"]
    realize_variant(engine, variant)
    for name, values in random_weights(variant.cfg, False, False, seed=5).items():
        engine.upload_weight(name, values)
    first = engine.forward(variant.ids())
    handle = engine.t_seq_logits
    spread = engine.forward(variant.ids(), variant.positions() * 2)
    assert engine.t_seq_logits == handle
    assert not np.allclose(first, spread)
    np.testing.assert_array_equal(first, engine.forward(variant.ids()))


def test_taps_contain_the_activations(engine: LlamaSeqEngine) -> None:
    variant = VARIANTS["projection lens"]
    realize_variant(engine, variant)
    logits = engine.forward(variant.ids())
    blocks = [f"blk.{i}.{part}" for i in range(2) for part in ("attn_norm", "ffn", "residual")]
    assert list(engine.taps) == ["embed", "lens", *blocks, "final_norm", "logits"]
    embed = engine.download_tap("embed")
    np.testing.assert_array_equal(embed, engine.download_weight("token_embd.weight")[variant.ids()])
    lens = embed.astype(np.float64) @ engine.download_weight("lens.proj.weight").astype(np.float64).T
    np.testing.assert_allclose(engine.download_tap("lens"), lens, atol=1e-6)
    np.testing.assert_array_equal(engine.download_tap("logits"), logits)
    last, norm = engine.download_tap("blk.1.residual"), engine.download_tap("final_norm")
    want = llama_numpy.rms_norm(last.astype(np.float64), np.ones(12), variant.cfg.rms_eps)
    np.testing.assert_allclose(norm, want, rtol=1e-5)
    with pytest.raises(TinyNNValueError, match="nonsense"):
        engine.download_tap("nonsense")


# ---- lifetime ----


def test_every_use_before_realize_and_after_close_is_an_error(engine: LlamaSeqEngine) -> None:
    for _ in range(2):
        assert not engine.realized
        for use in (
            lambda: engine.sess,
            lambda: engine.cfg,
            lambda: engine.t_seq_token_ids,
            lambda: engine.t_seq_logits,
            lambda: engine.seq_vocab_size,
            lambda: engine.seq_blocks_ffi,
            lambda: engine.param_names(),
            lambda: engine.forward([0]),
            lambda: engine.build_training_step(),
        ):
            with pytest.raises(SessionError, match="realize_for_random_init"):
                use()
        realize_variant(engine, VARIANTS["tied"])
        with pytest.raises(SessionError, match="build_training_step or forward"):
            engine.download_tap("logits")
        engine.close()
        engine.close()


def test_a_second_realize_is_refused_and_changes_nothing(engine: LlamaSeqEngine) -> None:
    realize_variant(engine, VARIANTS["tied"])
    before = engine.forward(VARIANTS["tied"].ids())
    with pytest.raises(SessionError, match="close"):
        realize_variant(engine, VARIANTS["untied"])
    np.testing.assert_array_equal(before, engine.forward(VARIANTS["tied"].ids()))


def test_after_a_model_too_large_for_memory_the_engine_can_be_realized_again(engine: LlamaSeqEngine) -> None:
    # the feed-forward matrices have 2^20 * 2^10 * 3 * 1024 weights
    huge = SmolLM2Config.mha(2**20, 2**10, 1, 2**20, 2**10, 8, 10000.0, 1e-5)
    with pytest.raises(TinyNNMemoryError, match=r"weights need .* available"):
        realize(engine, huge, layout="per_head", t_seq=8)
    assert not engine.realized
    realize_variant(engine, VARIANTS["tied"])
    assert engine.forward(VARIANTS["tied"].ids()).shape == (7, 23)


def test_a_graph_beyond_its_capacity_is_an_error_and_keeps_the_weights(
    engine: LlamaSeqEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toynn.llm import layout

    monkeypatch.setattr(layout, "MAX_GRAPH_NODES", 64)
    realize_variant(engine, VARIANTS["tied"])
    for _ in range(2):
        with pytest.raises(SessionError, match="graph_capacity"):
            engine.build_training_step()
        with pytest.raises(SessionError, match="graph_capacity"):
            engine.forward(VARIANTS["tied"].ids())
    assert engine.download_weight("token_embd.weight").any()


def test_weights_are_uploaded_and_downloaded_by_name(engine: LlamaSeqEngine) -> None:
    realize_variant(engine, VARIANTS["tied"])
    values = np.arange(12 * 12).reshape(12, 12) / 7
    engine.upload_weight("blk.1.attn_output.weight", values)
    np.testing.assert_array_equal(engine.download_weight("blk.1.attn_output.weight"), values.astype(np.float32))
    with pytest.raises(TinyNNValueError, match=r"values .* shape \(12, 12\)"):
        engine.upload_weight("blk.1.attn_output.weight", values.ravel())
    with pytest.raises(TinyNNValueError, match="finite"):
        engine.upload_weight("blk.1.attn_output.weight", values * np.nan)
    with pytest.raises(TinyNNValueError, match=r"blk\.9"):
        engine.upload_weight("blk.9.attn_output.weight", values)

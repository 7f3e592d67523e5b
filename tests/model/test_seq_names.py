"""The engine's attributes that the Ruby project toy has too: shape, weights and activations, in both layouts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from engines import realize
from oracle.variants import VARIANTS
from toynn import LlamaSeqEngine, SmolLM2Config
from toynn import tinynn as nn
from toynn.llm.archs import LlamaArch
from toynn.llm.engine.seq_names import SeqNames

pytestmark = pytest.mark.quick

ALL = VARIANTS["everything at once"]
LAYOUTS = ("per_head", "fused")


@pytest.fixture
def engine() -> Iterator[LlamaSeqEngine]:
    with LlamaSeqEngine() as made:
        yield made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_shape_has_the_names_of_the_reference(engine: LlamaSeqEngine, layout: str) -> None:
    assert engine.seq_realized is False
    realize(engine, ALL.cfg, layout=layout, **ALL.options)
    assert engine.seq_realized is True
    cfg = ALL.cfg
    found = {
        name: getattr(engine, name)
        for name in vars(SeqNames)
        if name.startswith("seq_") and name not in ("seq_arch", "seq_blocks_ffi")
    }
    assert found == {
        "seq_realized": True,
        "seq_d_model": cfg.d_model,
        "seq_d_ff": cfg.d_ff,
        "seq_n_heads": 4,
        "seq_n_kv": 2,
        "seq_d_head": 10,
        "seq_group_size": 2,
        "seq_n_layers": cfg.n_layers,
        "seq_vocab_size": cfg.vocab,
        "seq_rope_base": cfg.rope_base,
        "seq_rope_scaling": cfg.rope_scaling,
        "seq_rms_eps": cfg.rms_eps,
        "seq_weight_dtype": 0,
        "seq_has_untied_output": True,
        "seq_has_qkv_bias": True,
        "seq_donor_d_in": 17,
    }
    assert isinstance(engine.seq_arch, LlamaArch)


def test_the_per_head_layout_has_the_weights_and_activations_of_the_reference(engine: LlamaSeqEngine) -> None:
    realize(engine, ALL.cfg, layout="per_head", **ALL.options)
    assert engine.t_seq_token_embed.name == "token_embd.weight"
    assert (engine.t_seq_w_proj or engine.t_seq_token_embed).name == "lens.proj.weight"
    assert engine.t_seq_final_norm_gamma.name == "output_norm.weight"
    assert (engine.t_seq_output or engine.t_seq_token_embed).name == "output.weight"
    assert engine.t_seq_rope_freq_factors is not None
    factors = nn.download_row_major(engine.sess, engine.t_seq_rope_freq_factors, 1, 5)
    np.testing.assert_array_equal(factors[0], ALL.cfg.rope_scaling.freq_factors(10, ALL.cfg.rope_base))
    assert [engine.t_seq_x_embed.name, engine.t_seq_x_final.name] == ["embed", "final_norm"]
    assert len(engine.seq_blocks_ffi) == 3
    for i, blk in enumerate(engine.seq_blocks_ffi):
        one = {
            "t_seq_rn1_gamma": "attn_norm.weight", "t_seq_rn2_gamma": "ffn_norm.weight",
            "t_seq_w_o": "attn_output.weight", "t_seq_w_gate": "ffn_gate.weight", "t_seq_w_up": "ffn_up.weight",
            "t_seq_w_down": "ffn_down.weight", "tap_attn_norm": "attn_norm", "tap_ffn_out": "ffn",
            "tap_resid_post": "residual", "ffn_out": "ffn", "resid_post": "residual",
        }  # fmt: skip
        assert {key: getattr(blk, key).name for key in one} == {key: f"blk.{i}.{name}" for key, name in one.items()}
        for key, n in (("q", 4), ("k", 2), ("v", 2)):
            for letter, end in (("w", "weight"), ("b", "bias")):
                names = [tensor.name for tensor in getattr(blk, f"t_seq_{letter}_{key}")]
                assert names == [f"blk.{i}.attn_{key}.head_{head}.{end}" for head in range(n)]


def test_tensors_that_a_model_or_a_layout_lacks_are_none_or_empty(engine: LlamaSeqEngine) -> None:
    realize(engine, SmolLM2Config.tiny(), layout="fused", t_seq=4)
    assert engine.t_seq_w_proj is engine.t_seq_output is engine.t_seq_rope_freq_factors is None
    blk = engine.seq_blocks_ffi[1]
    assert blk.t_seq_b_q == blk.t_seq_b_k == blk.t_seq_b_v == []
    assert [tensor.name for tensor in blk.t_seq_w_q] == ["blk.1.attn_q.weight"]
    assert blk.tap_ffn_out is blk.ffn_out is None
    assert blk.tap_resid_post.name == "blk.1.residual"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_logits_exist_right_after_realize_and_can_be_computed(engine: LlamaSeqEngine, layout: str) -> None:
    variant = VARIANTS["gqa"]
    realize(engine, variant.cfg, layout=layout, **variant.options)
    logits = engine.t_seq_logits
    nn.upload_int_array(engine.sess, engine.t_seq_token_ids, variant.ids())
    nn.upload_int_array(engine.sess, engine.t_seq_positions, variant.positions())
    nn.tnn_compute(engine.sess)
    found = nn.download_row_major(engine.sess, logits, variant.t_seq, variant.cfg.vocab)
    assert np.abs(found).max() > 0.01
    np.testing.assert_array_equal(engine.forward(variant.ids()), found)
    assert engine.t_seq_logits == logits  # forward() keeps the graph of the training step
    t_loss, _, _ = engine.build_training_step()
    assert engine.training_loss == t_loss
    assert engine.t_seq_logits != logits


def test_an_own_lens_is_uploaded_through_t_seq_w_proj(engine: LlamaSeqEngine) -> None:
    realize(engine, ALL.cfg, layout="per_head", **ALL.options)
    lens = np.random.default_rng(3).standard_normal((14, 17)).astype(np.float32)
    assert engine.t_seq_w_proj is not None
    nn.upload_row_major(engine.sess, engine.t_seq_w_proj, lens)
    np.testing.assert_array_equal(engine.download_weight("lens.proj.weight"), lens)

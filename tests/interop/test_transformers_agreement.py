"""transformers runs exported models, toynn imports models saved by transformers, and their logits agree."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer

from interop_models import END_OF_TEXT, LLAMA3, ROPE_PARAMETERS, SHAPES, TEXTS, VOCAB, logits_of, make, tokenizer
from toynn import RopeScaling, load
from toynn.interop import export_hf, import_hf
from toynn.interop.pre_tokenizers import PRE_TOKENIZERS

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
pytestmark = [pytest.mark.other_programs, pytest.mark.oracle_torch]

BOUND = 5e-4  # allowed difference of logits; logits reach about 10, and the largest measured difference is 1.2e-4
IDS = np.random.default_rng(0).integers(0, VOCAB, 200).tolist()
EXPORTED = [name for name in SHAPES if name not in ("llama3 rope", "heads that do not divide d_model")]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep transformers from using the network and from showing progress."""
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(os.environ, "HF_HUB_DISABLE_PROGRESS_BARS", "1")


def logits_of_transformers(model: Any) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        result: npt.NDArray[np.float32] = model(torch.tensor([IDS])).logits[0].float().numpy()
    return result


@pytest.mark.parametrize("name", EXPORTED)
def test_logits_agree_at_every_position(name: str, tmp_path: Path) -> None:
    model = make(name)
    export_hf(model, tmp_path / "hf")
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", output_loading_info=True, attn_implementation="eager"
    )
    assert {key: list(found) for key, found in loading.items() if found} == {}, "keys do not match"
    ours = logits_of(model, IDS)
    assert np.abs(ours).max() > 5, "the logits are too small for a meaningful comparison"
    np.testing.assert_allclose(logits_of_transformers(theirs.eval()), ours, rtol=0, atol=BOUND)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_folder_in_half_precision_is_computed_by_transformers(dtype: str, tmp_path: Path) -> None:
    export_hf(make("gqa"), tmp_path / "hf", dtype)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", dtype="auto", attn_implementation="eager"
    )
    assert str(theirs.dtype) == {"f16": "torch.float16", "bf16": "torch.bfloat16"}[dtype]
    ours = logits_of(import_hf(tmp_path / "hf"), IDS)
    np.testing.assert_allclose(logits_of_transformers(theirs.float().eval()), ours, rtol=0, atol=BOUND)


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rope", ROPE_PARAMETERS)
@pytest.mark.parametrize("shard", ["1GB", "60KB"], ids=["one file", "shards"])
def test_a_model_saved_by_transformers_is_imported_with_the_same_logits(
    qkv_bias: bool, tied: bool, rope: str, shard: str, tmp_path: Path
) -> None:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, max_position_embeddings=256, rms_norm_eps=1e-4, attention_bias=qkv_bias,
        tie_word_embeddings=tied, rope_parameters=dict(ROPE_PARAMETERS[rope]), attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("o_proj.bias"):
                parameter.normal_(1.0 if "norm" in name else 0.0, 0.25)
    model.save_pretrained(tmp_path / "hf", max_shard_size=shard)
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == (shard == "60KB")
    back = import_hf(tmp_path / "hf")
    assert (back.shape.untied, back.shape.qkv_bias) == (not tied, qkv_bias)
    np.testing.assert_allclose(logits_of(back, IDS), logits_of_transformers(model), rtol=0, atol=BOUND)
    if qkv_bias:
        with torch.no_grad():
            model.model.layers[0].self_attn.o_proj.bias.fill_(0.5)
        model.save_pretrained(tmp_path / "hf2")
        with pytest.raises(ValueError, match=r"o_proj\.bias' must contain only zeros"):
            import_hf(tmp_path / "hf2")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_of_transformers_are_read_exactly(dtype: str, tmp_path: Path) -> None:
    export_hf(make("gqa"), tmp_path / "hf")
    half = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", dtype=getattr(torch, dtype))
    half.save_pretrained(tmp_path / "half")
    widened = half.float().eval()
    back = import_hf(tmp_path / "half")
    embedding = widened.model.embed_tokens.weight.detach().numpy()
    assert back.weights["token_embd.weight"].tobytes() == embedding.tobytes()
    np.testing.assert_allclose(logits_of(back, IDS), logits_of_transformers(widened), rtol=0, atol=BOUND)


def test_llama3_scaling_of_the_reference_differs_from_that_of_transformers() -> None:
    """The export refuses this scaling, because in transformers the angles would differ by more than 20 percent."""
    theirs = RopeScaling.llama3_hf(**LLAMA3).freq_factors(10, 100.0)
    ours = RopeScaling.llama3(**LLAMA3).freq_factors(10, 100.0)
    assert theirs is not None
    assert ours is not None
    assert np.abs(theirs / ours - 1).max() > 0.2


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_auto_tokenizer_gives_the_same_ids_and_text(pre: str, tmp_path: Path) -> None:
    content = tokenizer(pre)
    export_hf(make("tied", tokens=content), tmp_path / "hf")
    ours, theirs = Tokenizer.from_str(content.decode()), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (theirs.eos_token, theirs.bos_token, theirs.eos_token_id) == (END_OF_TEXT, END_OF_TEXT, 0)
    for text in [unicodedata.normalize("NFC", text) for text in TEXTS]:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert theirs.encode(text) == ids, text
        assert theirs.decode(ids) == text


@pytest.mark.parametrize(("max_length", "stride"), [(33, 8), (65, 64), (129, 50)])
def test_a_sliding_window_gives_the_loss_of_transformers_guide_to_perplexity(
    max_length: int, stride: int, tmp_path: Path
) -> None:
    """transformers' guide to perplexity masks the labels of tokens that an earlier window has counted."""
    export_hf(make("untied", tokens=tokenizer()), tmp_path / "hf")
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf").eval()
    text = "The cat sat on the mat. It's a warm day, isn't it?\n" * 20
    with load(tmp_path / "hf") as ours:
        assert ours.start_id is not None
        ids = torch.tensor([[ours.start_id, *ours.encode(text)]])
        result = ours.evaluate(text, window=max_length - 1, stride=stride)
    nats, counted, end = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        before, end = end, min(begin + max_length, ids.shape[1])
        labels = ids[:, begin:end].clone()
        labels[:, : before - begin] = -100
        n = int((labels[:, 1:] != -100).sum())  # the first token of a window has no prediction
        with torch.no_grad():
            nats += n * model(ids[:, begin:end], labels=labels).loss.item()
        counted += n
        if end == ids.shape[1]:
            break
    assert result.tokens == counted
    assert result.loss == pytest.approx(nats / counted, abs=1e-5)

"""A model trained by toynn generates the same text in llama.cpp and transformers, and can be imported and trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import output_of
from llama_cpp import LlamaCpp
from small_runs import config
from toynn import LlamaDecoder, Sampling, generate
from toynn.interop import import_gguf
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import ModelArgs, TrainArgs, train
from toynn.training.run_log import read_log

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
pytestmark = [pytest.mark.other_programs, pytest.mark.oracle_torch]

TOKENS = 120
# One model of each architecture.
VARIANTS: list[dict[str, Any]] = [
    {},
    {"architecture": "qwen2", "qkv_bias": True},
    {"architecture": "qwen3", "qk_norm": True, "head_dim": 16},
    {"architecture": "smollm3", "no_rope_interval": 4, "n_layers": 4},
    {
        "architecture": "gemma3",
        "qk_norm": True,
        "head_dim": 16,
        "n_layers": 4,
        "sliding_window": 24,
        "global_interval": 3,
        "local_rope_base": 1000.0,
    },
]


def first_loss(run: Path) -> float:
    return float(next(line["loss"] for line in read_log(run / "log.jsonl") if line["event"] == "stepped"))


@pytest.mark.parametrize("variants", VARIANTS, ids=lambda variants: variants.get("architecture", "llama"))
def test_a_trained_model_generates_the_same_text_in_other_programs_and_can_be_trained_further(
    variants: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    model = ModelArgs(**{"d_model": 48, "n_heads": 4, "n_kv": 2, "d_ff": 64, "n_layers": 2, "ctx": 160, **variants})
    train(TrainArgs(data, run, config(steps=40, model=model), n_threads=1))
    trained = load_checkpoint(run).model
    output_of("export", run, tmp_path / "m.gguf")
    output_of("export", run, tmp_path / "hf")

    # All programs generate the same tokens.
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        prompt = theirs.tokenize("the cat")
        decoder = LlamaDecoder(trained.shape, trained.weights, n_threads=1)
        with decoder:
            expected = list(generate(decoder, prompt, Sampling.greedy(), TOKENS))
        assert len(expected) == TOKENS
        assert theirs.greedy(prompt, TOKENS) == expected
        ends = expected.index(theirs.eos) if theirs.eos in expected else TOKENS
        written = theirs.text_of(prompt + expected[:ends]).decode()
    ours = json.loads(output_of("generate", run, "-p", "the cat", "-n", str(TOKENS), "--greedy", "--json"))
    assert "the cat" + ours["text"] == written
    hugging_face = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager")
    hugging_face.generation_config.eos_token_id = None
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.encode("the cat") == prompt
    made = hugging_face.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False)
    assert made[0].tolist() == prompt + expected

    # After an import, training starts with exactly the same loss as from the run itself.
    for source in ("m.gguf", "hf"):
        output_of("import", tmp_path / source, "--out", tmp_path / f"back-{source}")
        back = load_checkpoint(tmp_path / f"back-{source}").model
        assert (back.shape, back.tokenizer, back.eos_id) == (trained.shape, trained.tokenizer, trained.eos_id)
    losses = []
    for init in (run, tmp_path / "back-m.gguf", tmp_path / "back-hf"):
        out = tmp_path / f"on-{init.name}"
        output_of("train", data, "--out", out, "--init", init, "--set", "train.steps=2", "--threads", "1")
        losses.append(first_loss(out))
    assert losses[0] == losses[1] == losses[2]

    # A quantized export can be loaded, and its weights are close to the trained weights.
    output_of("export", run, tmp_path / "q8.gguf", "--dtype", "q8_0")
    rounded = import_gguf(tmp_path / "q8.gguf")
    away = max(float(np.abs(rounded.weights[name] - values).max()) for name, values in trained.weights.items())
    assert 0 < away < 0.02
    with LlamaCpp(tmp_path / "q8.gguf") as theirs:
        assert len(theirs.greedy(prompt, 20)) == 20

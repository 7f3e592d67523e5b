"""Small models for export and import, with different values for all sizes, and their tokenizers."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from engines import realized
from toynn import LlamaDecoder, RopeScaling, SmolLM2Config
from toynn.interop.pre_tokenizers import PRE_TOKENIZERS
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes

END_OF_TEXT = "<|endoftext|>"
VOCAB = 512
LLAMA3: dict[str, Any] = {
    "factor": 8.0,
    "low_freq": 1.0,
    "high_freq": 4.0,
    "orig_max_pos": 64,
}  # with d_head 10 and base 100, the model has short, medium and long wavelengths

TRAINED_ON = [
    "The cat sat on the mat. It's a warm day, isn't it? They're glad, we've seen them, I'll go, I'd say I'm done.\n",
    "In 1984 there were 12,345 cats & 678 dogs;   \t they said: \u201cgood day!\u201d \u00e9\u00e8\u00fc \u00f1an\n",
    "def f(x):\n    return x**2 + 10 * x - 7  # \u4f60\u597d\u4e16\u754c \u041f\u0440\u0438\u0432\u0435\u0442\n",
]

# These texts show whether two programs divide texts into words in the same way.
TEXTS = [
    *TRAINED_ON,
    "", " ", "  ", "\n", "\r\n \r\n", "\t\ttab", "a  b   c    d", " leading", "trailing   ", "\n\n\nx\n \n y",
    "it's they're we've I'm you'll he'd don't IT'S 'S'T'RE o'clock rock'n'roll \u2019s",
    "1 12 123 1234 12345 1234567 3.14159 1,000,000 2^10 \u0663\u0664\u0665 \u00bd\u00b2 \u2167",
    "caf\u00e9 na\u00efve Stra\u00dfe \u0130stanbul \u0141\u00f3d\u017a",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "\u00a0nbsp\u2003em\u3000wide\u200bzero\u2028line\u0085next\x0bvt\x0cff\x1cfs",
    f"one{END_OF_TEXT}two {END_OF_TEXT} three{END_OF_TEXT}", "<|endoftext", "a <name> b<name>c",
    "".join(map(chr, range(1, 128))), "!@#$%^&*()_+-=[]{}|;':\",./<>?`~ !! ?? ...",
]  # fmt: skip


@functools.cache
def tokenizer(pre: str = "gpt-2", size: int = VOCAB - 12, end: str = END_OF_TEXT) -> bytes:
    """Return a byte-level BPE tokenizer like that of `toynn prepare`.

    pre: the name of its pre-tokenizer in llama.cpp.
    """
    rules = PRE_TOKENIZERS[pre]
    model = Tokenizer(models.BPE(ignore_merges=rules.ignore_merges))
    described = json.loads(model.to_str())
    described.update(pre_tokenizer=rules.rules, normalizer=rules.normalizer)
    model = Tokenizer.from_str(json.dumps(described))
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[end] if end else [],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(TRAINED_ON * 3, trainer)
    if end and pre == "smollm":  # an added token that is not a control token
        model.add_tokens([AddedToken("<name>", normalized=False)])
    text: str = model.to_str(pretty=True)
    return text.encode()


# The key rope_parameters of config.json, by its rope_type.
ROPE_PARAMETERS: dict[str, dict[str, Any]] = {
    "default": {"rope_theta": 100.0, "rope_type": "default"},
    "llama3": {
        "rope_theta": 100.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip
BASE = SmolLM2Config(VOCAB, 64, 4, 4, 96, 2, 256, 10000.0, 1e-5)
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"untied": True},
    "gqa": {"n_kv": 2},
    "head_dim of its own": {"n_heads": 4, "n_kv": 2, "head_dim": 10},
    "heads that do not divide d_model": {"n_heads": 6, "n_kv": 3, "head_dim": 8},
    "llama3_hf rope": {
        "n_heads": 2, "n_kv": 1, "head_dim": 10, "rope_base": 100.0, "rope_scaling": RopeScaling.llama3_hf(**LLAMA3),
        "untied": True,
    },
    "llama3 rope": {
        "n_heads": 2, "n_kv": 1, "head_dim": 10, "rope_base": 100.0, "rope_scaling": RopeScaling.llama3(**LLAMA3),
    },
    "linear rope": {"rope_scaling": RopeScaling.linear(4.0)},
    "yarn rope": {"n_heads": 2, "n_kv": 1, "head_dim": 32, "rope_scaling": RopeScaling.yarn(4.0, 64)},
    "yarn rope with attn_factor": {
        "n_kv": 2, "rope_base": 100.0, "rope_scaling": RopeScaling.yarn(5.0, 128, attn_factor=0.9), "untied": True,
    },
    "qkv_bias": {"n_kv": 2, "qkv_bias": True},
    "projection lens": {"donor_d_in": 37, "untied": True},
    "qwen2": {
        "architecture": "qwen2", "qkv_bias": True, "n_kv": 2, "rope_scaling": RopeScaling.yarn(4.0, 32),
    },
    "qwen3": {
        "architecture": "qwen3", "qk_norm": True, "n_heads": 6, "n_kv": 3, "head_dim": 20, "rms_eps": 1e-3,
        "rope_scaling": RopeScaling.linear(2.0),
    },
    "smollm3": {
        "architecture": "smollm3", "no_rope_interval": 4, "n_heads": 6, "n_kv": 2, "head_dim": 12, "n_layers": 5,
        "rope_scaling": RopeScaling.yarn(2.0, 64),
    },
    "gemma3": {
        "architecture": "gemma3", "qk_norm": True, "n_kv": 2, "head_dim": 20, "n_layers": 4, "rms_eps": 1e-3,
        "sliding_window": 9, "global_interval": 3, "local_rope_base": 500.0, "rope_scaling": RopeScaling.linear(2.0),
        "untied": True,
    },
    "everything at once": {
        "n_heads": 4, "n_kv": 2, "head_dim": 10, "d_model": 48, "rope_base": 100.0, "rms_eps": 1e-4,
        "rope_scaling": RopeScaling.llama3_hf(**LLAMA3), "donor_d_in": 37, "untied": True, "qkv_bias": True,
        "n_layers": 3,
    },
}  # fmt: skip


def make(name: str, seed: int = 0, tokens: bytes | None = b"", **changes: Any) -> TrainedModel:
    """Return a model of the named shape with random weights. tokens: a tokenizer.json; b"" selects the default."""
    options = {**SHAPES[name], **changes}
    shape = dataclasses.replace(ModelShape.of(BASE), **{"head_dim": 0, **options})
    rng = np.random.default_rng(seed)
    weights = {}
    for weight, size in weight_shapes(shape).items():
        values = rng.normal(0.0, 0.3 if weight.endswith("norm.weight") else 0.25, size)
        if weight.endswith("norm.weight"):
            values += 1.0
            # Hugging Face folders of gemma3 contain these values minus 1, and the difference must be exact in f32
            if shape.architecture == "gemma3":
                values = np.round(values * 2**20) / 2**20
        weights[weight] = values.astype(np.float32)
    content = tokenizer() if tokens == b"" else tokens
    end = None if content is None else Tokenizer.from_str(content.decode()).token_to_id(END_OF_TEXT)
    return TrainedModel(shape, weights, content, eos_id=end, bos_id=end)


def logits_of(model: TrainedModel, ids: list[int]) -> npt.NDArray[np.float32]:
    """Return the logits of every position, float32 (n, vocab), computed by LlamaSeqEngine."""
    with realized(model.shape, t_seq=len(ids)) as engine:
        for name, values in model.weights.items():
            engine.upload_weight(name, values)
        return engine.forward(ids)


def assert_same_model(a: TrainedModel, b: TrainedModel) -> None:
    """Check that two models have the same bits and the same tokenizer."""
    assert (a.shape, a.eos_id, a.bos_id) == (b.shape, b.eos_id, b.bos_id)
    assert list(a.weights) == list(b.weights)
    for name, values in a.weights.items():
        assert values.tobytes() == b.weights[name].tobytes(), name
    assert a.tokenizer == b.tokenizer


def decoder_of(model: TrainedModel) -> LlamaDecoder:
    return LlamaDecoder(model.shape, model.weights, n_threads=1)


@functools.cache
def split_revealing(pre: str) -> tuple[bytes, int]:
    """Return a tokenizer.json whose ids show where a text is split into words, and the size of its vocabulary.

    The merges join any byte with an adjacent "a", "1" or space, but only if both are in the same word.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(left, byte) for left in "a\u0120" for byte in alphabet] + [(b, right) for b in alphabet for right in "a1"]
    pairs = list(dict.fromkeys(pairs))
    tokens = list(dict.fromkeys([*alphabet, *(left + right for left, right in pairs)]))
    rules = PRE_TOKENIZERS[pre]
    model = Tokenizer(
        models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs, ignore_merges=rules.ignore_merges)
    )
    model.decoder = decoders.ByteLevel()
    described = json.loads(model.to_str())
    described.update(pre_tokenizer=rules.rules, normalizer=rules.normalizer)
    return json.dumps(described).encode(), len(tokens)


def change_config(folder: Path, **changes: Any) -> None:
    """Change keys of the folder's config.json. The value ... removes a key."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}), encoding="utf-8")

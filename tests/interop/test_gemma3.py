"""Models of the architecture gemma3 in files: windows, norms, the scale of the scores, and the tokenizer of Gemma."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer

from gguf_bytes import F32, U32, GgufBytes, array, scalar, tiny
from interop_models import TEXTS, VOCAB, assert_same_model, change_config, logits_of, make
from llama_cpp import LlamaCpp
from sentencepiece_models import SPECIAL, lists_of, random_texts, trained
from toynn import RopeScaling, TinyNNValueError
from toynn.interop import export_gguf, export_hf, import_gguf, import_hf
from toynn.interop.sentencepiece_bpe import write_sentencepiece

IDS = np.random.default_rng(0).integers(0, VOCAB, 200).tolist()
# ggml rounds the gates and the results of GELU to F16, so llama.cpp's logits, which reach 15, differ from toynn's.
BOUND = 0.02

# ---- Hugging Face folders ----


def test_the_defaults_of_gemma3_say_which_layers_are_local(tmp_path: Path) -> None:
    export_hf(make("gemma3", n_layers=7, global_interval=6), tmp_path / "hf")
    missing = dict.fromkeys(["layer_types", "sliding_window_pattern", "rope_local_base_freq"], ...)
    change_config(tmp_path / "hf", **missing)
    shape = import_hf(tmp_path / "hf").shape
    assert [shape.is_local(layer) for layer in range(7)] == [True] * 5 + [False, True]
    assert shape.local_rope_base == 10000.0


@pytest.mark.parametrize("interval", [1, 2, 4, 5, 6])
def test_the_interval_of_global_layers_is_kept_or_follows_from_the_list(interval: int, tmp_path: Path) -> None:
    model = make("gemma3", global_interval=interval)
    export_hf(model, tmp_path / "hf")
    assert import_hf(tmp_path / "hf").shape == model.shape
    change_config(tmp_path / "hf", sliding_window_pattern=1)  # transformers ignores this key if there is a list
    shape = import_hf(tmp_path / "hf").shape
    layers = range(model.shape.n_layers)
    assert [shape.is_local(layer) for layer in layers] == [model.shape.is_local(layer) for layer in layers]


def test_weights_of_norms_below_one_half_are_rounded_once_in_a_folder(tmp_path: Path) -> None:
    """transformers adds 1 to the stored weights of norms, so it cannot represent every number below 1/2."""
    model = make("gemma3")
    norms = {name: values for name, values in model.weights.items() if name.endswith("norm.weight")}
    for values in norms.values():
        values[:] = np.random.default_rng(len(values)).uniform(0.0, 3.0, values.size)
    export_hf(model, tmp_path / "hf")
    back = import_hf(tmp_path / "hf")
    for name, values in norms.items():
        np.testing.assert_allclose(back.weights[name], values, rtol=0, atol=2.0**-25)
        assert (back.weights[name] == values)[values >= 0.5].all()
    export_hf(back, tmp_path / "again")
    assert_same_model(import_hf(tmp_path / "again"), back)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scaling_applies_to_the_global_layers_of_gemma3_only(kind: str) -> None:
    scaling = RopeScaling.linear(4.0) if kind == "linear" else RopeScaling.yarn(4.0, 64)
    ids = IDS[:60]
    for layers, differs in ((1, False), (3, True)):  # the third layer is global
        plain = make("gemma3", n_layers=layers, rope_scaling=RopeScaling.none())
        scaled = make("gemma3", n_layers=layers, rope_scaling=scaling)
        assert (logits_of(plain, ids).tobytes() != logits_of(scaled, ids).tobytes()) is differs


@pytest.mark.parametrize(
    ("changes", "mentions"),
    [
        ({"query_pre_attn_scalar": 9}, "query_pre_attn_scalar = 9 cannot be exported .* always uses 20; export a Hugg"),
        ({"global_interval": 1}, "global_interval = 1 cannot be exported .* no local layers; export a Hugging F"),
    ],
)
def test_settings_that_llama_cpp_lacks_are_refused_in_gguf_files(
    changes: dict[str, Any], mentions: str, tmp_path: Path
) -> None:
    with pytest.raises(TinyNNValueError, match=mentions):
        export_gguf(make("gemma3", **changes), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


# ---- GGUF files ----

LLAMA_CPP: dict[str, dict[str, Any]] = {
    "defaults": {"global_interval": 6, "n_layers": 7, "local_rope_base": 10000.0},
    "every layer local, tied": {"global_interval": 5, "untied": False},
    "yarn": {"rope_scaling": RopeScaling.yarn(4.0, 64)},
    "scale of 27B": {"n_layers": 62, "query_pre_attn_scalar": 16},
}


@pytest.mark.other_programs
@pytest.mark.parametrize("name", LLAMA_CPP)
def test_logits_agree_with_llama_cpp(name: str, tmp_path: Path) -> None:
    model = make("gemma3", **LLAMA_CPP[name])
    export_gguf(model, tmp_path / "m.gguf")
    assert import_gguf(tmp_path / "m.gguf").shape == model.shape
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        np.testing.assert_allclose(theirs.feed(IDS), logits_of(model, IDS), rtol=0, atol=BOUND)


def test_the_exported_keys_are_those_that_llama_cpp_reads(tmp_path: Path) -> None:
    export_gguf(make("gemma3"), tmp_path / "m.gguf")
    fields = {key: field.contents() for key, field in GGUFReader(tmp_path / "m.gguf").fields.items()}
    expected = {
        "general.architecture": "gemma3",
        "gemma3.attention.sliding_window": 9,
        "gemma3.attention.sliding_window_pattern": 3,
        "gemma3.rope.freq_base": 10000.0,
        "gemma3.rope.freq_base_swa": 500.0,
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 2.0,
        "gemma3.attention.key_length": 20,
        "gemma3.attention.value_length": 20,
        "gemma3.attention.head_count": 4,
        "gemma3.attention.head_count_kv": 2,
    }
    assert {key: fields[key] for key in expected} == expected


def small() -> GgufBytes:
    """Return a small file as another converter writes it: without the keys that have defaults."""
    plain = tiny()
    values: list[tuple[str | bytes, bytes]] = [
        (str(key).replace("llama.", "gemma3."), value) for key, value in plain.values
    ]
    file = GgufBytes(values, plain.tensors).set("general.architecture", scalar(8, "gemma3"))
    for name, size in {"attn_q_norm": 2, "attn_k_norm": 2, "post_attention_norm": 4, "post_ffw_norm": 4}.items():
        file = file.with_tensor(f"blk.0.{name}.weight", [size], 0, None, struct.pack(f"<{size}f", *range(size)))
    return file.set("gemma3.attention.sliding_window", scalar(U32, 512))


def read(file: GgufBytes, path: Path) -> Any:
    path.write_bytes(file.build())
    return import_gguf(path)


def test_missing_keys_have_the_defaults_of_llama_cpp(tmp_path: Path) -> None:
    model = read(small(), tmp_path / "m.gguf")
    shape = model.shape
    assert (shape.sliding_window, shape.global_interval, shape.local_rope_base) == (512, 6, 10000.0)
    assert shape.query_pre_attn_scalar == shape.head_dim == 2
    assert model.weights["blk.0.post_ffw_norm.weight"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("key", "value", "mentions"),
    [
        ("attention.sliding_window", None, "the key gemma3.attention.sliding_window is missing"),
        ("attention.sliding_window", scalar(U32, 0), "sliding_window must be at least 1 with architecture = 'gemma3'"),
        ("attention.sliding_window_pattern", scalar(U32, 0), "global_interval must be at least 1 with architecture"),
        ("attention.sliding_window_pattern", array(7, [1, 0]), "sliding_window_pattern must be one integer"),
        ("rope.freq_base_swa", scalar(F32, -1.0), "local_rope_base must be"),
        ("final_logit_softcapping", scalar(F32, 30.0), "toynn does not know the key 'gemma3.final_logit_softcapping'"),
        ("attn_logit_softcapping", scalar(F32, 50.0), "toynn does not know the key 'gemma3.attn_logit_softcapping'"),
        ("attention.causal", scalar(7, 0), "gemma3.attention.causal is False, but toynn supports only True"),
    ],
)
def test_an_unsupported_key_is_refused_by_name(key: str, value: bytes | None, mentions: str, tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=mentions):
        read(small().set(f"gemma3.{key}", value), tmp_path / "m.gguf")


# ---- the tokenizer of Gemma ----


@pytest.mark.other_programs
def test_the_tokenizer_of_gemma_gives_the_ids_of_llama_cpp(tmp_path: Path) -> None:
    """Gemma's tokenizer.json is a SentencePiece model that adds a <bos> before the text, and no space."""
    symbols = ("<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\t")
    lists = lists_of(trained(add_dummy_prefix=False, user_defined_symbols=symbols), prefix="none")
    content = json.loads(write_sentencepiece(lists))
    assert content["normalizer"] == {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    content["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
    }  # fmt: skip
    model = make("gemma3", vocab=len(lists.tokens), n_layers=1, tokens=json.dumps(content).encode())
    end = lists.tokens.index("<end_of_turn>")
    model = dataclasses.replace(model, bos_id=1, eos_id=2, other_eos_ids=(end,))
    export_gguf(model, tmp_path / "m.gguf")
    fields = {key: field.contents() for key, field in GGUFReader(tmp_path / "m.gguf").fields.items()}
    expected = {"model": "llama", "pre": "default", "add_space_prefix": False, "add_bos_token": True}
    assert {key: fields[f"tokenizer.ggml.{key}"] for key in expected} == expected
    ours = Tokenizer.from_str(json.dumps(content))
    back = import_gguf(tmp_path / "m.gguf")
    again = Tokenizer.from_str((back.tokenizer or b"").decode())
    assert (back.bos_id, back.end_ids) == (1, (2, end))
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert theirs.adds_bos
        assert theirs.is_end(end)
        for text in [*TEXTS, *random_texts(100), "<start_of_turn>user\nHi there<end_of_turn>\n"]:
            assert ours.encode(text).ids == again.encode(text).ids == theirs.tokenize(text), text
    assert SPECIAL[0] == lists.tokens[1]  # the token that is put before a text

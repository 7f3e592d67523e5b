"""Hugging Face folders: exported models are imported unchanged, and errors name what toynn does not support."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from interop_models import END_OF_TEXT, LLAMA3, SHAPES, assert_same_model, make, tokenizer
from toynn import RopeScaling, TinyNNTypeError, TinyNNValueError
from toynn.interop import export_hf, import_hf
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel

NOT_EXPORTED = ("llama3 rope", "heads that do not divide d_model")
each_exported = pytest.mark.parametrize(
    "name", [name for name in SHAPES if name not in NOT_EXPORTED and "donor_d_in" not in SHAPES[name]]
)


def change(path: Path, **changes: Any) -> None:
    """Change values in a JSON file. A key whose new value is Ellipsis is removed."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            content.pop(key)
        else:
            content[key] = value
    path.write_text(json.dumps(content))


def change_weights(folder: Path, **changes: npt.NDArray[Any] | None) -> None:
    """Change tensors. None removes the tensor; __ in a name stands for a dot."""
    tensors = load_file(folder / "model.safetensors")
    for key, values in changes.items():
        name = key.replace("__", ".")
        if values is None:
            del tensors[name]
        else:
            tensors[name] = values
    save_file(tensors, folder / "model.safetensors")


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return the bytes of a safetensors file. `length` replaces the length of the header."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return export_hf(make("untied"), tmp_path / "hf")


# ---- round trips ----


@pytest.mark.quick
@each_exported
def test_an_exported_model_is_imported_unchanged(name: str, tmp_path: Path) -> None:
    model = make(name)
    assert export_hf(model, tmp_path / "hf") == tmp_path / "hf"
    assert_same_model(import_hf(tmp_path / "hf"), model)


@pytest.mark.parametrize(("dtype", "bits"), [("f16", np.float16), ("bf16", None)])
def test_a_folder_in_half_precision_has_the_rounded_weights(dtype: str, bits: Any, tmp_path: Path) -> None:
    model = make("qkv_bias")
    folder = export_hf(model, tmp_path / "hf", dtype)
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == {"f16": "float16"}.get(dtype, "bfloat16")
    back = import_hf(folder)
    for name, values in model.weights.items():
        if bits is not None:
            expected = values.astype(bits).astype(np.float32)
        else:  # round to nearest even: BF16 is the upper half of an f32
            words = values.view(np.uint32).astype(np.uint64)
            rounded = ((words + 0x7FFF + (words >> 16 & 1)) >> 16 << 16).astype(np.uint32)
            expected = rounded.view(np.float32).reshape(values.shape)
        assert back.weights[name].tobytes() == expected.tobytes(), name
    assert export_hf(back, tmp_path / "again", dtype).joinpath("model.safetensors").read_bytes() == (
        (folder / "model.safetensors").read_bytes()
    )


def test_a_number_too_large_for_the_type_of_a_folder_is_refused(tmp_path: Path) -> None:
    model = make("tied")
    model.weights["blk.1.ffn_up.weight"][3, 5] = 65520.0
    with pytest.raises(TinyNNValueError, match=r"mlp\.up_proj\.weight cannot be stored in f16: .*65520"):
        export_hf(model, tmp_path / "hf", "f16")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TinyNNValueError, match="dtype must be one of 'f32', 'f16', 'bf16', got 'q8_0'"):
        export_hf(model, tmp_path / "hf", "q8_0")


def test_a_model_without_a_tokenizer_is_imported_unchanged(tmp_path: Path) -> None:
    model = make("tied", tokens=None)
    export_hf(model, tmp_path / "hf")
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors",
    ]  # fmt: skip
    assert_same_model(import_hf(tmp_path / "hf"), model)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_values_are_read_exactly(dtype: str, folder: Path) -> None:
    """Half of all finite 16-bit patterns are compared with numpy or with the definition of bfloat16."""
    patterns = np.arange(1, 1 << 16, 2, dtype=np.uint16)
    exponent = 0x7C00 if dtype == "F16" else 0x7F80
    patterns = patterns[(patterns & exponent) != exponent]
    embedding = np.resize(patterns, (512, 64)).astype(np.uint16)
    upper = patterns.astype(np.uint32) << 16
    want = patterns.view(np.float16).astype(np.float32) if dtype == "F16" else upper.view(np.float32)
    header: dict[str, Any] = {}
    data = b""
    for name, values in load_file(folder / "model.safetensors").items():
        is_half = name == "model.embed_tokens.weight"
        content = embedding.tobytes() if is_half else values.tobytes()
        header[name] = {"dtype": dtype if is_half else "F32", "shape": list(values.shape),
                        "data_offsets": [len(data), len(data) + len(content)]}  # fmt: skip
        data += content
    (folder / "model.safetensors").write_bytes(raw(header, data))
    found = import_hf(folder).weights["token_embd.weight"].reshape(-1)
    assert found.tobytes() == np.resize(want, found.size).tobytes()


def test_shards_are_read_as_one_model_and_a_wrong_index_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for i, part in enumerate((names[:7], names[7:])):
        shard = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard)
        places.update(dict.fromkeys(part, shard))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    assert_same_model(import_hf(folder), make("untied"))

    for wrong, mentions in (
        ({}, "it is missing or empty"),
        ({**places, names[0]: "../model.safetensors"}, "which is not the name of a .safetensors file"),
        ({**places, names[0]: "/etc/passwd"}, "which is not the name of a .safetensors file"),
        ({**places, names[0]: 7}, "which is not the name of a .safetensors file"),
        ({**places, names[0]: "other.safetensors"}, "'other.safetensors', which does not exist"),
        ({**places, names[0]: places[names[-1]]}, "does not assign the tensor"),
        ({**places, "more": places[names[-1]]}, "does not contain this tensor"),
        ({k: v for k, v in places.items() if k != names[0]}, "does not assign the tensor"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(TinyNNValueError, match=mentions):
            import_hf(folder)
    index.write_text("[]")
    with pytest.raises(TinyNNValueError, match="it is missing or empty"):
        import_hf(folder)


# ---- export ----


@pytest.mark.quick
def test_config_json_describes_the_model_with_the_keys_of_hugging_face(tmp_path: Path) -> None:
    export_hf(make("everything at once"), tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    expected = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 48,
        "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 10, "hidden_act": "silu", "max_position_embeddings": 256, "rms_norm_eps": 1e-4,
        "rope_theta": 100.0, "attention_bias": True, "mlp_bias": False, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64},
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    assert json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())["eos_token"] == END_OF_TEXT
    zeros = load_file(tmp_path / "hf" / "model.safetensors")["model.layers.2.self_attn.o_proj.bias"]
    assert zeros.tobytes() == b"\0" * 4 * 48, "attention_bias requires a bias of the output projection"


def test_llama3_scaling_of_the_reference_is_exported_only_if_it_equals_that_of_hugging_face(tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"'llama3' cannot be exported.*export a GGUF file instead"):
        export_hf(make("llama3 rope"), tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []
    # With head_dim 4 and base 10000 the wavelengths are 6.3 and 628, so no wavelength is between 16 and 64.
    apart = make("tied", n_heads=16, n_kv=16, rope_scaling=RopeScaling.llama3(**LLAMA3))
    export_hf(apart, tmp_path / "hf")
    back = import_hf(tmp_path / "hf").shape.rope_scaling
    assert back == RopeScaling.llama3_hf(**LLAMA3)
    assert (back.freq_factors(4, 1e4) == apart.shape.rope_scaling.freq_factors(4, 1e4)).all()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "changes", "mentions"),
    [
        ("heads that do not divide d_model", {}, "d_model = 64 must be a multiple of n_heads = 6 for transf"),
        ("tied", {"rope_scaling": RopeScaling(freq_scale=0.5)}, "rope_scaling.freq_scale = 0.5 cannot be exported"),
        ("tied", {"rope_scaling": RopeScaling(attn_factor=2.0)}, "rope_scaling.attn_factor = 2.0 cannot be exported"),
        ("yarn rope", {"rope_scaling": RopeScaling.yarn(2.0, 64, ext_factor=0.5)}, "rope_scaling.ext_factor = 0.5 can"),
        ("tied", {"vocab": 300}, "the tokenizer has 3.. token ids, but the model has only 300"),
        ("tied", {"tokens": b"{}"}, "not a tokenizer.json"),
    ],
)  # fmt: skip
def test_a_model_that_transformers_cannot_compute_is_refused(
    name: str, changes: dict[str, Any], mentions: str, tmp_path: Path
) -> None:
    tokens = changes.pop("tokens", b"") if "tokens" in changes else b""
    model = make(name, **changes)
    if tokens:
        model = TrainedModel(model.shape, model.weights, tokens)
    with pytest.raises(TinyNNValueError, match=mentions):
        export_hf(model, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_only_on_request_and_only_if_it_is_an_exported_model(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    export_hf(make("tied"), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TinyNNValueError, match="already exists"):
        export_hf(make("untied"), folder)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(TinyNNValueError, match=r"contains other files \('thesis.txt'\); give another path"):
        export_hf(make("untied"), folder, overwrite=True)
    (folder / "thesis.txt").unlink()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    export_hf(make("untied"), folder, overwrite=True)
    assert_same_model(import_hf(folder), make("untied"))
    assert [path.name for path in tmp_path.iterdir()] == ["hf"], "a temporary folder remains"
    (tmp_path / "empty").mkdir()
    export_hf(make("tied"), tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(TinyNNValueError, match="is a file; give the path of a folder"):
        export_hf(make("tied"), tmp_path / "file", overwrite=True)
    with pytest.raises(TinyNNTypeError, match="model must be a TrainedModel"):
        export_hf(None, tmp_path / "x")  # type: ignore[arg-type]


# ---- config.json of other programs ----

PARAMETERS = {"rope_theta": 100.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
HF_LLAMA3 = RopeScaling.llama3_hf(**LLAMA3)


@pytest.mark.parametrize(
    ("changes", "base", "scaling"),
    [
        ({"rope_theta": ..., "rope_scaling": ..., "rope_parameters": PARAMETERS}, 100.0, HF_LLAMA3),
        ({"rope_theta": 100, "rope_scaling": {**PARAMETERS, "rope_theta": 100}, "rope_parameters": PARAMETERS}, 100.0,
         HF_LLAMA3),
        ({"rope_theta": ..., "rope_scaling": {"type": "llama3", **{key: value for key, value in PARAMETERS.items()
          if not key.startswith("rope")}}, "rope_parameters": PARAMETERS}, 100.0, HF_LLAMA3),
        ({"rope_scaling": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "rope_theta": ...}, 5e5,
         RopeScaling.none()),
        ({"rope_theta": 100, "rope_scaling": {**PARAMETERS, "type": "llama3"}}, 100.0, HF_LLAMA3),
        ({"rope_theta": ...}, 10000.0, RopeScaling.none()),
        ({"rope_scaling": {"type": "default"}}, 10000.0, RopeScaling.none()),
        ({"rope_scaling": {"type": "linear", "factor": 4}}, 10000.0, RopeScaling.linear(4.0)),
        ({"rope_scaling": YARN}, 10000.0, RopeScaling.yarn(2.0, 64)),
        ({"rope_scaling": {**YARN, "beta_fast": 8, "beta_slow": 2, "attention_factor": 1.0, "truncate": True}}, 10000.0,
         RopeScaling.yarn(2.0, 64, beta_fast=8.0, beta_slow=2.0, attn_factor=1 / (1 + 0.1 * math.log(2)))),
    ],
)  # fmt: skip
def test_both_forms_of_rope_settings_are_read(
    changes: dict[str, Any], base: float, scaling: RopeScaling, folder: Path
) -> None:
    change(folder / "config.json", **changes)
    cfg = import_hf(folder).shape
    assert (cfg.rope_base, cfg.rope_scaling) == (base, scaling)


def test_missing_keys_get_the_defaults_of_llama_config(tmp_path: Path) -> None:
    export_hf(make("untied", rms_eps=1e-6, ctx=2048), tmp_path / "hf")
    change(tmp_path / "hf" / "config.json", num_key_value_heads=..., head_dim=..., hidden_act=..., rms_norm_eps=...,
           max_position_embeddings=..., rope_theta=..., rope_scaling=..., attention_bias=..., mlp_bias=...,
           tie_word_embeddings=..., bos_token_id=..., eos_token_id=[0, 5])  # fmt: skip
    (tmp_path / "hf" / "generation_config.json").unlink()
    model = import_hf(tmp_path / "hf")
    assert model.shape == ModelShape(512, 64, 4, 4, 96, 2, 2048, 10000.0, 1e-6, untied=True)
    assert (model.bos_id, model.end_ids) == (None, (0, 5))


@pytest.mark.parametrize(
    ("changes", "mentions"),
    [
        ({"model_type": "mixtral"}, "model_type is 'mixtral', but toynn supports only 'llama'"),
        ({"model_type": ...}, "model_type is None"),
        (
            {"architectures": ["GPT2LMHeadModel"]},
            r"architectures is \['GPT2LMHeadModel'\], but model_type is 'llama', whose class is 'LlamaForCausalLM'",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, r"architectures is \['LlamaForSeq"),
        ({"architectures": ["LlamaForCausalLM", "MistralForCausalLM"]}, r"architectures is \['LlamaForCausalLM', 'M"),
        ({"architectures": "LlamaModel"}, "architectures is 'LlamaModel', but model_type is 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', but toynn supports only 'silu'"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"pretraining_tp": 2}, "pretraining_tp is 2"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"rope_interleaved": True}, "rope_interleaved is True"),
        ({"sliding_window": 128}, "sliding_window is 128"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_scaling.rope_type is 'dynamic', but toynn su",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor must be a finite number, 1 or above"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "rope_scaling.original_max_position_embeddings is missing"),
        ({"rope_scaling": {**YARN, "truncate": False}}, "rope_scaling.truncate is False, but toynn supports only True"),
        ({"rope_scaling": {**YARN, "mscale": 1.0}}, "rope_scaling.mscale is 1.0, but toynn supports only None"),
        ({"rope_scaling": {**YARN, "beta_fast": 0.5}}, "beta_fast must be above beta_slow"),
        ({"rope_scaling": {**YARN, "attention_factor": 0}}, "attention_factor must be a finite number above 0"),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 32},
            "original_max_position_embeddings is 32, but rope_scaling.original_max_position_embeddings is 64",
        ),
        ({"rope_scaling": {"rope_type": ["llama3"]}}, "rope_scaling.rope_type is"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor is missing"),
        ({"rope_scaling": "llama3"}, "rope_scaling must be a JSON object"),
        ({"rope_theta": 100, "rope_scaling": {**PARAMETERS, "factor": "8"}}, "factor must be a number"),
        (
            {"rope_theta": 100, "rope_scaling": {**PARAMETERS, "factor": 0.5}},
            "factor must be a finite number, 1 or above",
        ),
        ({"rope_scaling": PARAMETERS}, "rope_theta is 10000.0, but rope_scaling.rope_theta is 100.0"),
        ({"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_type": "llama3"}}, "must agree: rope_type is"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"vocab_size": ...}, "the key vocab_size is missing"),
        ({"hidden_size": 64.0}, "d_model must be an integer"),
        ({"hidden_size": None}, "the key hidden_size is missing"),
        ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers is 2147483647, but the folder contains only 21 tensors"),
        ({"num_hidden_layers": 10**400}, "n_layers must be an integer from 1"),
        ({"num_attention_heads": 3}, "n_kv must divide n_heads = 3"),
        ({"rms_norm_eps": 0}, "rms_eps must be a finite number above 0"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false, got 1"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs from the embedding"),
        ({"attention_bias": True}, r"the tensor 'model\.layers\.0\.self_attn\.q_proj\.bias' is missing"),
        ({"attention_bias": "yes"}, "attention_bias must be true or false"),
        ({"eos_token_id": 512}, "eos_token_id must be an integer from 0 to 511, got 512"),
        ({"bos_token_id": -1}, "bos_token_id must be an integer from 0 to 511, got -1"),
        ({"hidden_size": 128}, r"must have shape \(512, 128\), got \(512, 64\)"),
    ],
)
def test_an_unsupported_config_is_refused_by_the_name_of_its_key(
    changes: dict[str, Any], mentions: str, folder: Path
) -> None:
    change(folder / "config.json", **changes)
    with pytest.raises(TinyNNValueError, match=mentions) as caught:
        import_hf(folder)
    assert str(caught.value).startswith(str(folder)), "the error does not name the file"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a": 1e999}', b"[" * 100000, b'{"vocab_size": ' + b"9" * 5000 + b"}"]
)
def test_a_config_that_is_not_valid_json_is_refused(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(TinyNNValueError, match=r"config\.json"):
        import_hf(folder)


# ---- weights and tokenizers of other programs ----


@pytest.mark.quick
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_a_git_lfs_pointer_is_named(name: str, folder: Path) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(TinyNNValueError, match=f"{name}.*Git LFS pointer; fetch its content with `git lfs pull`"):
        import_hf(folder)


def test_weights_that_do_not_fit_are_refused_by_name(folder: Path) -> None:
    bias = "model__layers__0__self_attn__o_proj__bias"
    change_weights(folder, **{bias: np.zeros(64, dtype=np.float32)})
    with pytest.raises(
        TinyNNValueError,
        match=r"'model\.layers\.0\.self_attn\.o_proj\.bias' is not part of any model that toynn supports",
    ):
        import_hf(folder)
    change_weights(folder, **{bias: None, "model__norm__weight": np.ones(63, dtype=np.float32)})
    with pytest.raises(TinyNNValueError, match=r"'model\.norm\.weight' must have shape \(64,\), got \(63,\)"):
        import_hf(folder)
    change_weights(folder, model__norm__weight=np.full(64, np.nan, dtype=np.float32))
    with pytest.raises(TinyNNValueError, match=r"output_norm\.weight must hold only finite numbers, got nan at \[0\]"):
        import_hf(folder)
    change_weights(folder, model__norm__weight=np.ones(64, dtype=np.float64))
    with pytest.raises(TinyNNValueError, match=r"model\.safetensors: tensor 'model\.norm\.weight': the dtype is F64"):
        import_hf(folder)
    change_weights(folder, model__norm__weight=None)
    with pytest.raises(TinyNNValueError, match=r"the tensor 'model\.norm\.weight' is missing"):
        import_hf(folder)


def test_an_output_bias_that_is_not_zero_is_refused(tmp_path: Path) -> None:
    folder = export_hf(make("qkv_bias"), tmp_path / "hf")
    bias = "model__layers__1__self_attn__o_proj__bias"
    change_weights(folder, **{bias: None})
    assert_same_model(import_hf(folder), make("qkv_bias"))
    change_weights(folder, **{bias: np.eye(1, 64, 3, dtype=np.float32)[0]})
    with pytest.raises(
        TinyNNValueError, match=r"1\.self_attn\.o_proj\.bias' must contain only zeros, because toynn has no such bias"
    ):
        import_hf(folder)


def test_a_second_copy_of_a_tied_embedding_and_old_buffers_are_ignored(tmp_path: Path) -> None:
    folder = export_hf(make("tied"), tmp_path / "hf")
    embedding = make("tied").weights["token_embd.weight"]
    change_weights(folder, lm_head__weight=embedding,
                   model__layers__0__self_attn__rotary_emb__inv_freq=np.ones(8, dtype=np.float32))  # fmt: skip
    assert_same_model(import_hf(folder), make("tied"))


F32_ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        raw({}, length=2**63),
        raw({}, length=2**64 - 1),
        raw(b"{"),
        raw(b"\xff\xff"),
        raw([]),
        raw({"w": {**F32_ONE, "data_offsets": [0, 2**62]}}, b"\0" * 4),
        raw({"w": {**F32_ONE, "data_offsets": [4, 0]}}, b"\0" * 4),
        raw({"w": {**F32_ONE, "shape": [2**32, 2**32]}}, b"\0" * 4),
        raw({"w": {**F32_ONE, "shape": [2]}}, b"\0" * 4),
        raw({"w": {**F32_ONE, "dtype": "Q4"}}, b"\0" * 4),
        raw({"w": F32_ONE, "v": F32_ONE}, b"\0" * 4),
        raw({"w": F32_ONE}, b"\0" * 8),
        raw({"w": F32_ONE}, b"\0" * 3),
        raw({"w": {"dtype": "F32"}}),
    ],
)
def test_a_damaged_weights_file_is_refused_with_its_name(content: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(
        TinyNNValueError, match=r"model\.safetensors: the file is damaged, or is not a safetensors file"
    ):
        import_hf(folder)


def test_tokenizers_that_do_not_fit_are_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b'{"model": 3}')
    with pytest.raises(TinyNNValueError, match=r"tokenizer\.json: it is not a tokenizer\.json"):
        import_hf(folder)
    holes = json.loads(tokenizer())
    holes["model"]["vocab"]["zzz"] = 512
    (folder / "tokenizer.json").write_text(json.dumps(holes))
    with pytest.raises(TinyNNValueError, match=r"tokenizer\.json has 513 token ids, but the model has only 512"):
        import_hf(folder)
    larger = json.loads(tokenizer())
    larger["added_tokens"] += [{**larger["added_tokens"][0], "id": 393 + i, "content": f"<{i}>"} for i in range(200)]
    (folder / "tokenizer.json").write_text(json.dumps(larger))
    with pytest.raises(TinyNNValueError, match=r"tokenizer\.json has 593 token ids, but the model has only 512"):
        import_hf(folder)


@pytest.mark.parametrize(
    ("changes", "mentions"),
    [
        ({"eos_token": "<end>"}, "eos_token is '<end>', but tokenizer.json has no such token"),
        ({"bos_token": {"content": "<begin>"}}, "bos_token is '<begin>', but tokenizer.json has no such token"),
        ({"eos_token": 7}, "eos_token must be the text of a token, got 7"),
        (
            {"added_tokens_decoder": {"0": {"content": "<end>"}}},
            "gives '<end>' the id 0, but tokenizer.json gives this id to '<|endoftext|>'",
        ),
        ({"added_tokens_decoder": {"511": {"content": "<end>"}}}, "the id 511, which tokenizer.json does not have"),
        ({"added_tokens_decoder": {"x": {"content": "<end>"}}}, "the id x, which tokenizer.json does not have"),
        ({"added_tokens_decoder": {"0": {}}}, r"added_tokens_decoder\.0 must be the text of a token"),
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder must be a JSON object"),
    ],
)
def test_a_tokenizer_config_that_contradicts_tokenizer_json_is_refused(
    changes: dict[str, Any], mentions: str, folder: Path
) -> None:
    change(folder / "tokenizer_config.json", **changes)
    with pytest.raises(TinyNNValueError, match=mentions) as caught:
        import_hf(folder)
    assert str(caught.value).startswith(str(folder / "tokenizer_config.json"))
    change(folder / "tokenizer_config.json", eos_token=END_OF_TEXT, bos_token={"content": END_OF_TEXT},
           added_tokens_decoder={"0": {"content": END_OF_TEXT, "special": True}})  # fmt: skip
    assert import_hf(folder).tokenizer == tokenizer()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_refused_at_once(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(TinyNNValueError, match="is not a regular file"):
        import_hf(folder)


@pytest.mark.parametrize(
    ("path", "error", "mentions"),
    [
        (None, TinyNNTypeError, "folder must be a path, got NoneType"),
        ("\0", TinyNNValueError, "must not contain a NUL"),
    ],
)
def test_a_value_that_is_not_a_path_is_refused_by_name(path: Any, error: type[Exception], mentions: str) -> None:
    with pytest.raises(error, match=mentions):
        import_hf(path)
    with pytest.raises(error, match=mentions):
        export_hf(make("tied"), path)


def test_a_folder_without_a_model_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match="none is not a folder"):
        import_hf(tmp_path / "none")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        TinyNNValueError, match=r"contains neither model\.safetensors nor .*toynn does not load pickle files"
    ):
        import_hf(folder)
    (folder / "config.json").unlink()
    with pytest.raises(TinyNNValueError, match=r"is not a Hugging Face folder: it contains no config\.json"):
        import_hf(folder)


def test_an_output_matrix_that_is_missing_is_explained(tmp_path: Path) -> None:
    export_hf(make("untied"), tmp_path / "hf")
    change_weights(tmp_path / "hf", lm_head__weight=None)
    with pytest.raises(TinyNNValueError, match=r"'lm_head\.weight' is missing; .* set tie_word_embeddings to true"):
        import_hf(tmp_path / "hf")

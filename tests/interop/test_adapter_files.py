"""Adapters as GGUF files and PEFT folders: llama.cpp and PEFT agree with toynn, and wrong files are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

from adapters import LAYER, adapter_of, assert_same_adapter, logits_with
from gguf_bytes import F32, F64, STRING, U32, GgufBytes, array, scalar
from interop_models import VOCAB, decoder_of, logits_of, make
from llama_cpp import LlamaCpp
from toynn import Sampling, TinyNNTypeError, TinyNNValueError, generate
from toynn.errors import FileFormatError
from toynn.interop import (
    GgufBase,
    export_gguf,
    export_gguf_adapter,
    export_hf,
    export_peft,
    import_gguf,
    import_gguf_adapter,
    import_peft,
)
from toynn.llm.adapters.merge import merged
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.shape import ModelShape

IDS = np.random.default_rng(0).integers(0, VOCAB, 100).tolist()
BOUND = 5e-4  # allowed difference of logits, which reach about 10
# allowed difference for GELU in llama.cpp, because ggml rounds the arguments and results of GELU to F16
GELU_BOUND = 0.02
# The shapes cover both orders of the rows of q and k, biases, an output matrix, and a separate head size.
BASES = ["untied", "head_dim of its own", "qkv_bias", "qwen3", "smollm3", "gemma3"]
each_base = pytest.mark.parametrize("name", BASES)


def targets_of(shape: ModelShape) -> tuple[str, ...]:
    return (*LAYER, "output") if shape.untied else LAYER


# ---- merging ----


@pytest.mark.quick
def test_a_merged_weight_is_the_sum_in_float64_rounded_once() -> None:
    model = make("gqa")
    adapter = adapter_of(model.shape, ("k", "down"), rank=3, alpha=5.0, use_rslora=True)
    result = merged(model, adapter)
    for name, values in model.weights.items():
        expected = values.astype(np.float64)
        if f"{name}.lora_a" in adapter.tensors:
            a, b = (adapter.tensors[f"{name}.lora_{part}"].astype(np.float64) for part in "ab")
            expected = expected + 5.0 / np.sqrt(3.0) * (b @ a)
            assert (result.weights[name] != values).any()
        np.testing.assert_allclose(result.weights[name], expected.astype(np.float32), rtol=1.2e-7, atol=0)
    assert result.foreign.name == ""


@pytest.mark.quick
def test_an_adapter_of_another_base_is_not_merged() -> None:
    with pytest.raises(TinyNNValueError, match="the adapter belongs to a base with n_kv = 2, but the model has 4"):
        merged(make("tied"), adapter_of(make("gqa").shape))
    adapter = adapter_of(make("tied").shape, ("q",), alpha=1e38)
    adapter.tensors["blk.0.attn_q.weight.lora_b"][:] = 1e38
    with pytest.raises(
        TinyNNValueError, match=r"blk\.0\.attn_q\.weight cannot be merged: .* must fit f32, got -?inf at"
    ):
        merged(make("tied"), adapter)


# ---- GGUF ----


@each_base
@pytest.mark.parametrize("use_rslora", [False, True])
def test_an_exported_gguf_adapter_is_imported_unchanged(name: str, use_rslora: bool, tmp_path: Path) -> None:
    shape = make(name).shape
    adapter = adapter_of(shape, targets_of(shape), rank=3, alpha=0.1, use_rslora=use_rslora)
    written = export_gguf_adapter(adapter, tmp_path / "a.gguf")
    assert written.tensors == dict.fromkeys(adapter.tensors, "F32")
    assert_same_adapter(import_gguf_adapter(tmp_path / "a.gguf", shape), adapter)


@pytest.mark.quick
def test_the_keys_of_an_exported_adapter_are_those_that_llama_cpp_reads(tmp_path: Path) -> None:
    adapter = adapter_of(make("tied").shape, ("q",), rank=4, alpha=6.0, use_rslora=True)
    export_gguf_adapter(adapter, tmp_path / "a.gguf", name="mine")
    reader = GGUFReader(tmp_path / "a.gguf")
    keys = {key: field.contents() for key, field in reader.fields.items()}
    expected = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "general.name": "mine",
        "adapter.type": "lora",
        "adapter.lora.alpha": 12.0,  # llama.cpp divides by the rank 4, so the scale is 3 = 6 / sqrt(4)
        "toynn.adapter.alpha": 6.0,
        "toynn.adapter.use_rslora": True,
    }
    assert {key: value for key, value in keys.items() if not key.startswith("GGUF.")} == expected
    names = [tensor.name for tensor in reader.tensors]
    assert names == [f"blk.{layer}.attn_q.weight.lora_{part}" for layer in (0, 1) for part in "ab"]


@pytest.mark.other_programs
@each_base
def test_llama_cpp_applies_the_adapter_beside_its_base(name: str, tmp_path: Path) -> None:
    model = make(name)
    adapter = adapter_of(model.shape, targets_of(model.shape), use_rslora=name == "qkv_bias")
    export_gguf(model, tmp_path / "m.gguf")
    export_gguf_adapter(adapter, tmp_path / "a.gguf")
    with GgufBase(tmp_path / "m.gguf") as base:
        ours = logits_with(base, adapter, IDS)
    both = merged(model, adapter)
    np.testing.assert_allclose(logits_of(both, IDS), ours, rtol=0, atol=BOUND)
    assert np.abs(ours - logits_of(model, IDS)).max() > 1, "the adapter changes too little for a comparison"
    with LlamaCpp(tmp_path / "m.gguf", adapter=tmp_path / "a.gguf") as theirs:
        bound = GELU_BOUND if model.shape.has_gelu else BOUND
        np.testing.assert_allclose(theirs.feed(IDS), ours, rtol=0, atol=bound)
    with decoder_of(both) as decoder:
        expected = list(generate(decoder, IDS[:5], Sampling.greedy(), 80))
    with LlamaCpp(tmp_path / "m.gguf", adapter=tmp_path / "a.gguf") as theirs:
        assert theirs.greedy(IDS[:5], 80) == expected


@pytest.mark.other_programs
@pytest.mark.parametrize("dtype", ["q4_0", "q6_K"])
def test_llama_cpp_applies_the_adapter_beside_a_quantized_base(dtype: str, tmp_path: Path) -> None:
    """llama.cpp rounds activations to 8 bits before a product with a quantized matrix, so its logits are only close."""
    model = make("untied", d_model=256, d_ff=512, n_layers=1)
    adapter = adapter_of(model.shape, targets_of(model.shape))
    export_gguf(model, tmp_path / "m.gguf", dtype)
    export_gguf_adapter(adapter, tmp_path / "a.gguf")
    with GgufBase(tmp_path / "m.gguf") as base:
        ours = logits_with(base, adapter, IDS).astype(np.float64)
    with LlamaCpp(tmp_path / "m.gguf", adapter=tmp_path / "a.gguf") as theirs:
        logits = theirs.feed(IDS).astype(np.float64)
    assert float(np.sqrt(np.mean((logits - ours) ** 2) / np.mean(ours**2))) < 0.1


@pytest.mark.other_programs
def test_a_merged_model_is_quantized_and_computed_by_llama_cpp(tmp_path: Path) -> None:
    model = make("untied", d_model=256, d_ff=512, n_layers=1)
    both = merged(model, adapter_of(model.shape))
    export_gguf(both, tmp_path / "m.gguf", "q4_K")
    ours = logits_of(import_gguf(tmp_path / "m.gguf"), IDS).astype(np.float64)
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        logits = theirs.feed(IDS).astype(np.float64)
    assert float(np.sqrt(np.mean((logits - ours) ** 2) / np.mean(ours**2))) < 0.2


def stored_adapter() -> GgufBytes:
    """Return an adapter of rank 2 on q and v of the model `tiny_shape`, written without toynn."""
    file = GgufBytes([
        ("general.architecture", scalar(STRING, "llama")), ("general.type", scalar(STRING, "adapter")),
        ("adapter.type", scalar(STRING, "lora")), ("adapter.lora.alpha", scalar(F32, 4.0)),
    ])  # fmt: skip
    rng = np.random.default_rng(0)
    for name in ("attn_q", "attn_v"):
        for part in ("a", "b"):
            values = rng.normal(size=16).astype("<f4")
            file = file.with_tensor(
                f"blk.0.{name}.weight.lora_{part}", [8, 2] if part == "a" else [2, 8], 0, None, values.tobytes()
            )
    return file


def tiny_shape() -> ModelShape:
    return ModelShape(
        vocab=20, d_model=8, n_heads=2, n_kv=2, d_ff=8, n_layers=1, ctx=8, rope_base=1e4, rms_eps=1e-5, untied=False
    )


def read_gguf(folder: Path, file: GgufBytes) -> TrainedAdapter:
    (folder / "a.gguf").write_bytes(file.build())
    return import_gguf_adapter(folder / "a.gguf", tiny_shape())


@pytest.mark.quick
def test_an_adapter_of_another_program_is_read(tmp_path: Path) -> None:
    adapter = read_gguf(tmp_path, stored_adapter())
    assert (adapter.spec.rank, adapter.spec.scale, adapter.spec.targets) == (2, 2.0, ("q", "v"))
    without = stored_adapter().set("adapter.lora.alpha", None)
    assert read_gguf(tmp_path, without).spec.scale == 1.0, "the default of llama.cpp"


Q_A, Q_B = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"
NAN = np.full(16, np.nan, "<f4").tobytes()
WRONG_GGUF: dict[str, tuple[Callable[[GgufBytes], GgufBytes], str]] = {
    "a model": (lambda f: f.set("general.type", scalar(STRING, "model")), "the file is not an adapter"),
    "without a type": (lambda f: f.set("general.type", None), "the file is not an adapter"),
    "another kind": (lambda f: f.set("adapter.type", scalar(STRING, "ia3")), "adapter.type is 'ia3', but toynn"),
    "another architecture": (
        lambda f: f.set("general.architecture", scalar(STRING, "qwen2")),
        "the adapter is for the architecture 'qwen2', but the base has the architecture 'llama'",
    ),
    "an activated adapter": (
        lambda f: f.set("adapter.alora.invocation_tokens", array(U32, [1, 2])),
        r"does not know the key 'adapter\.alora\.invocation_tokens'",
    ),
    "alpha is text": (lambda f: f.set("adapter.lora.alpha", scalar(STRING, "8")), "lora.alpha must be one number"),
    "negative alpha": (lambda f: f.set("adapter.lora.alpha", scalar(F32, -1.0)), "alpha must be"),
    "alpha is nan": (lambda f: f.set("adapter.lora.alpha", scalar(F32, float("nan"))), "alpha must be"),
    "two alphas": (lambda f: f.set("toynn.adapter.alpha", scalar(F64, 9.0)), "contradicts adapter.lora.alpha = 4"),
    "no tensors": (lambda f: GgufBytes(f.values), "the adapter must have tensors, got none"),
    "one matrix is missing": (lambda f: f.without_tensor(Q_B), f"'{Q_B}' is missing"),
    "the other is missing": (lambda f: f.without_tensor(Q_A), f"'{Q_A}' is missing"),
    "an unknown matrix": (
        lambda f: f.with_tensor("blk.0.attn_norm.weight", [8], 0, None, b"\0" * 32),
        r"'blk\.0\.attn_norm\.weight' does not belong to a LoRA adapter",
    ),
    "a layer that the base lacks": (
        lambda f: f.with_tensor("blk.1.attn_q.weight.lora_a", [8, 2], 0, None, b"\0" * 64), "of this base",
    ),
    "another width": (
        lambda f: f.with_tensor(Q_A, [16, 1], 0, None, b"\0" * 64), r"must have shape \(1, 8\), got \(1, 16\)",
    ),
    "another rank": (
        lambda f: f.with_tensor(Q_B, [1, 8], 0, None, b"\0" * 32), r"must have shape \(8, 2\), got \(8, 1\): the",
    ),
    "a rank larger than the matrix": (
        lambda f: f.with_tensor(Q_A, [8, 9], 0, None, b"\0" * 288), r"rank must be at most 8 for blk\.0\.attn_q",
    ),
    "one dimension": (lambda f: f.with_tensor(Q_A, [16], 0, None, b"\0" * 64), "must have two dimensions"),
    "nan": (lambda f: f.with_tensor(Q_A, [8, 2], 0, None, NAN), "must hold only finite numbers"),
    "more layers are declared than exist": (
        lambda f: f.with_tensor("output.weight.lora_a", [8, 2], 0, None, b"\0" * 64), "not belong to a LoRA adapter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_GGUF)
def test_a_wrong_gguf_adapter_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    change, message = WRONG_GGUF[case]
    with pytest.raises(FileFormatError, match=message) as caught:
        read_gguf(tmp_path, change(stored_adapter()))
    assert str(caught.value).startswith(str(tmp_path / "a.gguf"))
    assert "\n" not in str(caught.value)


def test_a_model_and_an_adapter_are_not_confused(tmp_path: Path) -> None:
    export_gguf(make("tied"), tmp_path / "m.gguf")
    with pytest.raises(FileFormatError, match=r"m\.gguf: the file is not an adapter"):
        import_gguf_adapter(tmp_path / "m.gguf", make("tied").shape)
    export_gguf_adapter(adapter_of(make("tied").shape), tmp_path / "a.gguf")
    with pytest.raises(FileFormatError, match=r"a\.gguf: the file is an adapter, not a model"):
        import_gguf(tmp_path / "a.gguf")


def test_wrong_arguments_are_refused_by_name(tmp_path: Path) -> None:
    shape = make("tied").shape
    with pytest.raises(TinyNNTypeError, match="adapter must be a TrainedAdapter"):
        export_gguf_adapter(make("tied"), tmp_path / "a.gguf")  # type: ignore[arg-type]
    with pytest.raises(TinyNNTypeError, match="adapter must be a TrainedAdapter"):
        export_peft(make("tied"), tmp_path / "a")  # type: ignore[arg-type]
    with pytest.raises(TinyNNTypeError, match="shape must be a ModelShape"):
        import_gguf_adapter(tmp_path / "a.gguf", None)  # type: ignore[arg-type]
    with pytest.raises(TinyNNTypeError, match="shape must be a ModelShape"):
        import_peft(tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(TinyNNValueError, match=r"gives a scale of .* does not fit f32"):
        export_gguf_adapter(adapter_of(shape, alpha=3e38, use_rslora=True), tmp_path / "a.gguf")
    export_gguf_adapter(adapter_of(shape), tmp_path / "a.gguf")
    with pytest.raises(TinyNNValueError, match="already exists"):
        export_gguf_adapter(adapter_of(shape), tmp_path / "a.gguf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gguf"]


# ---- PEFT ----


@each_base
def test_an_exported_peft_folder_is_imported_unchanged(name: str, tmp_path: Path) -> None:
    shape = make(name).shape
    adapter = adapter_of(shape, targets_of(shape), rank=3, alpha=2.5, use_rslora=name == "qwen3")
    export_peft(adapter, tmp_path / "peft", base="some/base")
    assert_same_adapter(import_peft(tmp_path / "peft", shape), adapter)
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base"
    with pytest.raises(TinyNNValueError, match="already exists"):
        export_peft(adapter, tmp_path / "peft")
    assert_same_adapter(import_peft(export_peft(adapter, tmp_path / "peft", overwrite=True), shape), adapter)
    (tmp_path / "peft" / "other").touch()
    with pytest.raises(TinyNNValueError, match="contains other files"):
        export_peft(adapter, tmp_path / "peft", overwrite=True)


@pytest.fixture
def peft(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the library PEFT, and keep it from using the network."""
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(os.environ, "HF_HUB_DISABLE_PROGRESS_BARS", "1")
    pytest.importorskip("torch")
    return pytest.importorskip("peft")


def base_in_transformers(name: str, folder: Path) -> Any:
    transformers: Any = pytest.importorskip("transformers")
    export_hf(make(name), folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def logits_of_torch(model: Any) -> np.ndarray[Any, Any]:
    import torch

    with torch.no_grad():
        result: np.ndarray[Any, Any] = model(torch.tensor([IDS])).logits[0].float().numpy()
    return result


@pytest.mark.other_programs
@pytest.mark.oracle_torch
@each_base
def test_peft_computes_the_same_logits_with_the_exported_folder(name: str, tmp_path: Path, peft: Any) -> None:
    model = make(name)
    adapter = adapter_of(model.shape, targets_of(model.shape), use_rslora=name == "qkv_bias")
    export_peft(adapter, tmp_path / "peft")
    theirs = peft.PeftModel.from_pretrained(base_in_transformers(name, tmp_path / "hf"), tmp_path / "peft")
    np.testing.assert_allclose(logits_of_torch(theirs.eval()), logits_with(model, adapter, IDS), rtol=0, atol=BOUND)


@pytest.mark.other_programs
@pytest.mark.oracle_torch
@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], "all-linear", r".*\.self_attn\.[kv]_proj"])
def test_an_adapter_of_peft_is_imported_with_the_same_logits(
    targets: list[str] | str, use_rslora: bool, tmp_path: Path, peft: Any
) -> None:
    import torch

    config = peft.LoraConfig(
        r=4, lora_alpha=7, use_rslora=use_rslora, target_modules=targets, lora_dropout=0.1, init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(3)
    theirs = peft.get_peft_model(base_in_transformers("gqa", tmp_path / "hf"), config).eval()
    theirs.save_pretrained(tmp_path / "peft")
    (tmp_path / "peft" / "README.md").unlink(missing_ok=True)
    model = make("gqa")
    adapter = import_peft(tmp_path / "peft", model.shape)
    assert adapter.spec.scale == pytest.approx(7 / (2 if use_rslora else 4))
    ours = logits_with(model, adapter, IDS)
    assert np.abs(ours - logits_of(model, IDS)).max() > 0.5
    np.testing.assert_allclose(logits_of_torch(theirs), ours, rtol=0, atol=BOUND)


Config = dict[str, Any]
Tensors = dict[str, Any]
WRONG_PEFT: dict[str, tuple[Callable[[Config, Tensors], None], str]] = {
    "another type": (lambda c, t: c.update(peft_type="IA3"), r"adapter_config\.json: peft_type is 'IA3', but"),
    "transposed": (lambda c, t: c.update(fan_in_fan_out=True), "fan_in_fan_out is True, but toynn supports only False"),
    "biases": (lambda c, t: c.update(bias="all"), "bias is 'all', but toynn supports only 'none'"),
    "dora": (lambda c, t: c.update(use_dora=True), "toynn does not support 'use_dora', which is True"),
    "ranks": (lambda c, t: c.update(rank_pattern={"q_proj": 2}), "toynn does not support 'rank_pattern'"),
    "alphas": (lambda c, t: c.update(alpha_pattern={"q_proj": 2}), "toynn does not support 'alpha_pattern'"),
    "some layers": (lambda c, t: c.update(layers_to_transform=[0]), "toynn does not support 'layers_to_transform'"),
    "whole modules": (lambda c, t: c.update(modules_to_save=["lm_head"]), "toynn does not support 'modules_to_save'"),
    "an unknown key": (lambda c, t: c.update(future=0.5), "toynn does not support 'future', which is 0.5"),
    "pissa": (lambda c, t: c.update(init_lora_weights="pissa"), "init_lora_weights is 'pissa', which changes"),
    "r of another rank": (lambda c, t: c.update(r=5), r"r is 5 in adapter_config\.json, but the .* rank 4"),
    "r is huge": (lambda c, t: c.update(r=2**70), "r is .*, but the matrices"),
    "no r": (lambda c, t: c.pop("r"), "r is None in .*, but the matrices"),
    "no alpha": (lambda c, t: c.pop("lora_alpha"), "lora_alpha must be a number, got"),
    "alpha is zero": (lambda c, t: c.update(lora_alpha=0), "lora_alpha must be"),
    "rslora is text": (lambda c, t: c.update(use_rslora="yes"), "use_rslora must be"),
    "other targets": (lambda c, t: c.update(target_modules=["q_proj"]), r"target_modules is \['q_proj'\] in"),
    "no targets": (lambda c, t: c.update(target_modules=None), "target_modules is None in .*, but"),
    "a weight of the base": (
        lambda c, t: t.update({"base_model.model.lm_head.base_layer.weight": np.zeros((2, 2), np.float32)}),
        "is a weight of the base, not of the adapter; save the adapter with save_embedding_layers=False",
    ),
    "a missing matrix": (lambda c, t: t.pop(next(iter(t))), "is missing; toynn needs both matrices"),
    "an unknown matrix": (lambda c, t: t.update(x=np.zeros(2, np.float32)), "'x' does not belong to a LoRA adapter"),
    "another base": (
        lambda c, t: t.update({name: np.zeros((4, 80), np.float32) for name in t if "q_proj.lora_A" in name}),
        r"must have shape \(4, 64\), got \(4, 80\): the adapter belongs to another base",
    ),
    "integers": (
        lambda c, t: t.update({name: np.zeros((4, 64), np.int32) for name in t if "q_proj.lora_A" in name}),
        "the dtype is I32, but toynn reads only",
    ),
    "infinite": (
        lambda c, t: t.update({name: np.full((4, 64), np.inf, np.float32) for name in t if "q_proj.lora_A" in name}),
        "must hold only finite numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_PEFT)
def test_a_wrong_peft_folder_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    change, message = WRONG_PEFT[case]
    shape = make("tied").shape
    folder = export_peft(adapter_of(shape, ("q", "v")), tmp_path / "peft")
    path, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config, tensors = json.loads(path.read_text()), dict(load_file(weights))
    change(config, tensors)
    path.write_text(json.dumps(config))
    save_file(tensors, weights)
    with pytest.raises(FileFormatError, match=message) as caught:
        import_peft(folder, shape)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_files_of_peft_is_refused(tmp_path: Path) -> None:
    shape = make("tied").shape
    with pytest.raises(FileFormatError, match=r"is not a folder of PEFT: it contains no adapter_config\.json"):
        import_peft(tmp_path, shape)
    folder = export_peft(adapter_of(shape, ("q", "v")), tmp_path / "peft")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(FileFormatError, match=r"contains no adapter_model\.safetensors; toynn does not load pickle"):
        import_peft(folder, shape)
    (folder / "adapter_config.json").write_text("[1]")
    with pytest.raises(FileFormatError, match="the content must be a JSON object, got list"):
        import_peft(folder, shape)

"""GGUF files of the Ruby project toy: exports have the keys and row order of toy, and imports read all layouts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from commands import toynn
from engines import realized, weights_of
from gguf_bytes import BOOL, F32, STRING, U32, GgufBytes, of_toy, scalar
from interop_models import SHAPES, assert_same_model, logits_of, make
from llama_cpp import LlamaCpp
from toynn import RopeScaling, SmolLM2Config, TinyNNTypeError, TinyNNValueError, load
from toynn.interop import export_gguf, export_toy, import_gguf
from toynn.llm.layouts import to_per_head
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import write_checkpoint

PLAIN = [
    name
    for name, options in SHAPES.items()
    if not {"donor_d_in", "architecture"} & set(options) and "hf" not in name and "yarn" not in name
]
NATIVE = "toy.ggml_native"


def without_tokenizer(name: str, **changes: Any) -> TrainedModel:
    return make(name, tokens=None, **changes)


# ---- round trips ----


@pytest.mark.quick
@pytest.mark.parametrize("layout", ["per_head", "fused"])
@pytest.mark.parametrize("cfg", [SmolLM2Config.tiny(), SmolLM2Config.gqa(97, 24, 6, 2, 40, 2, 64, 1e5, 1e-5)])
def test_logits_after_a_round_trip_have_the_same_bits(cfg: SmolLM2Config, layout: str, tmp_path: Path) -> None:
    """The Ruby project toy tests a round trip as follows: random weights, and 32 tokens (7 i + 3) mod vocab."""
    ids = [(7 * i + 3) % cfg.vocab for i in range(32)]
    with realized(cfg, layout=layout, t_seq=32, untied=True) as engine:
        before = engine.forward(ids)
        with realized(cfg, layout="fused", t_seq=32, untied=True) as fused:
            model = TrainedModel(ModelShape.of(cfg, untied=True), weights_of(fused), None)
        export_toy(model, tmp_path / "m.gguf")
        back = import_gguf(tmp_path / "m.gguf")
        for name, values in (to_per_head(back.weights, cfg) if layout == "per_head" else back.weights).items():
            engine.upload_weight(name, np.zeros_like(values))
            engine.upload_weight(name, values)
        after = engine.forward(ids)
    assert np.abs(before).max() > 0.01
    assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("name", PLAIN)
def test_a_model_exported_for_toy_is_imported_unchanged(name: str, tmp_path: Path) -> None:
    model = without_tokenizer(name)
    export_toy(model, tmp_path / "m.gguf")
    back = import_gguf(tmp_path / "m.gguf")
    assert back.foreign.name == "toy-from-scratch"
    assert_same_model(dataclasses.replace(back, foreign=model.foreign), model)


def test_a_lens_is_folded_in_float64(tmp_path: Path) -> None:
    model = without_tokenizer("projection lens")
    export_toy(model, tmp_path / "m.gguf")
    back = import_gguf(tmp_path / "m.gguf")
    product = model.weights["token_embd.weight"].astype(np.float64) @ model.weights["lens.proj.weight"].T.astype(float)
    assert back.weights["token_embd.weight"].tobytes() == product.astype(np.float32).tobytes()


@pytest.mark.parametrize("scaling", [RopeScaling.linear(4.0), RopeScaling.llama3(8.0, 1.0, 4.5, 64)])
def test_rope_scaling_is_kept(scaling: RopeScaling, tmp_path: Path) -> None:
    export_toy(without_tokenizer("tied", rope_scaling=scaling), tmp_path / "m.gguf")
    assert import_gguf(tmp_path / "m.gguf").shape.rope_scaling == scaling


# ---- exported files ----


@pytest.mark.quick
def test_keys_and_tensors_are_those_of_the_reference_in_its_order(tmp_path: Path) -> None:
    model = make("untied", n_kv=2)
    written = export_toy(model, tmp_path / "m.gguf", run_id="run-7", step=12)
    assert written.bytes == (tmp_path / "m.gguf").stat().st_size
    assert written.notes == ("a file for toy has no tokenizer: give toy token ids",)
    reader = GGUFReader(tmp_path / "m.gguf")
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    shape = model.shape
    expected = {
        "general.architecture": "llama",
        "general.name": "toy-from-scratch",
        "general.run_id": "run-7",
        "general.step": 12,
        "llama.vocab_size": shape.vocab,
        "llama.embedding_length": shape.d_model,
        "llama.feed_forward_length": shape.d_ff,
        "llama.block_count": shape.n_layers,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.context_length": shape.ctx,
        "llama.attention.layer_norm_rms_epsilon": np.float32(shape.rms_eps),
        "llama.rope.freq_base": np.float32(shape.rope_base),
        "toy.checkpoint_format": "toy-from-scratch/v1",
        "toy.n_params_written": 3 + 9 * 2,
        "toy.ggml_native": True,
    }
    assert {key: field.contents() for key, field in fields.items()} == expected
    assert list(fields) == list(expected)
    kinds = {key: field.types[0].name for key, field in fields.items()}
    assert kinds["general.step"] == kinds["toy.n_params_written"] == kinds["llama.vocab_size"] == "UINT32"
    assert kinds["llama.rope.freq_base"] == "FLOAT32"
    assert kinds[NATIVE] == "BOOL"
    parts = ["attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    names = ["token_embd.weight", "output_norm.weight", "output.weight"]
    names += [f"blk.{i}.{part}.weight" for i in range(2) for part in parts]
    assert [tensor.name for tensor in reader.tensors] == names
    # the rows of q and k have the same order as in toynn; a file for llama.cpp has another order
    for tensor in reader.tensors:
        assert tensor.tensor_type.name == "F32"
        assert tensor.data.tobytes() == model.weights[tensor.name].tobytes()


def test_a_head_size_of_its_own_adds_the_keys_that_toys_reader_knows(tmp_path: Path) -> None:
    export_toy(without_tokenizer("head_dim of its own"), tmp_path / "m.gguf")
    fields = GGUFReader(tmp_path / "m.gguf").fields
    assert fields["llama.attention.key_length"].contents() == fields["llama.attention.value_length"].contents() == 10


@pytest.mark.other_programs
def test_llama_cpp_refuses_a_file_for_toy_instead_of_computing_nonsense(tmp_path: Path) -> None:
    export_toy(make("tied"), tmp_path / "m.gguf")
    with pytest.raises(AssertionError, match="error loading model vocabulary"), LlamaCpp(tmp_path / "m.gguf"):
        pass


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rope_scaling": RopeScaling.yarn(4.0, 64)}, "rope_scaling.freq_scale = 0.25 cannot be exported"),
        (
            {"rope_scaling": RopeScaling.llama3_hf(8.0, 1.0, 4.0, 64)},
            "rope_scaling.kind = 'llama3_hf' cannot be exported",
        ),
        ({"rope_scaling": RopeScaling(attn_factor=2.0)}, "rope_scaling.attn_factor = 2.0 cannot be exported"),
    ],
)
def test_a_scaling_that_toy_does_not_have_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=says):
        export_toy(without_tokenizer("tied", **changes), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_refused_by_name(tmp_path: Path) -> None:
    model = without_tokenizer("tied")
    path = tmp_path / "m.gguf"
    for arguments, error, says in (
        ({"model": None}, TinyNNTypeError, "model must be a TrainedModel"),
        ({"run_id": 3}, TinyNNTypeError, "run_id must be a str"),
        ({"step": -1}, TinyNNValueError, "step must be an integer from 0"),
        ({"step": 2**32}, TinyNNValueError, "step must be an integer from 0"),
        ({"path": tmp_path}, TinyNNValueError, "is a folder"),
        ({"path": tmp_path / "no" / "m.gguf"}, TinyNNValueError, "does not exist"),
        ({"overwrite": 1}, TinyNNTypeError, "overwrite must be True or False"),
    ):
        path.write_bytes(b"old")
        with pytest.raises(error, match=says):
            export_toy(**{"model": model, "path": path, **arguments})  # type: ignore[arg-type]
        assert path.read_bytes() == b"old"
    with pytest.raises(TinyNNValueError, match="already exists"):
        export_toy(model, path)
    export_toy(model, path, overwrite=True)
    assert_same_model(dataclasses.replace(import_gguf(path), foreign=model.foreign), model)


# ---- imported files ----


def write_like_toy(model: TrainedModel, path: Path, *, native: bool | None, form: str | None) -> None:
    """Write the model with one tensor for each head, as the first versions of toy did."""
    writer = GGUFWriter(path, "llama")
    shape = model.shape
    writer.add_embedding_length(shape.d_model)
    writer.add_feed_forward_length(shape.d_ff)
    writer.add_block_count(shape.n_layers)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv)
    writer.add_context_length(shape.ctx)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_rope_freq_base(shape.rope_base)
    if native is not None:
        writer.add_bool(NATIVE, native)
    if form is not None:
        writer.add_string("toy.checkpoint_format", form)
    for name, values in to_per_head(model.weights, shape).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", ["tied", "untied", "gqa", "qkv_bias"])
def test_a_file_with_one_tensor_for_each_head_is_read(name: str, tmp_path: Path) -> None:
    model = without_tokenizer(name)
    for native, form in ((True, None), (None, "toy-from-scratch/v1")):
        write_like_toy(model, tmp_path / "m.gguf", native=native, form=form)
        assert_same_model(import_gguf(tmp_path / "m.gguf"), model)


def test_the_tokenizer_of_a_file_of_toy_is_read_and_its_rows_are_not_reordered(tmp_path: Path) -> None:
    """Without the check of the key, such a file would be imported with wrong rows of q and k."""
    model = make("gqa")
    export_gguf(model, tmp_path / "theirs.gguf")
    reader = GGUFReader(tmp_path / "theirs.gguf")
    writer = GGUFWriter(tmp_path / "toy.gguf", "llama")
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub)
    writer.add_bool(NATIVE, True)
    for name, values in model.weights.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    back = import_gguf(tmp_path / "toy.gguf")
    assert_same_model(back, model)
    ids = list(range(20))
    np.testing.assert_array_equal(logits_of(back, ids), logits_of(model, ids))
    assert not np.allclose(logits_of(import_gguf(tmp_path / "theirs.gguf"), ids), 0)


TOY, BY_HEAD = of_toy(by_head=False), of_toy(by_head=True)


def test_the_small_files_of_the_next_test_are_read_without_their_fault(tmp_path: Path) -> None:
    for file in (TOY, BY_HEAD):
        (tmp_path / "m.gguf").write_bytes(file.build())
        assert import_gguf(tmp_path / "m.gguf").tokenizer is None


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (TOY.set(NATIVE, scalar(BOOL, 0)), "toy.ggml_native is false: the file has toy's old layout"),
        (TOY.set(NATIVE, scalar(U32, 1)), "toy.ggml_native must be true or false, got 1"),
        (TOY.set(NATIVE, scalar(STRING, "yes")), "toy.ggml_native must be true or false, got 'yes'"),
        (BY_HEAD.set(NATIVE, None), "head_0.weight' shows that this is a file of toy, but the key"),
        (
            TOY.set(NATIVE, None).set("toy.checkpoint_format", scalar(STRING, "toy-from-scratch/v1")),
            "the key toy.checkpoint_format shows that this is a file of toy, but the key toy.ggml_native",
        ),
        (
            TOY.set("toy.checkpoint_format", scalar(STRING, "toy-from-scratch/v2")),
            "toy.checkpoint_format is 'toy-from-scratch/v2', but toynn reads only 'toy-from-scratch/v1'",
        ),
        (TOY.set(NATIVE, None), "the key tokenizer.ggml.model is missing"),
        (
            TOY.with_tensor("blk.0.ffn_up.weight", [8, 4], 0, None, b"\0" * 128),
            "must have shape (8, 4), got (4, 8); the old layout of toy, with transposed matrices, cannot be read",
        ),
        (BY_HEAD.without_tensor("blk.0.attn_q.head_1.weight"), "the tensor 'blk.0.attn_q.head_1.weight' is missing"),
        (
            BY_HEAD.with_tensor("blk.0.attn_q.head_2.weight", [4, 2], 0, None, b"\0" * 32),
            "the tensor 'blk.0.attn_q.head_2.weight' is not part of any model",
        ),
        (
            BY_HEAD.set("llama.attention.head_count", scalar(U32, 2**31 - 1)),
            "must have a tensor for each of 2147483647 query heads",
        ),
        (
            TOY.with_tensor("blk.0.attn_q.head_0.weight", [4, 2], 0, None, b"\0" * 32),
            "the tensor 'blk.0.attn_q.head_1.weight' is missing",
        ),
        (
            TOY.set("llama.rope.scaling.type", scalar(STRING, "yarn")).set(
                "llama.rope.scaling.factor", scalar(F32, 2.0)),
            "llama.rope.scaling.type is 'yarn', but toynn supports only 'linear' and 'llama3' in a file of toy",
        ),
        (
            TOY.set("llama.rope.scaling.type", scalar(STRING, "linear")),
            "the key llama.rope.scaling.factor is missing",
        ),
        (
            TOY.set("llama.rope.scaling.type", scalar(STRING, "linear")).set(
                "llama.rope.scaling.factor", scalar(F32, 0.5)),
            "RopeScaling.factor must be a finite number, 1 or above",
        ),
        (
            TOY.with_tensor("rope_freqs.weight", [1], 0, None, b"\0" * 4),
            "the tensor 'rope_freqs.weight' is not part of any model",
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_of_toy_is_refused_by_name(file: GgufBytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(file.build())
    with pytest.raises(TinyNNValueError) as caught:
        import_gguf(tmp_path / "m.gguf")
    assert says in str(caught.value)
    assert str(tmp_path / "m.gguf") in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- the command, and TextModel.save ----


def test_the_command_and_save_write_files_for_toy(tmp_path: Path) -> None:
    model = make("gqa")
    write_checkpoint(tmp_path / "run", model, step=7)
    done = toynn("export", tmp_path / "run", tmp_path / "m.gguf", "--for", "toy")
    assert (done.returncode, done.stderr) == (0, "note: a file for toy has no tokenizer: give toy token ids\n")
    fields = GGUFReader(tmp_path / "m.gguf").fields
    assert [fields[key].contents() for key in ("general.run_id", "general.step", NATIVE)] == ["run", 7, True]
    assert import_gguf(tmp_path / "m.gguf").weights.keys() == model.weights.keys()
    done = toynn("export", tmp_path / "run", tmp_path / "named", "--for", "toy", "--name", "r2", "--json")
    assert done.returncode == 0, done.stderr
    assert GGUFReader(tmp_path / "named").fields["general.run_id"].contents() == "r2"
    with load(tmp_path / "run") as text_model, pytest.warns(UserWarning, match="has no tokenizer"):
        text_model.save(tmp_path / "saved.gguf", format="toy")
    assert (tmp_path / "saved.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()
    for arguments, says in (
        (
            ["--for", "toy", "--dtype", "q8_0"],
            "--dtype must be f32 in a file for toy, got q8_0; GGUF files for llama.cpp can have other types",
        ),
        (["--for", "toy", "--format", "hf"], "--for toy writes a GGUF file"),
    ):
        done = toynn("export", tmp_path / "run", tmp_path / "x", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
        assert not (tmp_path / "x").exists()

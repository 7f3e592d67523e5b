"""GGUF files: exports follow the format, imports return the exported model, and invalid files are refused."""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gguf_bytes import ARRAY, BOOL, F32, I32, STRING, U32, U64, GgufBytes, array, scalar, text, tiny
from interop_models import END_OF_TEXT, LLAMA3, SHAPES, VOCAB, assert_same_model, logits_of, make, tokenizer
from toynn import RopeScaling, TinyNNTypeError, TinyNNValueError
from toynn.interop import export_gguf, import_gguf
from toynn.interop.rope_order import to_halves, to_interleaved
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel

each_shape = pytest.mark.parametrize("name", SHAPES)


def stored(path: Path) -> dict[str, tuple[str, bytes]]:
    """Return the type and bytes of each tensor, as the gguf library reads them."""
    return {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in GGUFReader(path).tensors}


# ---- round trips ----


@pytest.mark.quick
@pytest.mark.parametrize("name", [name for name in SHAPES if "donor_d_in" not in SHAPES[name]])
def test_a_model_exported_as_f32_is_imported_unchanged(name: str, tmp_path: Path) -> None:
    model = make(name)
    export_gguf(model, tmp_path / "m.gguf")
    assert_same_model(import_gguf(tmp_path / "m.gguf"), model)


@each_shape
@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_an_imported_model_is_exported_with_the_same_bytes(name: str, dtype: str, tmp_path: Path) -> None:
    """The second export rounds values that are already rounded, which does not change them."""
    export_gguf(make(name), tmp_path / "a.gguf", dtype)
    export_gguf(import_gguf(tmp_path / "a.gguf"), tmp_path / "b.gguf", dtype)
    assert stored(tmp_path / "a.gguf") == stored(tmp_path / "b.gguf")


def test_a_projection_lens_is_exported_as_an_embedding_with_the_same_values(tmp_path: Path) -> None:
    model = make("projection lens")
    export_gguf(model, tmp_path / "m.gguf")
    back = import_gguf(tmp_path / "m.gguf")
    assert back.shape == dataclasses.replace(model.shape, donor_d_in=0)
    product = model.weights["token_embd.weight"].astype(np.float64) @ model.weights["lens.proj.weight"].T.astype(float)
    assert back.weights["token_embd.weight"].tobytes() == product.astype(np.float32).tobytes()
    ids = list(range(40))
    np.testing.assert_allclose(logits_of(back, ids), logits_of(model, ids), atol=2e-4)


def test_a_projected_embedding_that_exceeds_f32_is_refused(tmp_path: Path) -> None:
    model = make("projection lens")
    model.weights["lens.proj.weight"][:] = 1e38
    model.weights["token_embd.weight"][:] = 1e38
    with pytest.raises(TinyNNValueError, match="must fit f32, got"):
        export_gguf(model, tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tokens", [None, tokenizer(end="")], ids=["no tokenizer", "no end of text"])
def test_a_model_without_a_tokenizer_or_an_end_of_text_is_imported_unchanged(
    tokens: bytes | None, tmp_path: Path
) -> None:
    model = make("tied", tokens=tokens)
    assert model.eos_id is None
    export_gguf(model, tmp_path / "m.gguf")
    assert_same_model(import_gguf(tmp_path / "m.gguf"), model)


@pytest.mark.parametrize("rms_eps", [1e-5, 1e-6, 3.3e-5, 1.0])
@pytest.mark.parametrize("rope_base", [10000.0, 500000.0, 123456.7])
def test_settings_that_gguf_rounds_to_f32_are_imported_unchanged(
    rms_eps: float, rope_base: float, tmp_path: Path
) -> None:
    model = make("tied", rms_eps=rms_eps, rope_base=rope_base)
    export_gguf(model, tmp_path / "m.gguf")
    assert_same_model(import_gguf(tmp_path / "m.gguf"), model)


@settings(max_examples=50, deadline=None)
@given(n_heads=st.integers(1, 5), half=st.integers(1, 6), cols=st.integers(0, 4))
def test_to_halves_is_the_inverse_of_to_interleaved(n_heads: int, half: int, cols: int) -> None:
    """Row i of a head moves to row 2i, and row i + half to row 2i + 1, for weights and for biases (cols = 0)."""
    shape = (n_heads * 2 * half, cols) if cols else (n_heads * 2 * half,)
    rows = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    turned = to_interleaved(rows, n_heads)
    for head in range(n_heads):
        at = head * 2 * half
        for i in range(half):
            assert (turned[at + 2 * i] == rows[at + i]).all()
            assert (turned[at + 2 * i + 1] == rows[at + half + i]).all()
    assert to_halves(turned, n_heads).tobytes() == rows.tobytes()


# ---- export ----


@pytest.mark.quick
def test_the_exported_keys_are_those_that_llama_cpp_reads(tmp_path: Path) -> None:
    model = make("everything at once")
    export_gguf(model, tmp_path / "m.gguf")
    fields = {key: field.contents() for key, field in GGUFReader(tmp_path / "m.gguf").fields.items()}
    expected: dict[str, Any] = {
        "general.architecture": "llama",
        "general.file_type": 0,
        "llama.context_length": 256,
        "llama.embedding_length": 48,
        "llama.block_count": 3,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 10,
        "llama.attention.value_length": 10,
        "llama.rope.dimension_count": 10,
        "llama.rope.freq_base": 100.0,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-4),
        "llama.vocab_size": VOCAB,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: fields[key] for key in expected} == expected
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert tokens[0] == END_OF_TEXT
    described = Tokenizer.from_str((model.tokenizer or b"").decode())
    n = described.get_vocab_size()
    assert kinds == [3] + [1] * (n - 1) + [5] * (VOCAB - n), "control, normal, unused"
    assert [described.id_to_token(i) for i in range(n)] == tokens[:n]
    assert tokens[-1] == f"[PAD{VOCAB - 1}]"


@pytest.mark.parametrize(
    ("dtype", "types"),
    [("f32", {"F32"}), ("f16", {"F32", "F16"}), ("bf16", {"F32", "BF16"}), ("q8_0", {"F32", "Q8_0"})],
)
def test_matrices_are_stored_in_the_dtype_and_vectors_in_f32(dtype: str, types: set[str], tmp_path: Path) -> None:
    model = make("qkv_bias")
    written = export_gguf(model, tmp_path / "m.gguf", dtype)
    assert written.notes == ()
    assert written.bytes == (tmp_path / "m.gguf").stat().st_size
    found = {name: kind for name, (kind, _) in stored(tmp_path / "m.gguf").items()}
    assert found == written.tensors
    assert set(found.values()) == types
    for name, kind in found.items():
        assert (kind == "F32") == (dtype == "f32" or model.weights[name].ndim == 1), name


def test_rows_that_do_not_fit_q8_0_blocks_are_stored_as_f16_with_a_note(tmp_path: Path) -> None:
    written = export_gguf(make("head_dim of its own"), tmp_path / "m.gguf", "q8_0")
    assert written.tensors["blk.0.attn_output.weight"] == "F16", "rows of 40"
    assert written.tensors["blk.0.attn_q.weight"] == "Q8_0", "rows of 64"
    assert written.notes == (
        (
            "2 of 20 tensors are stored as f16, because their row length is not a multiple of 32 "
            "(the first is blk.0.attn_output.weight)"
        ),
    )


@pytest.mark.parametrize(("dtype", "number"), [("f16", 65520.0), ("bf16", 3.4e38), ("q8_0", 1e7)])
def test_a_value_too_large_for_the_dtype_is_refused(dtype: str, number: float, tmp_path: Path) -> None:
    model = make("tied")
    model.weights["blk.1.ffn_up.weight"][3, 5] = number
    with pytest.raises(TinyNNValueError, match=r"blk\.1\.ffn_up\.weight contains values up to .*use dtype f32"):
        export_gguf(model, tmp_path / "m.gguf", dtype)
    export_gguf(model, tmp_path / "m.gguf", "f32")


def test_a_file_is_replaced_only_on_request_and_only_by_a_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"precious")
    with pytest.raises(TinyNNValueError, match="already exists"):
        export_gguf(make("tied"), path)
    broken = make("tied")
    broken.weights["output_norm.weight"][0] = np.nan  # the export finds the wrong value only while it writes the file
    with pytest.raises(TinyNNValueError, match=r"output_norm\.weight"):
        export_gguf(broken, path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"], "a temporary file remains"
    export_gguf(make("tied"), path, overwrite=True)
    assert path.read_bytes()[:4] == b"GGUF"
    with pytest.raises(TinyNNValueError, match="is a folder"):
        export_gguf(make("tied"), tmp_path, overwrite=True)


UNKNOWN = {
    "freq_scale": RopeScaling(freq_scale=0.5),
    "ext_factor": RopeScaling.yarn(2.0, 64, ext_factor=0.5),
    "beta_fast": RopeScaling.yarn(2.0, 64, beta_fast=8.0),
    "beta_slow": RopeScaling.yarn(2.0, 64, beta_slow=0.5),
}


@pytest.mark.parametrize(("name", "scaling"), UNKNOWN.items(), ids=UNKNOWN)
def test_rope_scaling_that_llama_cpp_does_not_read_is_refused(name: str, scaling: RopeScaling, tmp_path: Path) -> None:
    model = make("tied", rope_scaling=scaling)
    with pytest.raises(TinyNNValueError, match=rf"rope_scaling\.{name} = .* cannot be exported"):
        export_gguf(model, tmp_path / "m.gguf")


SCALINGS = {
    "factor without a type": ({"factor": scalar(F32, 4.0)}, RopeScaling.linear(4.0)),
    "type none": ({"type": scalar(STRING, "none"), "factor": scalar(F32, 4.0)}, RopeScaling.none()),
    "defaults of yarn": ({"type": scalar(STRING, "yarn"), "factor": scalar(F32, 4.0)}, RopeScaling.yarn(4.0, 16)),
    "attn_factor": ({"attn_factor": scalar(F32, 0.1)}, RopeScaling(attn_factor=0.1)),
}


@pytest.mark.parametrize(("keys", "scaling"), SCALINGS.values(), ids=SCALINGS)
def test_keys_of_rope_scaling_have_the_meaning_of_llama_cpp(
    keys: dict[str, bytes], scaling: RopeScaling, tmp_path: Path
) -> None:
    content = tiny()
    for name, value in keys.items():
        content = content.set(f"llama.rope.scaling.{name}", value)
    assert read(tmp_path / "m.gguf", content.build()).shape.rope_scaling == scaling


def test_factors_of_rope_and_another_scaling_are_refused_together(tmp_path: Path) -> None:
    content = tiny().set("llama.rope.scaling.factor", scalar(F32, 4.0))
    content = content.with_tensor("rope_freqs.weight", [1], 0, None, struct.pack("<f", 1.0))
    with pytest.raises(
        TinyNNValueError, match=r"both rope_freqs\.weight and the scaling 'linear', but toynn supports o"
    ):
        read(tmp_path / "m.gguf", content.build())


def test_wrong_arguments_of_an_export_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TinyNNTypeError, match="model must be a TrainedModel, got dict"):
        export_gguf({}, tmp_path / "m.gguf")  # type: ignore[arg-type]
    with pytest.raises(TinyNNValueError, match=r"dtype must be one of 'f32', 'f16', 'bf16', 'q8_0', .*, got 'q4_k'"):
        export_gguf(make("tied"), tmp_path / "m.gguf", "q4_k")


# ---- files of other programs ----


def write_foreign(path: Path, model: TrainedModel, factors: np.ndarray[Any, Any] | None, **changes: Any) -> None:
    """Write the model as another converter would: without vocab_size, key_length and toynn's own keys."""
    writer = GGUFWriter(path, "llama")
    cfg = model.shape
    writer.add_context_length(cfg.ctx)
    writer.add_embedding_length(cfg.d_model)
    writer.add_block_count(cfg.n_layers)
    writer.add_feed_forward_length(cfg.d_ff)
    writer.add_head_count(cfg.n_heads)
    writer.add_head_count_kv(cfg.n_kv)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_base)
    writer.add_layer_norm_rms_eps(cfg.rms_eps)
    writer.add_tokenizer_model("none")
    for key, value in changes.items():
        writer.add_key_value(f"llama.{key}", *value)
    for name, values in model.weights.items():
        heads = {"attn_q": cfg.n_heads, "attn_k": cfg.n_kv}.get(name.split(".")[-2])
        writer.add_tensor(name, values if heads is None else to_interleaved(values, heads))
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling.llama3_hf(8.0, 1.0, 4.0, 64),
        RopeScaling.llama3_hf(32.0, 1.0, 4.0, 128),
        RopeScaling.llama3(8.0, 1.0, 4.0, 64),
    ],
)
def test_llama3_scaling_is_recognised_by_its_factors(scaling: RopeScaling, tmp_path: Path) -> None:
    """With head_dim 16 and base 100, some factors are 1, some have the largest value, and some are between these two
    values.
    """
    model = make("tied", tokens=None, rope_base=100.0)
    factors = scaling.freq_factors(16, 100.0)
    write_foreign(tmp_path / "m.gguf", model, factors)
    back = import_gguf(tmp_path / "m.gguf")
    np.testing.assert_allclose(back.shape.rope_scaling.freq_factors(16, 100.0), factors, rtol=1e-6)  # type: ignore[arg-type]
    assert back.shape.rope_scaling == scaling


def test_the_scaling_of_llama_3_2_is_recognised(tmp_path: Path) -> None:
    """The model has factor 32, original context 8192, base 500000 and head_dim 64."""
    scaling = RopeScaling.llama3_hf(32.0, 1.0, 4.0, 8192)
    model = make("tied", tokens=None, rope_base=500000.0, n_heads=1, n_kv=1, head_dim=64)
    write_foreign(tmp_path / "m.gguf", model, scaling.freq_factors(64, 500000.0))
    assert import_gguf(tmp_path / "m.gguf").shape.rope_scaling == scaling


def test_unknown_factors_are_refused_and_factors_of_one_mean_no_scaling(tmp_path: Path) -> None:
    model = make("tied", tokens=None)
    write_foreign(tmp_path / "m.gguf", model, np.linspace(1, 5, 8, dtype=np.float32))
    with pytest.raises(TinyNNValueError, match=r"rope_freqs\.weight: the values are not those of llama3"):
        import_gguf(tmp_path / "m.gguf")
    write_foreign(tmp_path / "m.gguf", model, np.ones(8, dtype=np.float32))
    assert_same_model(import_gguf(tmp_path / "m.gguf"), model)


def test_factors_that_contradict_the_keys_are_refused(tmp_path: Path) -> None:
    model = make("llama3 rope")
    export_gguf(model, tmp_path / "m.gguf")
    content = (tmp_path / "m.gguf").read_bytes()
    factors = model.shape.rope_scaling.freq_factors(10, 100.0)
    assert factors is not None
    assert content.count(factors.tobytes()) == 1
    (tmp_path / "m.gguf").write_bytes(content.replace(factors.tobytes(), (factors * 1.5).tobytes()))
    with pytest.raises(TinyNNValueError, match=r"rope_freqs\.weight contradict the keys toynn\.rope_scaling"):
        import_gguf(tmp_path / "m.gguf")


# ---- refused files ----


def read(path: Path, content: bytes) -> TrainedModel:
    path.write_bytes(content)
    return import_gguf(path)


def test_the_small_file_used_by_the_tests_of_refusals_is_valid(tmp_path: Path) -> None:
    model = read(tmp_path / "m.gguf", tiny().build())
    assert model.shape == ModelShape(6, 4, 2, 2, 8, 1, 16, 10000.0, 1e-5)
    assert read(tmp_path / "m.gguf", dataclasses.replace(tiny(), version=2).build()).shape == model.shape


Q = "blk.0.attn_q.weight"
KEYS = {
    "general.architecture": (scalar(STRING, "mamba"), "architecture is 'mamba', but toynn supports only 'llama', 'qw"),
    "qwen2.block_count": (
        scalar(U32, 1),
        "architecture is 'llama', but the file also has 'qwen2.block_count', a key of another architecture",
    ),
    "toynn.bos_token_id": (scalar(I32, -2), "toynn.bos_token_id must be an integer from -1 to 5, got -2"),
    "llama.block_count": (scalar(U32, 2**31), "block_count is 2147483648, but the file has only 11 tensors; "),
    "llama.context_length": (scalar(U32, 0), "ctx must be an integer from 1"),
    "llama.embedding_length": (scalar(STRING, "4"), "embedding_length must be one integer, got '4'"),
    "llama.feed_forward_length": (
        array(I32, [8, 8]),
        "feed_forward_length must be one integer, got an array of 2 int32",
    ),
    "llama.attention.head_count": (scalar(U32, 0), "head_count must be at least 1, got 0"),
    "llama.attention.head_count_kv": (array(U32, [2]), "head_count_kv must be one integer, got an array"),
    "llama.attention.key_length": (scalar(U32, 3), "value_length|head_dim must be even"),
    "llama.attention.value_length": (
        scalar(U32, 4),
        r"value_length must be 2 \(the size of a head of q and k\), got 4",
    ),
    "llama.attention.layer_norm_rms_epsilon": (scalar(F32, float("nan")), "rms_eps must be a finite number"),
    "llama.rope.dimension_count": (
        scalar(U32, 1),
        r"dimension_count must be 2 \(the size of a head of q and k\), got 1",
    ),
    "llama.rope.freq_base": (scalar(BOOL, True), "freq_base must be one number, got True"),
    "llama.rope.scaling.type": (
        scalar(STRING, "longrope"),
        "scaling.type is 'longrope', but toynn supports only 'none', 'linear' and 'yarn'",
    ),
    "llama.rope.scaling.factor": (scalar(F32, 0.5), "factor must be a finite number, 1 or above"),
    "llama.rope.scaling.attn_factor": (scalar(F32, 0.0), "attn_factor must be a finite number above 0"),
    "llama.rope.scaling.yarn_ext_factor": (scalar(F32, 0.5), "yarn_ext_factor is 0.5, but toynn supports only 1.0"),
    "llama.rope.scaling.yarn_beta_fast": (scalar(F32, 8.0), "yarn_beta_fast is 8.0, but toynn supports only 32.0"),
    "llama.rope.scaling.yarn_attn_factor": (scalar(F32, 2.0), "yarn_attn_factor is 2.0, but toynn supports only 1.0"),
    "llama.expert_count": (scalar(U32, 8), "expert_count is 8, but toynn supports only 0"),
    "llama.attention.causal": (scalar(BOOL, False), "causal is False, but toynn supports only True"),
    "llama.vocab_size": (scalar(U32, 7), "vocab_size is 7, but token_embd.weight has 6 rows"),
    "llama.something": (scalar(U32, 1), r"toynn does not know the key 'llama\.something'"),
    "split.count": (scalar(U32, 2), r"split into 2 files; they must be named NAME-00001-of-00002\.gguf and so on"),
    "tokenizer.ggml.model": (
        scalar(STRING, "bert"),
        "model is 'bert', but toynn reads only 'gpt2'.*Hugging Face folder",
    ),
    "general.alignment": (scalar(U32, 48), "alignment must be a power of two from 8 to 2.20, got 48"),
}


@pytest.mark.parametrize("key", KEYS)
def test_an_unsupported_key_is_refused_by_name(key: str, tmp_path: Path) -> None:
    value, mentions = KEYS[key]
    with pytest.raises(TinyNNValueError, match=mentions) as caught:
        read(tmp_path / "m.gguf", tiny().set(key, value).build())
    assert str(caught.value).startswith(f"{tmp_path / 'm.gguf'}: ")


@pytest.mark.parametrize(
    "key",
    [
        "general.architecture", "llama.block_count", "llama.context_length", "llama.embedding_length",
        "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
    ],
)  # fmt: skip
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=f"the key {key} is missing"):
        read(tmp_path / "m.gguf", tiny().set(key, None).build())


@pytest.mark.parametrize(
    ("tensor", "mentions"),
    [
        ((Q, [4, 4], 9, None, b"\0" * 64), "q.weight' has type Q8_1, which ggml cannot convert to f32; convert"),
        ((Q, [4, 4], 4, None, b"\0" * 64), "has type 4, which ggml cannot convert to f32"),
        ((Q, [4, 4], 77777, None, b"\0" * 64), "has type 77777, which ggml cannot convert to f32"),
        ((Q, [4, 4], 8, None, b"\0" * 64), r"has shape \(4, 4\): .* a multiple of 32 for the type q8_0"),
        ((Q, [4, 0], 0, None, b""), r"has shape \(0, 4\)"),
        ((Q, [4, 5], 0, None, b"\0" * 80), r"must have shape \(4, 4\), got \(5, 4\)"),
        ((Q, [4, 4, 1], 0, None, b"\0" * 64), r"must have shape \(4, 4\), got \(1, 4, 4\)"),
        ((Q, [], 0, None, b"\0" * 64), "has 0 dimensions"),
        ((Q, [1] * 5, 0, None, b"\0" * 64), "has 5 dimensions"),
        ((Q, [2**62, 2**62], 0, None, b"\0" * 64), "ends at byte [0-9]+, but the file has"),
        ((Q, [4, 4], 0, 2**63, b"\0" * 64), "ends at byte [0-9]+, but the file has"),
        ((Q, [4, 4], 0, 33, b"\0" * 64), "has offset 33, which is not a multiple of the alignment 32"),
        ((Q, [4, 4], 0, 0, b"\0" * 64), "overlap"),
        ((Q, [4, 4], 0, None, struct.pack("<16f", *[1.0] * 15, float("inf"))), r"got inf at \[3, 3\]"),
        (("blk.0.attn_q.bias", [3], 0, None, b"\0" * 12), r"the tensor 'blk\.0\.attn_k\.bias' is missing"),
        (("blk.0.attn_qkv.weight", [4, 4], 0, None, b"\0" * 64), "'blk.0.attn_qkv.weight' is not part of any model"),
        (("blk.1.attn_q.weight", [4, 4], 0, None, b"\0" * 64), "'blk.1.attn_q.weight' is not part of any model"),
        (("blk.0.attn_output.bias", [4], 0, None, struct.pack("<4f", 0, 0, 1, 0)), "must contain only zeros"),
        (("rope_freqs.weight", [2], 0, None, b"\0" * 8), r"must have shape \(1,\), got \(2,\)"),
        (("rope_freqs.weight", [1], 0, None, b"\0" * 4), "are not those of llama3"),
    ],
)  # fmt: skip
def test_an_invalid_tensor_is_refused_by_name(
    tensor: tuple[str, list[int], int, int | None, bytes], mentions: str, tmp_path: Path
) -> None:
    with pytest.raises(TinyNNValueError, match=mentions):
        read(tmp_path / "m.gguf", tiny().with_tensor(*tensor).build())


def test_a_zero_bias_of_the_output_projection_is_ignored(tmp_path: Path) -> None:
    """Files have a zero bias of the output projection if the model has attention_bias of Hugging Face."""
    model = read(tmp_path / "m.gguf", tiny().with_tensor("blk.0.attn_output.bias", [4], 0, None, b"\0" * 16).build())
    assert "blk.0.attn_output.bias" not in model.weights


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.0.ffn_down.weight"])
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    # With this added tensor, the file still has the number of tensors that one layer needs.
    extra = ("output.weight", [4, 6], 0, None, b"\0" * 96)
    with pytest.raises(TinyNNValueError, match=f"the tensor '{name}' is missing"):
        read(tmp_path / "m.gguf", tiny().without_tensor(name).with_tensor(*extra).build())


TWICE = (tiny().tensors[0][0], *tiny().tensors[0][1:])
HOSTILE = {
    "nothing": (b"", "does not begin with GGUF"),
    "another format": (b"PK\3\4" + b"\0" * 60, "does not begin with GGUF"),
    "only the magic": (b"GGUF", "cut off or damaged"),
    "version 1": (dataclasses.replace(tiny(), version=1).build(), "version is 1, but toynn reads only 2 and 3"),
    "big-endian": (dataclasses.replace(tiny(), version=3 << 24).build(), "big-endian"),
    "2^63 tensors": (dataclasses.replace(tiny(), n_tensors=2**63).build(), r"\d+ tensors do not fit after byte 24"),
    "2^64 - 1 values": (dataclasses.replace(tiny(), n_values=2**64 - 1).build(), r"\d+ values do not fit after"),
    "one tensor too many": (dataclasses.replace(tiny(), n_tensors=12).build(), "cut off|dimensions|type|UTF-8|long"),
    "an endless string": (GgufBytes([("a", struct.pack("<IQ", STRING, 2**63))]).build(), "9223372036854775808 bytes"),
    "an endless key": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**40) + b"x" * 50, "a key is 1099511627776 bytes"),
    "an endless array": (GgufBytes([("a", array(U64, [1], 2**60))]).build(), "values of 'a' do not fit"),
    "endless strings": (GgufBytes([("a", array(STRING, ["x"], 2**60))]).build(), "strings of 'a' do not fit"),
    "an array of arrays": (GgufBytes([("a", array(ARRAY, [], 3))]).build(), "'a' is an array of arrays"),
    "an unknown type": (GgufBytes([("a", struct.pack("<I", 13) + b"\0" * 8)]).build(), "the unknown type 13"),
    "a bool of 2": (GgufBytes([("a", struct.pack("<IB", BOOL, 2))]).build(), "'a' must be 0 or 1, got 2"),
    "a key twice": (GgufBytes([("a", scalar(U32, 1)), ("a", scalar(U32, 2))]).build(), "the key 'a' occurs twice"),
    "a key not in UTF-8": (GgufBytes([(b"\xff", scalar(U32, 1))]).build(), "a key is not valid UTF-8"),
    "a value not in UTF-8": (GgufBytes([("a", struct.pack("<I", STRING) + text(b"\xc3"))]).build(), "not valid UTF-8"),
    "a tensor twice": (dataclasses.replace(tiny(), tensors=[*tiny().tensors, TWICE]).build(), "'token_embd.weight' oc"),
    "an alignment of 2^31": (tiny().set("general.alignment", scalar(U32, 2**31)).build(), "alignment"),
}  # fmt: skip


@pytest.mark.quick
@pytest.mark.parametrize("name", HOSTILE)
def test_an_invalid_header_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    content, mentions = HOSTILE[name]
    with pytest.raises(TinyNNValueError, match=mentions) as caught:
        read(tmp_path / "m.gguf", content)
    assert str(caught.value).startswith(f"{tmp_path / 'm.gguf'}: ")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = tiny().build()
    path = tmp_path / "m.gguf"
    for n in range(len(content)):
        with pytest.raises(TinyNNValueError, match=r"m\.gguf: (the file is cut off|this is not a GGUF file)"):
            read(path, content[:n])


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(TinyNNValueError, match=r"m\.gguf is not a regular file"):
        import_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("path", "error", "mentions"),
    [
        (None, TinyNNTypeError, "path must be a path, got NoneType"),
        (7, TinyNNTypeError, "path must be a path, got int"),
        ("a\0b", TinyNNValueError, "path must not contain a NUL"),
    ],
)
def test_a_value_that_is_not_a_path_is_refused_by_name(path: Any, error: type[Exception], mentions: str) -> None:
    with pytest.raises(error, match=mentions):
        import_gguf(path)
    with pytest.raises(error, match=mentions):
        export_gguf(make("tied"), path)


def test_a_missing_file_raises_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        import_gguf(tmp_path / "none.gguf")


def test_a_folder_is_refused_and_its_descriptor_is_closed(tmp_path: Path) -> None:
    before = os.open(os.devnull, os.O_RDONLY)  # os.open returns the lowest free descriptor
    os.close(before)
    for _ in range(20):
        with pytest.raises(TinyNNValueError, match="is not a regular file"):
            import_gguf(tmp_path)
    after = os.open(os.devnull, os.O_RDONLY)
    os.close(after)
    assert after == before


def test_the_shapes_use_all_three_ranges_of_llama3_scaling() -> None:
    factors = RopeScaling.llama3_hf(**LLAMA3).freq_factors(10, 100.0)
    assert factors is not None
    assert factors[0] == 1
    assert factors[-1] == 8
    assert ((factors > 1) & (factors < 8)).any()

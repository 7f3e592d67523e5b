"""Quantized exports have the bytes of llama.cpp and of the gguf package, and the types that llama-quantize chooses."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import quantize

import toynn.tinynn as nn
from interop_models import VOCAB, logits_of, make
from llama_cpp import LlamaCpp, quantized
from toynn import TinyNNTypeError, TinyNNValueError
from toynn.interop import GGUF_DTYPES, export_gguf, import_gguf
from toynn.interop.gguf_types import stored_values
from toynn.model.trained_model import TrainedModel

KINDS = [one.kind for one in GGUF_DTYPES.values()]
OF_THE_GGUF_PACKAGE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
QUANTIZED = [name for name, one in GGUF_DTYPES.items() if one.kind.name not in ("F32", "F16", "BF16")]
by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))


def numbers(rows: int = 24, cols: int = 512) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return rows of small and large random numbers. Some blocks have only zeros, equal numbers, or tiny numbers."""
    rng = np.random.default_rng(5)
    values = rng.normal(0.0, 1.0, (rows, cols)) * 10.0 ** rng.integers(-4, 3, (rows, 1))
    values[1], values[2, :64], values[3], values[4, ::2] = 0.0, 0.0, 0.7, 1e-7
    return values.astype(np.float32)


@pytest.mark.quick
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in OF_THE_GGUF_PACKAGE], ids=lambda k: k.name)
def test_the_bytes_are_those_of_the_gguf_package(kind: GGMLQuantizationType) -> None:
    values = numbers()
    assert nn.tnn_quantize(kind, values).tobytes() == quantize(values, kind).tobytes()


@pytest.mark.other_programs
@by_name
def test_the_bytes_are_those_of_llama_cpp(kind: GGMLQuantizationType) -> None:
    values = numbers()
    ours = nn.tnn_quantize(kind, values)
    assert ours.tobytes() == quantized(kind, values, ours.size).tobytes()


@pytest.mark.quick
def test_numbers_below_the_smallest_scale_become_zero() -> None:
    for kind in (one.kind for name, one in GGUF_DTYPES.items() if name in QUANTIZED):
        values = np.full((1, 256), 2.0**-61, np.float32)
        values[0, ::3] = -(2.0**-140)
        back = nn.tnn_dequantize(kind, nn.tnn_quantize(kind, values), (256,))
        assert not back.any(), kind.name


@pytest.mark.quick
@pytest.mark.parametrize(
    ("dtype", "values", "message"),
    [
        (8, [np.nan], r"values must hold only finite numbers to be converted, got -?(nan|inf) at \["),
        (0, [np.inf], r"values must hold only finite numbers to be converted, got -?(nan|inf) at \["),
        (12, [-np.inf], r"values must hold only finite numbers to be converted, got -?(nan|inf) at \["),
        (2, [1e6], "values contains 1e\\+06, which is too large for q4_0"),
        (14, [3e8], "values contains 3e\\+08, which is too large for q6_K"),
        (1, [7e4], "values contains 70000, which is too large for f16"),
        (16, [1.0], r"f32 cannot be converted to dtype = 16 \(iq2_xxs\); use for example 8 \(q8_0\)"),
        (21, [1.0], r"f32 cannot be converted to dtype = 21 \(iq3_s\)"),
        (9, [1.0], "f32 cannot be converted to dtype = 9"),
        (24, [1.0], "f32 cannot be converted to dtype = 24"),
        (-1, [1.0], "f32 cannot be converted to dtype = -1"),
    ],
)
def test_numbers_and_types_that_cannot_be_quantized_are_refused(dtype: int, values: list[float], message: str) -> None:
    row = np.ones(256, np.float32)
    row[100:101] = values
    with pytest.raises(TinyNNValueError, match=message):
        nn.tnn_quantize(dtype, row)


@pytest.mark.quick
def test_arrays_that_are_not_rows_of_blocks_are_refused() -> None:
    for shape in ((31,), (2, 40), (0, 32), ()):
        with pytest.raises(TinyNNValueError, match="the last dimension must be a positive multiple of 32 for q8_0"):
            nn.tnn_quantize(8, np.ones(shape, np.float32))
    for other in (np.ones(32), np.ones((32, 32), np.float32)[:, ::2], [1.0] * 32):
        with pytest.raises(TinyNNTypeError, match="values must be a contiguous array of float32"):
            nn.tnn_quantize(8, other)  # type: ignore[arg-type]


def test_parts_of_a_matrix_have_the_bytes_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = numbers()
    monkeypatch.setattr("toynn.interop.gguf_types._CHUNK", 3 * 512)
    whole = nn.tnn_quantize(GGMLQuantizationType.Q4_K, values)
    assert stored_values("w", values, GGMLQuantizationType.Q4_K).tobytes() == whole.tobytes()


def wide(d_model: int, *, untied: bool) -> TrainedModel:
    return make("untied" if untied else "tied", d_model=d_model, d_ff=2 * d_model, n_layers=1)


@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("untied", [False, True], ids=["tied", "untied"])
def test_the_output_matrix_has_the_type_of_llama_quantize(dtype: str, untied: bool, tmp_path: Path) -> None:
    written = export_gguf(wide(256, untied=untied), tmp_path / "m.gguf", dtype)
    assert written.notes == ()
    kind = GGUF_DTYPES[dtype].kind.name
    output = {"q8_0": "Q8_0", "mxfp4": "Q8_0"}.get(dtype, "Q6_K")
    embedding = {"tq1_0": "Q4_K", "tq2_0": "Q4_K"}.get(dtype, kind) if untied else output
    layer = {name: used for name, used in written.tensors.items() if name.startswith("blk.")}
    assert {used for name, used in layer.items() if "norm" not in name} == {kind}
    assert {used for name, used in written.tensors.items() if "norm" in name} == {"F32"}
    assert written.tensors["token_embd.weight"] == embedding
    assert not untied or written.tensors["output.weight"] == output
    assert int(GGUFReader(tmp_path / "m.gguf").fields["general.file_type"].contents()) == GGUF_DTYPES[dtype].file_type


SHORT = {
    "q4_0": "Q4_0", "q2_K": "Q4_0", "q3_K": "Q4_0", "q4_K": "Q5_0", "q5_K": "Q5_1", "q6_K": "Q8_0", "iq4_xs": "IQ4_NL",
    "tq1_0": "Q4_0", "tq2_0": "Q4_0", "iq4_nl": "IQ4_NL", "mxfp4": "MXFP4",
}  # fmt: skip


@pytest.mark.parametrize("dtype", SHORT)
def test_rows_that_are_not_whole_blocks_have_the_next_type(dtype: str, tmp_path: Path) -> None:
    """Rows of 64 numbers are whole blocks of 32, but not of 256. Rows of 40 numbers are not whole blocks of either
    size.
    """
    written = export_gguf(make("head_dim of its own"), tmp_path / "m.gguf", dtype)
    assert written.tensors["blk.0.attn_q.weight"] == SHORT[dtype]
    assert written.tensors["blk.0.attn_output.weight"] == "F16", "rows of 40"
    assert written.tensors["token_embd.weight"] == "Q8_0", "the output matrix"
    block = GGML_QUANT_SIZES[GGUF_DTYPES[dtype].kind][0]
    f16 = f"2 of 20 tensors are stored as f16, because their row length is not a multiple of {block} "
    assert f"{f16}(the first is blk.0.attn_output.weight)" in written.notes
    assert len(written.notes) == (1 if block == 32 else 2)


@pytest.mark.other_programs
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_llama_cpp_computes_with_the_quantized_file(dtype: str, tmp_path: Path) -> None:
    """llama.cpp rounds activations to 8 bits before a product with a quantized matrix, so its logits are only close."""
    path = tmp_path / "m.gguf"
    export_gguf(wide(256, untied=True), path, dtype)
    ids = np.random.default_rng(0).integers(0, VOCAB, 40).tolist()
    ours = logits_of(import_gguf(path), ids).astype(np.float64)
    with LlamaCpp(path) as theirs:
        logits = theirs.feed(ids).astype(np.float64)
    assert np.abs(ours).max() > 3
    away = float(np.sqrt(np.mean((logits - ours) ** 2) / np.mean(ours**2)))
    assert away < 0.2


def test_the_values_of_a_quantized_export_are_near_those_of_the_model(tmp_path: Path) -> None:
    """A type with more bits has a smaller rounding error."""
    model = wide(256, untied=True)
    errors = {}
    for dtype in ("q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "q8_0"):
        export_gguf(model, tmp_path / "m.gguf", dtype, overwrite=True)
        back = import_gguf(tmp_path / "m.gguf").weights["blk.0.ffn_up.weight"]
        given = model.weights["blk.0.ffn_up.weight"]
        errors[dtype] = float(np.sqrt(np.mean((back - given) ** 2) / np.mean(given**2)))
    assert list(errors) == sorted(errors, key=lambda one: -errors[one])
    assert errors["q4_K"] < 0.1
    assert errors["q8_0"] < 0.01


def test_nan_is_refused_before_a_weight_is_quantized(tmp_path: Path) -> None:
    model = wide(256, untied=True)
    model.weights["blk.0.ffn_up.weight"][3, 5] = struct.unpack("<f", b"\1\0\x80\x7f")[0]
    with pytest.raises(
        TinyNNValueError, match=r"blk\.0\.ffn_up\.weight must hold only finite numbers to be exported, got"
    ):
        export_gguf(model, tmp_path / "m.gguf", "q4_K")
    assert list(tmp_path.iterdir()) == []

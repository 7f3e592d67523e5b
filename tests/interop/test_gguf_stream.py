"""`toynn import` of a GGUF file writes the bytes of `import_gguf`, and leaves no run after an error."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import assert_refused, output_of, toynn
from gguf_bytes import STRING, GgufBytes, array, of_toy, scalar, tiny
from interop_models import make
from quantized import TYPES, quantized_base
from toynn.errors import FileFormatError, MappedFileError
from toynn.interop import GgufBase, export_gguf, gguf_base, gguf_header, gguf_rows, import_gguf
from toynn.interop.gguf_model import GgufModel
from toynn.interop.gguf_stream import streamed_gguf
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.storage.checkpoint.meta import META, TOKENIZER, WEIGHTS

NAN = struct.pack("<f", float("nan"))


def assert_streams_the_import(path: Path) -> None:
    want = import_gguf(path)
    with streamed_gguf(path) as (described, weights):
        assert list(weights) == list(want.weights)
        for name, values in want.weights.items():
            pieces = list(weights.pieces(name))
            assert np.concatenate(pieces).tobytes() == weights[name].tobytes() == values.tobytes(), name
            assert weights.shapes[name] == values.shape
    for field in ("shape", "tokenizer", "eos_id", "bos_id", "other_eos_ids", "foreign"):
        assert getattr(described, field) == getattr(want, field)


@pytest.mark.parametrize("name", ["tied", "gqa", "untied", "qwen2", "gemma3"])
@pytest.mark.parametrize("rows", [1, 3, 10_000])
def test_the_pieces_are_the_weights_of_an_import(
    name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_rows, "_PIECE", 64 * rows)  # a row has 64 or 96 numbers
    export_gguf(make(name), tmp_path / "m.gguf", "f16")
    assert_streams_the_import(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.name))
def test_the_pieces_of_stored_types_are_the_weights_of_an_import(
    kind: GGMLQuantizationType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_rows, "_PIECE", 5 * 256)
    (tmp_path / "m.gguf").write_bytes(quantized_base(kind, rotated=True).build())
    assert_streams_the_import(tmp_path / "m.gguf")


def test_the_pieces_of_single_heads_are_the_weights_of_an_import(tmp_path: Path) -> None:
    for by_head in (False, True):
        (tmp_path / "m.gguf").write_bytes(of_toy(by_head=by_head).build())
        assert_streams_the_import(tmp_path / "m.gguf")


def test_the_command_writes_the_bytes_of_an_imported_model(tmp_path: Path) -> None:
    export_gguf(make("gqa"), tmp_path / "m.gguf", "q8_0")
    want = write_checkpoint(tmp_path / "want", import_gguf(tmp_path / "m.gguf"))
    output_of("import", tmp_path / "m.gguf", "--out", tmp_path / "run")
    got = load_checkpoint(tmp_path / "run").path
    for name in (WEIGHTS, TOKENIZER, META):
        assert (got / name).read_bytes() == (want / name).read_bytes(), name


# ---- damaged and changing files ----


def file_with_nan(tmp_path: Path) -> Path:
    good = tiny().build()
    at = good.rindex(struct.pack("<f", 0.375))  # in the last tensor, blk.0.ffn_down.weight
    (tmp_path / "nan.gguf").write_bytes(good[:at] + NAN + good[at + 4 :])
    return tmp_path / "nan.gguf"


def test_a_number_that_is_not_finite_leaves_no_run(tmp_path: Path) -> None:
    path = file_with_nan(tmp_path)
    with GgufModel(path) as file:
        row, column = map(int, np.argwhere(np.isnan(file.read("blk.0.ffn_down.weight")))[0])
    message = f"nan.gguf: blk.0.ffn_down.weight must hold only finite numbers, got nan at [{row}, {column}]"
    assert_refused(toynn("import", path, "--out", tmp_path / "run"), message)
    assert not (tmp_path / "run").exists()


def test_a_failed_import_keeps_the_model_that_it_should_replace(tmp_path: Path) -> None:
    export_gguf(make("gqa"), tmp_path / "m.gguf")
    output_of("import", tmp_path / "m.gguf", "--out", tmp_path / "run")
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert_refused(toynn("import", file_with_nan(tmp_path), "--out", tmp_path / "run", "--force"), "got nan at")
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("change", ["written", "shortened"])
def test_a_file_that_changes_during_an_import_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny().build())
    with streamed_gguf(path) as (described, weights):
        assert len(weights["token_embd.weight"]) == 6
        if change == "shortened":
            os.truncate(path, path.stat().st_size - 64)
        else:
            os.utime(path, ns=(1, 1))
        with pytest.raises((MappedFileError, FileFormatError), match=r"m\.gguf"):
            write_checkpoint(tmp_path / "run", described, weights=weights)
    assert not (tmp_path / "run").exists()


# ---- the check of the stored bytes of consecutive tensors ----


@pytest.mark.parametrize("nbytes", [1, 4096, 1 << 30])
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.name))
def test_a_base_with_a_wrong_number_inside_a_run_of_tensors_is_refused(
    kind: GGMLQuantizationType, nbytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_base, "_BYTES", nbytes)
    path, content = tmp_path / "m.gguf", quantized_base(kind, rotated=True).build()
    path.write_bytes(content)
    with GgufBase(path) as base:
        base.check_finite()
    with GgufModel(path) as file:
        tensor = file.tensors["blk.0.ffn_up.weight"]
    block = GGML_QUANT_SIZES[kind][1]
    path.write_bytes(content[: tensor.offset] + b"\xff" * block + content[tensor.offset + block :])
    with GgufModel(path) as file:
        finite = np.isfinite(file.read("blk.0.ffn_up.weight")).all()
    with GgufBase(path) as base:
        if finite:  # in this type, bits that are all set are finite numbers
            base.check_finite()
        else:
            with pytest.raises(FileFormatError, match=r"blk\.0\.ffn_up\.weight must hold only finite numbers, got"):
                base.check_finite()


# ---- strings in a header ----

SPECIAL = ["", "x" * 255, "y" * 256, "z" * 700, "\0" * 9, "a\0", "\0b", "\u20ac" * 85]


@settings(max_examples=200)
@given(st.lists(st.text(max_size=12) | st.sampled_from(SPECIAL), max_size=12), st.integers(1, 400))
def test_strings_are_read_in_blocks_of_any_size(texts: list[str], block: int) -> None:
    values: list[tuple[str | bytes, bytes]] = [("a", array(STRING, texts)), ("b", scalar(STRING, "end"))]
    content = GgufBytes(values).build()
    with mock.patch.object(gguf_header, "_BLOCK", block):
        found = gguf_header.read_header(io.BytesIO(content), len(content)).values
    assert (found.texts("a"), found.text("b")) == (texts, "end")

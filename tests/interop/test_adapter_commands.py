"""`toynn import` and `toynn export` of adapters: between formats, merged into the base, and wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from adapters import adapter_of, assert_same_adapter
from commands import assert_refused, output_of, toynn
from interop_models import TRAINED_ON, assert_same_model, make
from toynn.interop import (
    export_gguf,
    export_gguf_adapter,
    export_hf,
    export_peft,
    import_gguf,
    import_gguf_adapter,
    import_hf,
    import_peft,
)
from toynn.llm.adapters.merge import merged
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint

MODEL = make("gqa")
ADAPTER = adapter_of(MODEL.shape, ("q", "k", "down"), use_rslora=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base (base.gguf, base-hf), an adapter (a.gguf, a-peft), and its import as a run (run)."""
    folder = tmp_path_factory.mktemp("adapter")
    export_gguf(MODEL, folder / "base.gguf")
    export_hf(MODEL, folder / "base-hf")
    export_gguf_adapter(ADAPTER, folder / "a.gguf")
    export_peft(ADAPTER, folder / "a-peft")
    output_of("import", folder / "a.gguf", "--base", folder / "base.gguf", "--out", folder / "run")
    return folder


def adapter_in(run: Path, checkpoint: str) -> TrainedAdapter:
    contents = load_checkpoint(run / "checkpoints" / checkpoint).contents
    assert isinstance(contents, ModelOnBase)
    assert contents.adapter is not None
    return contents.adapter


def without_base(adapter: TrainedAdapter) -> TrainedAdapter:
    return TrainedAdapter(adapter.spec, adapter.shape, adapter.tensors)


def as_merged() -> TrainedModel:
    return merged(MODEL, ADAPTER)


def test_an_imported_adapter_is_exported_unchanged(files: Path, tmp_path: Path) -> None:
    output_of("import", files / "a-peft", "--base", files / "base-hf", "--out", tmp_path / "run")
    for run in (files / "run", tmp_path / "run"):
        output_of("export", run, tmp_path / "b.gguf", "--force")
        assert_same_adapter(import_gguf_adapter(tmp_path / "b.gguf", MODEL.shape), ADAPTER)
        written = json.loads(output_of("export", run, tmp_path / "b-peft", "--force", "--json"))
        assert written["format"] == "peft"
        assert_same_adapter(import_peft(tmp_path / "b-peft", MODEL.shape), ADAPTER)
    named = json.loads((tmp_path / "b-peft" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(files / "base-hf"), "transformers can load a folder, but not a GGUF file"


def test_a_merged_model_is_exported_to_each_format(files: Path, tmp_path: Path) -> None:
    output_of("export", files / "run", tmp_path / "m.gguf", "--merge")
    assert_same_model(import_gguf(tmp_path / "m.gguf"), as_merged())
    output_of("export", files / "run", tmp_path / "m-hf", "--merge")
    assert_same_model(import_hf(tmp_path / "m-hf"), as_merged())
    summary = json.loads(
        output_of("export", files / "run", tmp_path / "q.gguf", "--merge", "--dtype", "q8_0", "--json")
    )
    assert (summary["format"], summary["dtype"]) == ("gguf", "q8_0")
    export_gguf(as_merged(), tmp_path / "expected.gguf", "q8_0")
    assert_same_model(import_gguf(tmp_path / "q.gguf"), import_gguf(tmp_path / "expected.gguf"))


def test_an_imported_adapter_generates_the_text_of_the_merged_model(files: Path, tmp_path: Path) -> None:
    export_gguf(as_merged(), tmp_path / "m.gguf")

    def text_of(model: Path) -> str:
        return output_of("generate", model, "--prompt", "The cat sat", "--temperature", "0", "--max-tokens", "40")

    text = text_of(files / "run")
    assert text == text_of(tmp_path / "m.gguf")
    assert text != text_of(files / "base.gguf")


def test_training_continues_an_imported_adapter(files: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TRAINED_ON[0] * 40)
    (tmp_path / "tokenizer.json").write_bytes(MODEL.tokenizer or b"")
    data, run = tmp_path / "data", tmp_path / "next"
    output_of("prepare", tmp_path / "text.txt", "--tokenizer", tmp_path / "tokenizer.json", "--out", data)
    train = ("train", data, "--init", files / "run", "--set", "train.steps=2", "--set", "train.t_seq=32")
    output_of(*train, "--out", run, "--set", "checkpoint.keep_last=9")
    first = adapter_in(run, "step-00000000")
    assert_same_adapter(without_base(first), ADAPTER)
    assert first.base is not None
    assert first.base.path == files / "base.gguf"
    last = adapter_in(run, "step-00000002")
    assert last.spec == ADAPTER.spec
    assert not np.array_equal(last.tensors["blk.0.attn_q.weight.lora_a"], first.tensors["blk.0.attn_q.weight.lora_a"])
    shown = json.loads(output_of(*train, "--show-config", "--json"))["adapter"]
    assert (shown["rank"], shown["alpha"], shown["rslora"], shown["targets"]) == (4, 6.0, True, ["q", "k", "down"])

    refused = "adapter.rank = 2 was chosen, but training continues the adapter in"
    assert_refused(toynn(*train, "--out", tmp_path / "x", "--set", "adapter.rank=2"), refused)
    in_place = toynn("train", data, "--out", files / "run", "--set", "train.steps=2")
    assert_refused(in_place, "already contains an adapter; give this adapter with --init, and use a new folder")


def test_a_base_that_was_moved_or_changed_is_named(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "base.gguf", tmp_path / "base.gguf")
    output_of("import", files / "a.gguf", "--base", tmp_path / "base.gguf", "--out", tmp_path / "run")
    (tmp_path / "base.gguf").rename(tmp_path / "moved.gguf")
    output_of("export", tmp_path / "run", tmp_path / "b.gguf")  # the export of only the adapter needs no base
    merge = ("export", tmp_path / "run", tmp_path / "m.gguf", "--merge")
    assert_refused(toynn(*merge), f"{tmp_path / 'base.gguf'} does not exist; give the place of the base with --base")
    output_of(*merge, "--base", tmp_path / "moved.gguf")
    export_gguf(make("gqa", seed=5), tmp_path / "other.gguf")
    assert_refused(
        toynn(*merge, "--base", tmp_path / "other.gguf", "--force"), "is not the base that the adapter was trained on"
    )


def test_wrong_input_gives_exit_status_2_and_one_line(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert_refused(toynn("export", files / "run", out, "--dtype", "q8_0"), "--dtype q8_0 is for whole models")
    assert_refused(toynn("export", files / "run", out, "--for", "toy"), "--for toy is for whole models")
    assert_refused(toynn("export", files / "run", out, "--base", files / "base.gguf"), "--base is for whole models")
    write_checkpoint(tmp_path / "whole", MODEL)
    assert_refused(toynn("export", tmp_path / "whole", out, "--merge"), "has no adapter; leave out --merge")
    make_it = "a.gguf: the file is an adapter, not a model; make a run from it with `toynn import FILE --base BASE"
    assert_refused(toynn("import", files / "a.gguf", "--out", out), make_it)
    assert_refused(toynn("import", files / "a-peft", "--out", out), "a-peft is an adapter; name its base with --base")
    based = ("import", files / "base.gguf", "--base", files / "base.gguf", "--out", out)
    assert_refused(toynn(*based), "base.gguf: the file is not an adapter")
    export_gguf(make("tied"), tmp_path / "other.gguf")
    assert_refused(
        toynn("import", files / "a.gguf", "--base", tmp_path / "other.gguf", "--out", out), "belongs to another base"
    )
    assert_refused(toynn("import", files / "a.gguf", "--base", files / "run", "--out", out), "adapter")
    assert not out.exists()


def test_generate_and_other_commands_name_the_base_of_an_adapter(files: Path) -> None:
    refused = "a.gguf: the file is an adapter, not a model"
    assert_refused(toynn("generate", files / "a.gguf", "--prompt", "x"), refused)
    assert_refused(toynn("generate", files / "a-peft", "--prompt", "x"), "adapter")

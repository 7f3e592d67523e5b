"""The commands `toynn export` and `toynn import`, run as processes: results, and refused input."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import numpy as np
import pytest

from commands import TOYNN, assert_refused, output_of, toynn
from interop_models import make, tokenizer
from toynn.interop import export_gguf, export_hf, import_gguf, import_hf
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint


def same_weights(a: TrainedModel, b: TrainedModel) -> bool:
    return list(a.weights) == list(b.weights) and all(
        np.array_equal(values, b.weights[name]) for name, values in a.weights.items()
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "run", make("gqa"), step=7)
    return tmp_path / "run"


def test_a_run_can_be_exported_to_gguf_and_imported(run: Path, tmp_path: Path) -> None:
    done = toynn("export", run, tmp_path / "m.gguf")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"step 7 written to {tmp_path / 'm.gguf'} (0.4 MB)\n"
    assert done.stderr == ""
    assert same_weights(import_gguf(tmp_path / "m.gguf"), make("gqa"))
    done = toynn("import", tmp_path / "m.gguf", "--out", tmp_path / "back", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    parameters = sum(values.size for values in make("gqa").weights.values())
    assert (summary["out"], summary["parameters"], summary["vocab_size"], summary["tokenizer"]) == (
        str(tmp_path / "back"), parameters, 512, True,
    )  # fmt: skip
    back = load_checkpoint(tmp_path / "back")
    assert (back.step, back.training, str(back.path)) == (0, None, summary["checkpoint"])
    assert same_weights(back.model, make("gqa"))
    assert back.model.tokenizer == tokenizer()
    texts = [toynn("generate", folder, "-p", "The cat", "-n", "20", "--greedy") for folder in (run, tmp_path / "back")]
    assert texts[0].returncode == texts[1].returncode == 0
    assert texts[0].stdout == texts[1].stdout


def test_a_run_can_be_exported_to_a_hugging_face_folder_and_imported(run: Path, tmp_path: Path) -> None:
    done = toynn("export", run, tmp_path / "hf", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["format"], summary["step"], summary["dtype"], summary["notes"]) == ("hf", 7, "f32", [])
    assert summary["bytes"] == sum(path.stat().st_size for path in (tmp_path / "hf").iterdir())
    done = toynn("import", tmp_path / "hf", "--out", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"vocabulary 512, written to {tmp_path / 'back'}\n")
    assert same_weights(load_checkpoint(tmp_path / "back").model, make("gqa"))


def test_the_format_follows_from_the_name_or_the_option(run: Path, tmp_path: Path) -> None:
    assert toynn("export", run, tmp_path / "model", "--format", "gguf", "--dtype", "q8_0").returncode == 0
    assert (tmp_path / "model").read_bytes()[:4] == b"GGUF"
    assert toynn("export", run, tmp_path / "x.gguf", "--format", "hf").returncode == 0
    assert same_weights(import_hf(tmp_path / "x.gguf"), make("gqa"))
    checkpoint = load_checkpoint(run).path
    assert toynn("export", checkpoint, tmp_path / "M.GGUF").returncode == 0
    assert same_weights(import_gguf(tmp_path / "M.GGUF"), make("gqa"))


def test_notes_about_the_export_are_printed_to_stderr(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", make("head_dim of its own", tokens=None))
    done = toynn("export", tmp_path / "run", tmp_path / "m.gguf", "--dtype", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "note: the model has no tokenizer: llama.cpp can run the file on token ids" in done.stderr
    assert "note: 2 of 20 tensors are stored as f16" in done.stderr
    summary = json.loads(toynn("export", tmp_path / "run", tmp_path / "n.gguf", "--dtype", "q8_0", "--json").stdout)
    assert len(summary["notes"]) == 2
    done = toynn("import", tmp_path / "m.gguf", "--out", tmp_path / "back")
    assert done.returncode == 0
    assert "cannot read or write text" in done.stderr


def test_nothing_is_overwritten_without_force(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    out.write_text("precious")
    assert_refused(toynn("export", run, out), "already exists; name another path, or use --force to replace it")
    assert out.read_text() == "precious"
    assert toynn("export", run, out, "--force").returncode == 0
    assert out.read_bytes()[:4] == b"GGUF"

    folder = export_hf(make("tied"), tmp_path / "hf")
    assert_refused(toynn("export", run, folder), "already exists; name another path, or use --force to replace it")
    (folder / "notes.txt").write_text("mine")
    assert_refused(toynn("export", run, folder, "--force"), "contains other files ('notes.txt'); give another path")
    assert_refused(toynn("export", run, run, "--force"), "contains other files")
    assert same_weights(import_hf(folder), make("tied"))
    (folder / "notes.txt").unlink()
    assert toynn("export", run, folder, "--force").returncode == 0
    assert same_weights(import_hf(folder), make("gqa"))

    assert_refused(toynn("import", out, "--out", run), "already exists; name a new folder, or use --force")
    assert load_checkpoint(run).step == 7
    old = load_checkpoint(run).path
    export_gguf(make("gqa", seed=3), out, overwrite=True)
    assert toynn("import", out, "--out", run, "--force").returncode == 0
    assert same_weights(load_checkpoint(run).model, make("gqa", seed=3))
    assert same_weights(load_checkpoint(old).model, make("gqa")), "the older checkpoint changed"
    assert_refused(toynn("import", out, "--out", folder, "--force"), "exists and is not a run")


def test_wrong_input_gives_exit_status_2_and_one_line(run: Path, tmp_path: Path) -> None:
    assert_refused(toynn("export", tmp_path / "none", tmp_path / "m.gguf"), "does not exist")
    assert_refused(
        toynn("export", tmp_path, tmp_path / "m.gguf"), "neither a checkpoint nor a run with a latest checkpoint"
    )
    assert_refused(toynn("export", run, tmp_path / "m.gguf", "--best"), "nor a run with a best checkpoint")
    assert_refused(toynn("export", run, tmp_path / "hf", "--dtype", "q8_0"), "got q8_0; GGUF files for")
    assert_refused(toynn("export", run, tmp_path / "m.gguf", "--dtype", "q4"), "'q4' is not one of")
    assert_refused(toynn("export", run, tmp_path / "no" / "m.gguf"), f"the folder {tmp_path / 'no'} does not exist")
    assert_refused(toynn("export", run, tmp_path / "no" / "hf"), f"the folder {tmp_path / 'no'} does not exist")
    write_checkpoint(tmp_path / "other", make("llama3 rope"))
    assert_refused(toynn("export", tmp_path / "other", tmp_path / "hf"), "export a GGUF file instead")
    assert not (tmp_path / "hf").exists()

    (tmp_path / "x.gguf").write_text("no gguf")
    assert_refused(toynn("import", tmp_path / "x.gguf", "--out", tmp_path / "new"), "x.gguf: this is not a GGUF file")
    assert_refused(toynn("import", tmp_path / "other", "--out", tmp_path / "new"), "contains no config.json")
    assert_refused(toynn("import", tmp_path / "none", "--out", tmp_path / "new"), "does not exist")
    assert_refused(toynn("import", tmp_path / "x.gguf"), "Missing option '--out'")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["export", "import"])
def test_help_fits_a_terminal_of_80_columns(command: str) -> None:
    read_end, write_end = pty.openpty()
    with subprocess.Popen(
        [*TOYNN, command, "-h"], stdout=write_end, stderr=write_end, stdin=write_end,
        env={**os.environ, "COLUMNS": "80", "LINES": "24"},
    ) as process:  # fmt: skip
        os.close(write_end)
        shown = b""
        try:
            while piece := os.read(read_end, 1 << 16):
                shown += piece
        except OSError:  # on Linux, reading raises this error when the other end is closed
            pass
        os.close(read_end)
        assert process.wait() == 0
    lines = shown.decode().splitlines()
    assert len(lines) > 8
    assert max(map(len, lines)) <= 80


def test_commands_take_a_gguf_file_or_a_folder_in_the_place_of_a_run(run: Path, tmp_path: Path) -> None:
    output_of("export", run, tmp_path / "m.gguf")
    output_of("export", run, tmp_path / "hf")
    text = tmp_path / "text.txt"
    text.write_text("The cat saw a hen and ran home.\n" * 20)
    said, judged = set(), set()
    for model in (run, tmp_path / "m.gguf", tmp_path / "hf"):
        said.add(output_of("generate", model, "-p", "The cat", "-n", "9", "--seed", "2", "--threads", "1"))
        judged.add(json.loads(output_of("eval", model, text, "--json"))["loss"])
    assert (len(said), len(judged)) == (1, 1)

    for i, model in enumerate((run, tmp_path / "m.gguf", tmp_path / "hf")):
        folder, out = tmp_path / f"data{i}", tmp_path / f"run{i}"
        output_of("prepare", text, "--out", folder, "--tokenizer", model)
        assert (folder / "tokenizer.json").exists()
        settings = [word for key in ("train.steps=1", "schedule.warmup=0", "train.batch=1") for word in ("--set", key)]
        output_of("train", folder, "--out", out, "--init", model, *settings, "--quiet")
    assert same_weights(load_checkpoint(tmp_path / "run0").model, load_checkpoint(tmp_path / "run1").model)
    assert same_weights(load_checkpoint(tmp_path / "run0").model, load_checkpoint(tmp_path / "run2").model)
    assert_refused(toynn("generate", tmp_path / "m.gguf", "--best"), "which = 'best' needs a run")


def test_two_imports_to_one_new_folder_leave_one_complete_run(tmp_path: Path) -> None:
    export_gguf(make("gqa"), tmp_path / "m.gguf")
    command = [*TOYNN, "import", str(tmp_path / "m.gguf"), "--out", str(tmp_path / "run")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=600)[1] for process in both]
    assert 0 in [process.returncode for process in both], errors
    for process, error in zip(both, errors, strict=True):
        assert process.returncode == 0 or "already" in error or "another process" in error
    assert same_weights(load_checkpoint(tmp_path / "run").model, make("gqa"))

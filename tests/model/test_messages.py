"""Messages and results of whole runs name the paths, settings and options that the user gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import toynn
from commands import SMALL, assert_refused, output_of
from commands import toynn as run_toynn
from interop_models import make
from small_runs import config
from toynn import ConfigurationError, FileFormatError, TinyNNTypeError
from toynn.interop import export_gguf, export_hf
from toynn.storage.checkpoint import write_checkpoint
from toynn.storage.json_files import read_json
from toynn.training import EvaluationArgs, TrainArgs, train


def test_a_wrong_override_of_a_resumed_run_is_named_and_not_the_checkpoint(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(3)))
    for override, says in [
        ("optimizer.lr=-1", "toynn: --set: optimizer.lr must be"),
        ("schedule.kind=linear", "toynn: --set: schedule.kind must be one of"),
        (
            "train.epochs=0.001",
            "toynn: train.epochs = 0.001 is too small: it is 1 step, but the run has already taken 3",
        ),
        ("train.steps=2", "toynn: train.steps = 2 is too small, but the run has already taken 3 steps"),
        (
            "train.seed=9",
            "train.epochs, train.seconds, train.recompute, evaluation.*, checkpoint.*, schedule.*",
        ),
    ]:
        assert_refused(run_toynn("train", data, "--out", run, "--resume", "--set", override), says)
    with pytest.raises(ConfigurationError, match=r"^the settings: optimizer\.lr must"):
        toynn.train(data, run, resume=True, lr=-1.0, progress=False)


def test_keys_of_the_model_must_fit_the_model_that_training_starts_from(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "base", config(1)))
    base = toynn.load(tmp_path / "base").shape
    for value in (99, 2 * base.d_model):
        with pytest.raises(
            ConfigurationError, match=rf"model\.d_model = {value} differs from {base.d_model}, the value"
        ):
            toynn.train(data, tmp_path / "run", init=tmp_path / "base", d_model=value, progress=False)
    (tmp_path / "c.toml").write_text("[model]\nn_layers = 9\n")
    refused = run_toynn(
        "train", data, "--out", tmp_path / "run", "--init", tmp_path / "base", "--config", tmp_path / "c.toml"
    )
    assert_refused(refused, "c.toml: model.n_layers = 9 differs from")
    toynn.train(data, tmp_path / "run", init=tmp_path / "base", d_model=base.d_model, head_dim=0, steps=1, batch=2,
                progress=False)  # fmt: skip
    assert toynn.load(tmp_path / "run").shape == base


def test_the_data_of_a_resumed_run_can_be_left_out(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    run = tmp_path / "run"
    output_of("train", tmp_path / "data", "--out", run, *SMALL, "--set", "train.steps=3", "--quiet")
    assert "done after 4 steps" in output_of("train", "--out", run, "--resume", "--set", "train.steps=4", "--quiet")
    (tmp_path / "data").rename(tmp_path / "moved")
    assert_refused(
        run_toynn("train", "--out", run, "--resume"), "data, which does not exist; give its new place as DATA"
    )
    again: list[str | Path] = [
        "train",
        tmp_path / "moved",
        "--out",
        run,
        "--resume",
        "--set",
        "train.steps=5",
        "--quiet",
    ]
    assert "done after 5 steps" in output_of(*again)


def test_a_run_of_one_step_is_reported_in_the_singular(data: Path, tmp_path: Path) -> None:
    done = output_of("train", data, "--out", tmp_path / "run", *SMALL, "--set", "train.steps=1",
                     "--set", "schedule.warmup=0", "--quiet")  # fmt: skip
    assert done.startswith("done after 1 step,")


def test_the_result_of_a_run_has_its_notes(data: Path, tmp_path: Path) -> None:
    assert train(TrainArgs(data, tmp_path / "run", config(2))).step == 2
    result = toynn.train(data, tmp_path / "run", resume=True, steps=3, lr=0.5, progress=False)
    assert any(note.startswith("optimizer.lr changes from") for note in result.notes)
    assert toynn.train(data, tmp_path / "other", config=config(1), progress=False).notes == ()


def test_ids_that_are_text_or_a_mapping_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", make("gqa"))
    with toynn.load(tmp_path / "run") as model:
        assert model.decode([]) == ""
        for wrong in (b"x", "x", bytearray(b"x"), {}, {1: 2}, {1}):
            with pytest.raises(TinyNNTypeError, match="ids must be a sequence of token ids, got"):
                model.decode(wrong)  # type: ignore[arg-type]


def test_info_describes_models_of_other_programs(tmp_path: Path) -> None:
    model = make("gqa")
    export_gguf(model, tmp_path / "m.gguf")
    export_hf(model, tmp_path / "hf")
    for name, path in [("GGUF file", tmp_path / "m.gguf"), ("Hugging Face folder", tmp_path / "hf")]:
        info = json.loads(output_of("info", path, "--json"))
        assert info[name] == str(path)
        assert info["model"]["d_model"] == model.shape.d_model
        assert "step" not in info


def test_a_data_folder_gives_its_tokenizer_to_prepare(data: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("The cat saw a hen.\n" * 30)
    (tmp_path / "only").mkdir()
    shutil.copy(data / "tokenizer.json", tmp_path / "only")
    for i, folder in enumerate([data, tmp_path / "only"]):
        prepared = toynn.prepare(tmp_path / "t.txt", tmp_path / f"data{i}", tokenizer=folder, progress=False)
        assert (prepared.path / "tokenizer.json").read_bytes() == (data / "tokenizer.json").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"^tokenizer: .*nowhere does not exist"):
        toynn.prepare(tmp_path / "t.txt", tmp_path / "x", tokenizer=tmp_path / "nowhere", progress=False)


def test_deeply_nested_json_is_refused_with_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("[" * 100_000)
    with pytest.raises(
        FileFormatError, match=r"meta\.json cannot be read: its lists and objects are nested too deeply"
    ):
        read_json(tmp_path / "meta.json")


def test_a_run_knows_the_separator_of_its_data_and_eval_counts_documents(tmp_path: Path) -> None:
    text = "---\n".join(f"The cat {i} saw a hen.\n" for i in range(40))
    (tmp_path / "t.txt").write_text(text)
    prepared = toynn.prepare(tmp_path / "t.txt", tmp_path / "data", vocab_size=270, separator="---", progress=False)
    assert prepared.documents == 40
    toynn.train(prepared, tmp_path / "run", config=config(2), progress=False)
    with toynn.load(tmp_path / "run") as model:
        result = model.evaluate(text)
        assert result.documents == 40
        assert result == model.evaluate(text, separator="---")
        assert result.tokens != model.evaluate(text, separator="").tokens
        assert model.evaluate("one\n</s>\ntwo\n").documents == 1, "lines of other separators are text"
    assert "documents      40\n" in output_of("eval", tmp_path / "run", tmp_path / "t.txt")
    toynn.train(prepared, tmp_path / "run", resume=True, steps=3, progress=False)
    assert json.loads(output_of("eval", tmp_path / "run", tmp_path / "t.txt", "--json"))["documents"] == 40
    default = toynn.prepare(tmp_path / "t.txt", tmp_path / "plain", vocab_size=270, progress=False)
    assert "separator" not in json.loads((default.path / "meta.json").read_text())


def test_data_without_an_evaluation_is_noted(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("The cat saw a hen.\n" * 40 + "<|endoftext|>\na")
    prepared = (
        toynn.prepare(tmp_path / "t.txt", tmp_path / str(seed), vocab_size=257, eos="", seed=seed, progress=False)
        for seed in range(20)
    )
    one = next(data for data in prepared if data.tokens["validation"] == 1)
    result = toynn.train(one, tmp_path / "run", config=config(1), progress=False)
    assert result.notes == (
        "the validation split has only 1 token, so the model is never evaluated; prepare more text",
    )
    assert result.best_loss is None
    none = toynn.prepare(tmp_path / "t.txt", tmp_path / "none", vocab_size=257, validation=0, progress=False)
    patient = config(1, evaluation=EvaluationArgs(patience=3))
    notes = toynn.train(none, tmp_path / "run2", config=patient, progress=False).notes
    assert notes == ("evaluation.patience has no effect, because the data has no validation split",)
    assert toynn.train(none, tmp_path / "run3", config=config(1), progress=False).notes == ()

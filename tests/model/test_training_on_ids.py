"""Training on packed token ids, without a tokenizer: as a file, and as a data folder made from a file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from commands import toynn
from small_runs import MODEL, config, make_data
from toynn import LlamaDecoder, TinyNNValueError, prepare_ids, train
from toynn.data import DataFolder
from toynn.data.token_file import write_token_file
from toynn.storage.checkpoint import load_checkpoint
from toynn.training.events import Event, Stepped, StopTraining
from toynn.training.run_log import read_log


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 600 ids with a vocabulary of 40, in which only a few different ids follow each id."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("ids") / "ids.bin"
    write_token_file(path, np.cumsum(rng.integers(1, 4, 600)) % 40, 40)
    return path


def test_a_file_and_the_folder_made_of_it_train_the_same_model(ids: Path, tmp_path: Path) -> None:
    prepare_ids(ids, tmp_path / "data")
    runs = [tmp_path / "of-file", tmp_path / "of-folder"]
    for run, data in zip(runs, (ids, tmp_path / "data"), strict=True):
        result = train(data, run, config=config(steps=20), progress=False)
        assert result.best_loss is not None
        assert result.best_loss < np.log(40) - 0.1  # the loss shows that the model learns
    models = [load_checkpoint(run).model for run in runs]
    assert models[0].shape == MODEL.shape(40)
    assert models[0].tokenizer is None
    for name, values in models[0].weights.items():
        assert values.tobytes() == models[1].weights[name].tobytes()
    evaluated = [event for event in read_log(runs[0]) if event["event"] == "evaluated"]
    assert evaluated
    assert {event["bits_per_byte"] for event in evaluated} == {None}


def test_a_run_on_ids_is_resumed_with_the_same_bytes_and_other_ids_are_refused(ids: Path, tmp_path: Path) -> None:
    train(ids, tmp_path / "whole", config=config(steps=12), progress=False)

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 7:
            raise StopTraining

    train(ids, tmp_path / "parts", config=config(steps=12), progress=False, callbacks=[stop])
    other = tmp_path / "other.bin"
    write_token_file(other, [1, 2, 3] * 100, 40)
    with pytest.raises(TinyNNValueError, match="differ from those that"):
        train(other, tmp_path / "parts", resume=True, progress=False)
    prepare_ids(ids, tmp_path / "data")  # writes the original ids again
    train(tmp_path / "data", tmp_path / "parts", resume=True, progress=False)
    whole, parts = (load_checkpoint(tmp_path / name).model.weights for name in ("whole", "parts"))
    assert all(values.tobytes() == parts[name].tobytes() for name, values in whole.items())


def test_a_model_with_a_tokenizer_can_be_trained_on_ids_and_keeps_it(tmp_path: Path) -> None:
    data = DataFolder.open(make_data(tmp_path / "texts"))
    train(tmp_path / "texts", tmp_path / "run", config=config(steps=2), progress=False)
    write_token_file(tmp_path / "ids.bin", np.asarray(data.train.tokens, dtype=np.int32), data.meta.vocab_size)
    train(tmp_path / "ids.bin", tmp_path / "next", init=tmp_path / "run", steps=2, progress=False)
    assert load_checkpoint(tmp_path / "next").model.tokenizer == load_checkpoint(tmp_path / "run").model.tokenizer
    notes = read_log(tmp_path / "next")[0]["notes"]
    assert "the data has no tokenizer, so its ids must be those of the model's tokenizer" in notes
    write_token_file(tmp_path / "many.bin", np.arange(400), 400)
    with pytest.raises(TinyNNValueError, match="has a vocabulary of 400 tokens"):
        train(tmp_path / "many.bin", tmp_path / "no", init=tmp_path / "run", steps=2, progress=False)


def test_the_commands_take_ids(ids: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat.bin"
    flat.write_bytes(ids.read_bytes()[16:])
    done = toynn("prepare", flat, "--ids", "--vocab-size", "40", "--out", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    described = json.loads(done.stdout)
    assert (described["vocab_size"], described["documents"]) == (40, None)
    assert described["splits"]["train"]["tokens"] == 570
    done = toynn("prepare", ids, "--ids", "--out", tmp_path / "same")
    assert done.returncode == 0, done.stderr
    assert "documents" not in done.stdout
    for name in ("train.bin", "validation.bin"):
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    sizes = ["model.d_model=16", "model.n_heads=2", "model.n_kv=1", "model.d_ff=24", "model.n_layers=1", "model.ctx=16"]
    settings = [part for key in (*sizes, "train.steps=3") for part in ("--set", key)]
    done = toynn("train", ids, "--out", tmp_path / "run", *settings, "--quiet")
    assert done.returncode == 0, done.stderr
    done = toynn("train", tmp_path / "data", "--out", tmp_path / "run2", *settings)
    assert done.returncode == 0, done.stderr
    assert "bits/byte" not in done.stderr
    assert "nan" not in done.stderr
    assert toynn("info", tmp_path / "data").returncode == toynn("report", tmp_path / "run").returncode == 0
    wrong: list[tuple[list[str | Path], str]] = [
        (["prepare", flat, "--ids", "--out", tmp_path / "x"], "has no header with the size of the vocabulary"),
        (["prepare", ids, "--ids", "--separator", "x", "--out", tmp_path / "x"], "--separator is for texts"),
        (["prepare", ids, "--out", tmp_path / "x"], "holds packed token ids, not text; use --ids"),
        (["train", flat, "--out", tmp_path / "x"], "has no header with the size"),
        (["train", tmp_path / "hello.txt", "--out", tmp_path / "x"], "not a file of packed ids"),
    ]
    (tmp_path / "hello.txt").write_text("hello")
    for arguments, says in wrong:
        done = toynn(*arguments)
        assert done.returncode == 2
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "x").exists()


def test_the_validation_loss_is_that_of_the_last_ids(ids: Path, tmp_path: Path) -> None:
    train(ids, tmp_path / "run", config=config(steps=4), progress=False)
    last = [event for event in read_log(tmp_path / "run") if event["event"] == "evaluated"][-1]
    tail = list(struct.unpack("<30i", ids.read_bytes()[-120:]))
    model = load_checkpoint(tmp_path / "run").model
    with LlamaDecoder(model.shape, model.weights, n_threads=1) as decoder:
        # the evaluation uses windows of 16 tokens
        losses = np.concatenate([decoder.score(tail[:17]), decoder.score(tail[16:])])
    assert (last["step"], last["tokens"]) == (4, losses.size)
    assert last["loss"] == pytest.approx(float(losses.astype(np.float64).mean()), rel=1e-6)

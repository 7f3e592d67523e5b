"""Runs whose windows contain whole samples, and runs in which a token sees only its own document."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

import toynn
from commands import toynn as command
from sample_runs import MODEL, T, mean_loss_alone, pieces, pieces_at, sample_data
from small_runs import config, evaluations, final_bytes, losses, make_data
from toynn import ConfigurationError, TrainArgs, train
from toynn.data import DataFolder, PackedTokens
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import (
    AdapterArgs,
    CheckpointArgs,
    DataArgs,
    ModelArgs,
    OptimizerArgs,
    ScheduleArgs,
    StepArgs,
    TrainConfig,
)
from toynn.training.divergence import DivergedError
from toynn.training.packed_validation import validation_of
from toynn.training.run_log import read_log
from toynn.training.start import own_config
from toynn.training.toml_config import to_toml

WINDOWED = ModelArgs(
    d_model=16, n_heads=2, n_kv=1, d_ff=24, n_layers=3, ctx=T, architecture="gemma3", qk_norm=True, sliding_window=5,
    global_interval=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_data(tmp_path_factory.mktemp("packed"), 120)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("documents") / "data")


def settings(steps: int = 6, *, model: ModelArgs | None = MODEL, batch: int = 4, **sections: Any) -> TrainConfig:
    usual = {
        "train": StepArgs(steps=steps, batch=batch),
        "schedule": ScheduleArgs("constant", warmup=1),
        "checkpoint": CheckpointArgs(every=3),
    }
    return config(steps, model=model, **{**usual, **sections})


@pytest.fixture(scope="module")
def run(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(TrainArgs(samples, run, settings()))
    return run


# ---- samples ----


def test_samples_are_packed_by_default_and_the_log_has_the_counts(samples: Path, run: Path) -> None:
    assert own_config(load_checkpoint(run)).data.document_attention is True
    (started,) = [event for event in read_log(run) if event["event"] == "started"]
    data = DataFolder.open(samples).train
    useful = [ids.size - 1 for ids, counted in pieces(data, T) if counted[1:].any()]
    windows = started["windows_per_epoch"]
    assert math.ceil(sum(useful) / T) <= windows < len(useful) / 2
    assert started["filled"] == pytest.approx(sum(useful) / (windows * T))
    assert started["epochs"] == pytest.approx(6 * 4 / windows)
    assert data.starts is not None
    notes = started["notes"]
    assert f"{data.starts.size} training samples share {windows} windows in an epoch, which are" in notes[-2]
    assert "of the training samples are longer than a window of 24 tokens and are divided into parts" in notes[-1]


@pytest.mark.parametrize("model", [MODEL, WINDOWED], ids=["llama", "gemma3"])
def test_an_evaluation_is_the_mean_over_samples_that_the_model_sees_alone(
    samples: Path, model: ModelArgs, tmp_path: Path
) -> None:
    train(TrainArgs(samples, tmp_path / "run", settings(4, model=model)))
    trained = load_checkpoint(tmp_path / "run").model
    want, n = mean_loss_alone(trained, pieces(DataFolder.open(samples).validation, T))
    last = [event for event in read_log(tmp_path / "run") if event["event"] == "evaluated"][-1]
    assert last["tokens"] == n
    assert last["loss"] == pytest.approx(want, rel=1e-6)
    done = command("eval", str(tmp_path / "run"), str(samples), "--ids", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["tokens"] == n
    assert shown["loss"] == pytest.approx(want, rel=1e-6)


def test_the_first_step_has_the_mean_loss_of_its_samples_alone(samples: Path, run: Path, tmp_path: Path) -> None:
    """A step over a whole epoch contains each sample once."""
    (started,) = [event for event in read_log(run) if event["event"] == "started"]
    whole = settings(2, batch=started["windows_per_epoch"], checkpoint=CheckpointArgs(every=1, keep_last=5))
    train(TrainArgs(samples, tmp_path / "run", whole))
    start = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000000").model
    want, _ = mean_loss_alone(start, pieces(DataFolder.open(samples).train, T))
    assert float.fromhex(losses(tmp_path / "run")[0]) == pytest.approx(want, rel=1e-6)


@pytest.mark.threads
def test_batches_threads_and_recomputing_change_no_bit_of_a_run(samples: Path, run: Path, tmp_path: Path) -> None:
    for name, step, n_threads in (
        ("batches", StepArgs(steps=6, batch=2, accumulate=2), 1),
        ("windows", StepArgs(steps=6, batch=1, accumulate=4), 2),
        ("recompute", StepArgs(steps=6, batch=4, recompute=True), 2),
    ):
        train(TrainArgs(samples, tmp_path / name, settings(train=step), n_threads=n_threads))
        assert losses(tmp_path / name) == losses(run)
        assert evaluations(tmp_path / name) == evaluations(run)
        assert final_bytes(tmp_path / name) == final_bytes(run)


def test_a_resumed_run_has_the_bytes_of_a_run_without_interruption(samples: Path, run: Path, tmp_path: Path) -> None:
    train(TrainArgs(samples, tmp_path / "run", settings(3)))
    train(TrainArgs(samples, tmp_path / "run", settings(6), resume=True))
    assert losses(tmp_path / "run") == losses(run)
    assert final_bytes(tmp_path / "run") == final_bytes(run)
    plain = settings(8, data=DataArgs(document_attention=False))
    with pytest.raises(
        ConfigurationError, match=r"^data\.document_attention is False, but the run has True; a resumed"
    ):
        train(TrainArgs(samples, tmp_path / "run", plain, resume=True))


def test_a_run_of_an_older_version_keeps_its_windows(samples: Path, tmp_path: Path) -> None:
    """The configuration of such a run has no section [data]."""
    old = settings(6, data=DataArgs(document_attention=False))
    train(TrainArgs(samples, tmp_path / "run", old))
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.training is not None
    text, section, _ = checkpoint.training.progress.config.partition("[data]")
    assert section
    progress = dataclasses.replace(checkpoint.training.progress, config=text)
    training = dataclasses.replace(checkpoint.training, progress=progress)
    without = dataclasses.replace(checkpoint, training=training)
    assert own_config(without).data.document_attention is False
    (started,) = [event for event in read_log(tmp_path / "run") if event["event"] == "started"]
    assert started["filled"] == 1.0
    assert started["windows_per_epoch"] == (len(DataFolder.open(samples).train) - 1) // T
    assert losses(tmp_path / "run") != []


def test_epochs_count_packed_windows(samples: Path, run: Path, tmp_path: Path) -> None:
    (started,) = [event for event in read_log(run) if event["event"] == "started"]
    train(TrainArgs(samples, tmp_path / "run", settings(train=StepArgs(epochs=1.0, batch=4))))
    assert len(losses(tmp_path / "run")) == math.ceil(started["windows_per_epoch"] / 4)


def test_each_source_has_its_loss_and_its_tokens(tmp_path: Path) -> None:
    rng, files = np.random.default_rng(3), []
    for name, word in (("one", "hen"), ("two", "cat"), ("three", "dog")):
        n = 30 if name != "three" else 1
        records = [{"prompt": "a ", "completion": f"{word} ran home"[: int(k)]} for k in rng.integers(3, 14, n)]
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("\n".join(map(json.dumps, records)))
    toynn.prepare(files, tmp_path / "data", vocab_size=262, validation=0.3, progress=False)
    data, run = DataFolder.open(tmp_path / "data"), tmp_path / "run"
    train(TrainArgs(tmp_path / "data", run, settings(train=StepArgs(epochs=2.0, batch=1))))
    last = [event for event in read_log(run) if event["event"] == "evaluated"][-1]
    model = load_checkpoint(run).model
    for split in (data.train, data.validation):
        of_sources = data.meta.splits[split.split].source_tokens
        assert of_sources is not None
        for i, end in enumerate(np.cumsum(of_sources).tolist()):
            own = [part for at, part in pieces_at(split, T) if end - of_sources[i] <= at < end]
            if split is data.train:
                assert last["source_tokens"][i] == 2 * sum(ids.size - 1 for ids, _ in own)
            elif own:
                assert last["source_losses"][i] == pytest.approx(mean_loss_alone(model, own)[0], rel=1e-6)
            else:
                assert last["source_losses"][i] is None


def test_the_losses_of_sources_do_not_depend_on_the_size_of_batches(tmp_path: Path) -> None:
    """The losses of some tokens are so small that the order of the additions changes the sum in float64."""
    for name, word in (("one", "hen"), ("two", "cat")):
        lines = [json.dumps({"text": f"{word} {i} ran home"}) for i in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    toynn.prepare(files, tmp_path / "data", vocab_size=262, validation=0.5, progress=False)
    split = DataFolder.open(tmp_path / "data").validation

    def of_sources(batch: int) -> tuple[float | None, ...]:
        losses, engine = np.random.default_rng(2), mock.Mock()

        def compute(*_: object, **__: object) -> None:
            values = np.exp(losses.uniform(-25, 5, batch * T)).astype(np.float32)
            engine.row_losses.return_value = values

        engine.mean_loss.side_effect = compute
        engine.window_losses.return_value = np.zeros(batch)
        return validation_of(split, T, batch, 0, DataArgs(document_attention=True)).loss(engine).of_sources

    assert of_sources(1) == of_sources(2) == of_sources(5)


def test_an_adapter_on_a_quantized_base_sees_samples_alone(samples: Path, run: Path, tmp_path: Path) -> None:
    big = dataclasses.replace(MODEL, d_model=32, d_ff=32)
    train(TrainArgs(samples, tmp_path / "base", settings(2, model=big)))
    with toynn.load(tmp_path / "base") as model:
        model.save(tmp_path / "base.gguf", dtype="q8_0")
    tuned = settings(2, model=None, adapter=AdapterArgs(rank=2), optimizer=OptimizerArgs(lr=0.0))
    train(TrainArgs(samples, tmp_path / "run", tuned, base=tmp_path / "base.gguf"))
    with toynn.load(tmp_path / "base.gguf") as model:
        want, _ = mean_loss_alone(model.trained_model(), pieces(DataFolder.open(samples).validation, T))
    assert float.fromhex(evaluations(tmp_path / "run")[-1]) == pytest.approx(want, rel=1e-6)


def test_a_diverged_run_of_packed_samples_names_the_tensor(samples: Path, tmp_path: Path) -> None:
    wild = settings(20, optimizer=OptimizerArgs(lr=1e30, kind="adamw", clip=0.0, weight_decay=0.0))
    with pytest.raises(DivergedError, match="the first tensor with NaN or infinity is"):
        train(TrainArgs(samples, tmp_path / "run", wild))


def test_windows_may_be_longer_than_all_data(tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text("\n".join(json.dumps({"prompt": "a", "completion": "bc"}) for _ in range(9)))
    toynn.prepare(tmp_path / "few.jsonl", tmp_path / "data", vocab_size=260, validation=0.3, progress=False)
    model = dataclasses.replace(MODEL, ctx=200)
    train(TrainArgs(tmp_path / "data", tmp_path / "run", settings(3, model=model, batch=1)))
    (started,) = [event for event in read_log(tmp_path / "run") if event["event"] == "started"]
    assert started["windows_per_epoch"] == 1
    assert started["filled"] < 0.2


# ---- documents ----


def document_parts(split: PackedTokens, end_id: int, t: int) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return the validation tokens, cut at windows of t tokens and after each end token. Each part also has the token
    after it, which its last token predicts.
    """
    tokens, found, at = np.asarray(split.tokens), [], 0
    for end in range(1, len(tokens)):
        if end == len(tokens) - 1 or end % t == 0 or tokens[end - 1] == end_id:
            found.append((tokens[at : end + 1], np.ones(end + 1 - at)))
            at = end
    return found


def test_a_token_sees_only_its_own_document(documents: Path, tmp_path: Path) -> None:
    data = DataFolder.open(documents)
    apart = settings(4, data=DataArgs(document_attention=True))
    train(TrainArgs(documents, tmp_path / "run", apart))
    train(TrainArgs(documents, tmp_path / "plain", settings(4)))
    assert own_config(load_checkpoint(tmp_path / "plain")).data.document_attention is False
    assert losses(tmp_path / "run")[0] != losses(tmp_path / "plain")[0]
    assert data.meta.eos_id is not None
    want, n = mean_loss_alone(
        load_checkpoint(tmp_path / "run").model, document_parts(data.validation, data.meta.eos_id, T)
    )
    last = [event for event in read_log(tmp_path / "run") if event["event"] == "evaluated"][-1]
    assert last["tokens"] == n == len(data.validation) - 1
    assert last["loss"] == pytest.approx(want, rel=1e-6)
    train(TrainArgs(documents, tmp_path / "half", settings(2, data=DataArgs(document_attention=True))))
    train(TrainArgs(documents, tmp_path / "half", apart, resume=True))
    assert "[data]\ndocument_attention = true" in to_toml(own_config(load_checkpoint(tmp_path / "half")))


def test_data_without_an_end_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat saw a hen. " * 200)
    toynn.prepare(tmp_path / "text.txt", tmp_path / "data", vocab_size=270, eos="", validation=0.1, progress=False)
    with pytest.raises(ConfigurationError, match=r"^data\.document_attention = true needs data with an end token"):
        train(TrainArgs(tmp_path / "data", tmp_path / "run", settings(data=DataArgs(document_attention=True))))
    assert not (tmp_path / "run" / "log.jsonl").exists()

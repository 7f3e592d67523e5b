"""Runs in which each sample has its own window, and the samples of a step have similar lengths."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from commands import TOYNN
from mpi import MPICH, in_processes
from sample_runs import MODEL, T, mean_loss_alone, pieces, sample_data
from small_runs import config, evaluations, final_bytes, losses, make_data
from toynn import ConfigurationError, TinyNNValueError, TrainArgs, train
from toynn.data import DataFolder
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import (
    AdapterArgs,
    CheckpointArgs,
    DataArgs,
    OptimizerArgs,
    ScheduleArgs,
    StepArgs,
    TrainConfig,
)
from toynn.training.divergence import DivergedError
from toynn.training.run_log import read_log

GROUPED, PADDED = DataArgs(batching="grouped"), DataArgs(batching="padded")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_data(tmp_path_factory.mktemp("grouped"), 101)


def settings(data: DataArgs = GROUPED, steps: int = 6, **sections: Any) -> TrainConfig:
    usual = {
        "model": MODEL,
        "train": StepArgs(steps=steps, batch=4),
        "schedule": ScheduleArgs("constant", warmup=1),
        "checkpoint": CheckpointArgs(every=3),
        "data": data,
    }
    return config(steps, **{**usual, **sections})


@pytest.fixture(scope="module")
def run(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(TrainArgs(samples, run, settings()))
    return run


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_log(run) if event["event"] == kind]


def assert_same_bits(run: Path, other: Path) -> None:
    assert losses(run) == losses(other)
    assert evaluations(run) == evaluations(other)
    assert final_bytes(run) == final_bytes(other)


def test_short_windows_have_the_bits_of_padded_windows(samples: Path, run: Path, tmp_path: Path) -> None:
    train(TrainArgs(samples, tmp_path / "run", settings(PADDED)))
    assert_same_bits(run, tmp_path / "run")
    norms = [[event["gradient_norm"] for event in events(one, "stepped")] for one in (run, tmp_path / "run")]
    assert norms[0] == norms[1]
    short, long = ([event["tokens"] for event in events(one, "stepped")] for one in (run, tmp_path / "run"))
    assert long == [4 * T * n for n in range(1, 7)]
    sizes = np.diff([0, *short]).tolist()
    assert all(size % (4 * 8) == 0 and size <= 4 * T for size in sizes)
    assert len(set(sizes)) > 1


def test_the_log_and_the_notes_describe_the_windows(samples: Path, run: Path) -> None:
    (started,) = events(run, "started")
    useful = [ids.size - 1 for ids, counted in pieces(DataFolder.open(samples).train, T) if counted[1:].any()]
    windows = started["windows_per_epoch"]
    assert windows == math.ceil(len(useful) / 4) * 4
    assert started["batch_tokens"] == 4 * T
    assert 0.6 < started["filled"] < 1
    note = r"each of \d+ training samples has its own window of 8 to 24 tokens, which are \d\d\.\d% full"
    assert re.fullmatch(note, started["notes"][-2])
    assert "of the training samples are longer than a window of 24 tokens and are divided into" in started["notes"][-1]


def test_a_step_over_an_epoch_has_the_mean_loss_of_its_samples_alone(samples: Path, run: Path, tmp_path: Path) -> None:
    windows = events(run, "started")[0]["windows_per_epoch"]
    train(
        TrainArgs(
            samples, tmp_path / "run", settings(steps=2, train=StepArgs(steps=2, batch=windows // 2, accumulate=2))
        )
    )
    start = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000000").model
    want, _ = mean_loss_alone(start, pieces(DataFolder.open(samples).train, T))
    assert float.fromhex(losses(tmp_path / "run")[0]) == pytest.approx(want, rel=1e-6)


def test_an_evaluation_is_that_of_packed_windows(samples: Path, run: Path) -> None:
    want, n = mean_loss_alone(load_checkpoint(run).model, pieces(DataFolder.open(samples).validation, T))
    last = events(run, "evaluated")[-1]
    assert last["tokens"] == n
    assert last["loss"] == pytest.approx(want, rel=1e-6)


@pytest.mark.threads
def test_batches_threads_and_recomputing_change_no_bit_of_a_run(samples: Path, run: Path, tmp_path: Path) -> None:
    for name, step, n_threads in (
        ("batches", StepArgs(steps=6, batch=2, accumulate=2), 1),
        ("windows", StepArgs(steps=6, batch=1, accumulate=4), 2),
        ("recompute", StepArgs(steps=6, batch=4, recompute=True), 2),
    ):
        train(TrainArgs(samples, tmp_path / name, settings(train=step), n_threads=n_threads))
        assert_same_bits(tmp_path / name, run)


def test_a_resumed_run_has_the_bytes_of_a_run_without_interruption(samples: Path, tmp_path: Path) -> None:
    """The run is resumed in the second epoch."""
    steps = 26
    train(TrainArgs(samples, tmp_path / "whole", settings(steps=steps)))
    train(TrainArgs(samples, tmp_path / "run", settings(steps=23)))
    train(TrainArgs(samples, tmp_path / "run", settings(steps=steps), resume=True))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    tokens = [[event["tokens"] for event in events(tmp_path / one, "stepped")] for one in ("run", "whole")]
    assert tokens[0] == tokens[1]
    with pytest.raises(ConfigurationError, match=r"^data\.batching is 'padded', but the run has 'grouped'; a resumed"):
        train(TrainArgs(samples, tmp_path / "run", settings(PADDED, steps=30), resume=True))


def test_epochs_count_the_samples(samples: Path, run: Path, tmp_path: Path) -> None:
    windows = events(run, "started")[0]["windows_per_epoch"]
    train(TrainArgs(samples, tmp_path / "run", settings(train=StepArgs(epochs=2.0, batch=4))))
    assert len(losses(tmp_path / "run")) == 2 * windows // 4
    assert events(tmp_path / "run", "stepped")[-1]["epoch"] == pytest.approx(2.0)


@pytest.mark.parametrize("sections", [
    {"train": StepArgs(steps=4, batch=4, precision="bf16"), "optimizer": OptimizerArgs(kind="adamw", clip=0.1)},
    {"optimizer": OptimizerArgs(kind="muon"), "train": StepArgs(steps=4, batch=2, accumulate=2)},
], ids=["bf16 and clipping", "muon and accumulation"])  # fmt: skip
def test_other_settings_have_the_bits_of_padded_windows(
    sections: dict[str, Any], samples: Path, tmp_path: Path
) -> None:
    for name, data in (("grouped", GROUPED), ("padded", PADDED)):
        train(TrainArgs(samples, tmp_path / name, settings(data, steps=4, **sections)))
    assert_same_bits(tmp_path / "grouped", tmp_path / "padded")


def test_an_adapter_on_a_quantized_base_has_the_bits_of_padded_windows(
    samples: Path, run: Path, tmp_path: Path
) -> None:
    with toynn.load(run) as model:
        model.save(tmp_path / "base.gguf", dtype="f32")
    for name, data in (("grouped", GROUPED), ("padded", PADDED)):
        tuned = settings(data, steps=4, model=None, adapter=AdapterArgs(rank=2))
        train(TrainArgs(samples, tmp_path / name, tuned, base=tmp_path / "base.gguf"))
    assert losses(tmp_path / "grouped") == losses(tmp_path / "padded")
    assert evaluations(tmp_path / "grouped") == evaluations(tmp_path / "padded")


def test_two_processes_write_the_bytes_of_one(samples: Path, tmp_path: Path) -> None:
    """In some steps, one of the processes gets only windows without a sample."""
    sizes = {f"model.{key}": getattr(MODEL, key) for key in ("d_model", "n_heads", "n_kv", "d_ff", "n_layers", "ctx")}
    keys = {**sizes, "train.steps": 12, "train.batch": 8, "schedule.warmup": 2, "data.batching": "grouped"}
    words = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    command = [*TOYNN, "train", str(samples), *words, "--threads", "1", "--quiet", "--out"]
    for name, n in (("one", 1), ("two", 2)):
        done = in_processes(MPICH, n, [*command, str(tmp_path / name)])
        assert done.returncode == 0, done.stderr
    assert_same_bits(tmp_path / "one", tmp_path / "two")


def test_a_diverged_run_names_the_tensor(samples: Path, tmp_path: Path) -> None:
    wild = settings(steps=20, optimizer=OptimizerArgs(lr=1e30, kind="adamw", clip=0.0, weight_decay=0.0))
    with pytest.raises(DivergedError, match="the first tensor with NaN or infinity is"):
        train(TrainArgs(samples, tmp_path / "run", wild))


def test_data_without_samples_is_refused(run: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    with pytest.raises(
        ConfigurationError,
        match=r'^data\.batching = "grouped" needs data made of samples, but the data is plain text; leave out the key$',
    ):
        train(TrainArgs(data, tmp_path / "run", settings()))
    assert not (tmp_path / "run" / "log.jsonl").exists()
    pairs = [{"prompt": "a ", "chosen": f"cat {i}", "rejected": f"hen {i}"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    toynn.prepare(tmp_path / "pairs.jsonl", tmp_path / "pairs", tokenizer=run, validation=0.2, progress=False)
    of_pairs = settings(PADDED, model=None, train=StepArgs(objective="dpo"))
    with pytest.raises(
        ConfigurationError, match=r'^data\.batching = "padded" needs data made of samples, but the data is'
    ):
        train(TrainArgs(tmp_path / "pairs", tmp_path / "run", of_pairs, init=run))


def test_wrong_settings_are_refused(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"^data\.batching must be one of 'packed', 'grouped', 'padded', got"):
        DataArgs(batching="sorted")
    cut = DataArgs(document_attention=False, batching="grouped")
    with pytest.raises(ConfigurationError, match=r'^data\.batching = "grouped" puts whole samples into windows, but'):
        train(TrainArgs(samples, tmp_path / "run", settings(cut)))

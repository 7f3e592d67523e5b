"""Runs with train.precision = "bf16": resumed runs, batches, evaluations, adapters, and refused changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from small_runs import config, evaluations, final_bytes, losses
from toynn import TinyNNValueError, TrainArgs, train
from toynn.errors import ConfigurationError
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import AdapterArgs, Event, StepArgs, Stepped, StopTraining, TrainConfig


def bf16(steps: int, batch: int = 2, accumulate: int = 1) -> TrainConfig:
    return config(steps, train=StepArgs(steps=steps, batch=batch, accumulate=accumulate, t_seq=15, precision="bf16"))


def stop_after_three(event: Event) -> None:
    if isinstance(event, Stepped) and event.step == 3:
        raise StopTraining


def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_run(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "whole", bf16(6), n_threads=1))
    train(TrainArgs(data, tmp_path / "parts", bf16(6)), [stop_after_three])
    train(TrainArgs(data, tmp_path / "parts", resume=True))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert evaluations(tmp_path / "parts") == evaluations(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


def test_the_precision_changes_the_losses_and_is_part_of_the_checkpoint(data: Path, tmp_path: Path) -> None:
    f32 = bf16(3)
    f32 = dataclasses.replace(f32, train=dataclasses.replace(f32.train, precision="f32"))
    train(TrainArgs(data, tmp_path / "f32", f32))
    train(TrainArgs(data, tmp_path / "bf16", bf16(3)))
    first, second = (float.fromhex(losses(tmp_path / name)[-1]) for name in ("f32", "bf16"))
    assert first != second
    assert second == pytest.approx(first, rel=1e-2)
    training = load_checkpoint(tmp_path / "bf16").training
    assert training is not None
    assert 'precision = "bf16"' in training.progress.config


def test_batch_and_accumulate_do_not_change_any_byte(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "one", bf16(3, batch=4)))
    train(TrainArgs(data, tmp_path / "four", bf16(3, batch=1, accumulate=4)))
    assert losses(tmp_path / "one") == losses(tmp_path / "four")
    assert final_bytes(tmp_path / "one") == final_bytes(tmp_path / "four")


def test_the_precision_cannot_change_when_a_run_is_resumed(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", config(2)))
    changed = config(4, train=StepArgs(steps=4, batch=2, precision="bf16"))
    with pytest.raises(ConfigurationError, match=r"train\.precision is 'bf16', but the run has 'f32'"):
        train(TrainArgs(data, tmp_path / "run", changed, resume=True))


def test_an_adapter_is_trained_on_a_base_with_rounded_operands(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "base", config(2)))
    runs = {}
    for precision in ("f32", "bf16"):
        step = StepArgs(steps=3, batch=2, precision=precision)
        chosen = dataclasses.replace(config(3, train=step, adapter=AdapterArgs(rank=2)), model=None)
        train(TrainArgs(data, tmp_path / precision, chosen, base=tmp_path / "base"))
        runs[precision] = losses(tmp_path / precision)
    assert runs["bf16"][0] != runs["f32"][0]
    train(TrainArgs(data, tmp_path / "bf16", resume=True, base=tmp_path / "base"))
    assert losses(tmp_path / "bf16") == runs["bf16"]


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(TinyNNValueError, match=r"train\.precision must be one of 'f32', 'bf16', got 'f16'"):
        StepArgs(precision="f16")

"""Runs with optimizer.ema: averages of the weights in evaluations and checkpoints, resumed runs, refused settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from engines import realized
from small_runs import MODEL, config, evaluations, final_bytes, losses
from toynn import TinyNNValueError, TrainArgs, TrainConfig, train
from toynn.data import PackedTokens
from toynn.errors import ConfigurationError, FileFormatError
from toynn.storage.checkpoint import TrainingState, load_checkpoint, write_checkpoint
from toynn.training import AdapterArgs, CheckpointArgs, Event, OptimizerArgs, StepArgs, Stepped, StopTraining
from toynn.training.evaluation import Validation

STEPS = 6
ADAMW = OptimizerArgs(lr=1e-2, kind="adamw", ema=0.9)
MUON = OptimizerArgs(lr=1e-2, kind="muon", ema=0.3)
EVERY_STEP = CheckpointArgs(every=1, keep_last=100)


def run_of(optimizer: OptimizerArgs, **sections: Any) -> TrainConfig:
    return config(STEPS, optimizer=optimizer, checkpoint=EVERY_STEP, **sections)


def weights_after_each_step(run: Path) -> list[dict[str, Any]]:
    folders = sorted((run / "checkpoints").iterdir())
    return [dict(load_checkpoint(folder).model.weights) for folder in folders]


def stop_after(step: int) -> Any:
    def callback(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise StopTraining

    return callback


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_the_saved_model_is_the_average_of_the_weights_and_training_does_not_change(
    data: Path, tmp_path: Path, optimizer: OptimizerArgs
) -> None:
    train(TrainArgs(data, tmp_path / "plain", run_of(dataclasses.replace(optimizer, ema=0.0))))
    train(TrainArgs(data, tmp_path / "averaged", run_of(optimizer), n_threads=1))
    assert losses(tmp_path / "averaged") == losses(tmp_path / "plain")
    plain, saved = weights_after_each_step(tmp_path / "plain"), weights_after_each_step(tmp_path / "averaged")
    wanted = {name: values.astype(np.float64) for name, values in plain[0].items()}
    for step in range(1, STEPS + 1):
        decay = min(optimizer.ema, (1 + step) / (10 + step))
        for name, average in wanted.items():
            wanted[name] = decay * average + (1 - decay) * plain[step][name]
            np.testing.assert_allclose(saved[step][name], wanted[name], rtol=1e-5, atol=1e-7)
    assert any((saved[STEPS][name] != plain[STEPS][name]).any() for name in wanted)
    state = load_checkpoint(tmp_path / "averaged").training
    assert state is not None
    assert {name: state.moments[f"{name}.w"].tobytes() for name in wanted} == {
        name: plain[STEPS][name].tobytes() for name in wanted
    }


def test_evaluations_use_the_averages(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", run_of(ADAMW)))
    checkpoint = load_checkpoint(tmp_path / "run")
    split = PackedTokens.open(data, "validation")
    with realized(MODEL.shape(split.meta.vocab_size), t_seq=16, t_batch=2) as engine:
        for name, values in checkpoint.model.weights.items():
            engine.upload_weight(name, values)
        loss = Validation(split, 16, 2, 0).loss(engine, None).mean
    assert evaluations(tmp_path / "run")[-1] == loss.hex()


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_run(
    data: Path, tmp_path: Path, optimizer: OptimizerArgs
) -> None:
    chosen = run_of(optimizer, train=StepArgs(steps=STEPS, batch=1, accumulate=2))
    train(TrainArgs(data, tmp_path / "whole", chosen, n_threads=1))
    train(TrainArgs(data, tmp_path / "parts", chosen), [stop_after(2)])
    train(TrainArgs(data, tmp_path / "parts", resume=True))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert evaluations(tmp_path / "parts") == evaluations(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


def test_an_adapter_has_averages_of_its_matrices_and_can_be_resumed(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "base", config(2)))
    chosen = run_of(ADAMW, model=None, adapter=AdapterArgs(rank=2))
    start: dict[str, Any] = {"config": chosen, "base": tmp_path / "base", "progress": False}
    toynn.train(data, tmp_path / "whole", **start)
    toynn.train(data, tmp_path / "parts", callbacks=[stop_after(3)], **start)
    toynn.train(data, tmp_path / "parts", resume=True, progress=False)
    ends = [load_checkpoint(tmp_path / name).path for name in ("whole", "parts")]
    whole, parts = ({file.name: file.read_bytes() for file in end.iterdir() if file.suffix != ".json"} for end in ends)
    assert whole == parts
    state = load_checkpoint(tmp_path / "whole").training
    assert state is not None
    assert {name.rpartition(".")[2] for name in state.moments} == {"m", "v", "w"}


def test_settings_and_checkpoints_that_do_not_fit_are_refused(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", run_of(ADAMW)))
    for decay in (0.0, 0.5):
        changed = run_of(dataclasses.replace(ADAMW, ema=decay))
        with pytest.raises(ConfigurationError, match=rf"optimizer\.ema is {decay}, but the run has 0\.9"):
            train(TrainArgs(data, tmp_path / "run", changed, resume=True))
    with pytest.raises(TinyNNValueError, match=r"optimizer\.ema must be at least 0 and below 1.*got 1\.0"):
        OptimizerArgs(ema=1.0)
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.training is not None
    moments = dict(checkpoint.training.moments)
    del moments["blk.0.attn_q.weight.w"]
    lacking = TrainingState(checkpoint.training.progress, moments)
    write_checkpoint(tmp_path / "damaged", checkpoint.model, step=STEPS, training=lacking)
    with pytest.raises(FileFormatError, match=r"moments\.safetensors lacks the tensor 'blk\.0\.attn_q\.weight\.w'"):
        load_checkpoint(tmp_path / "damaged")

"""Runs with optimizer.kind = "muon": their steps, resumed runs, moments, and refused settings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engines import realized
from small_runs import MODEL, config, final_bytes, losses
from toynn import (
    AdamW,
    LlamaSeqEngine,
    Muon,
    RecipeOptions,
    TinyNNTypeError,
    TinyNNValueError,
    TrainArgs,
    tinynn,
    train,
)
from toynn.data import PackedTokens, WindowBatcher
from toynn.errors import ConfigurationError, FileFormatError
from toynn.storage.checkpoint import TrainingState, load_checkpoint, write_checkpoint
from toynn.training import Event, OptimizerArgs, ScheduleArgs, StepArgs, Stepped, StopTraining
from toynn.training.schedule import learning_rate

MUON = OptimizerArgs(kind="muon", lr=1e-2, clip=0.5, weight_decay=0.2, muon_lr=0.05, muon_weight_decay=0.3)


def stop_after(step: int) -> object:
    def callback(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise StopTraining

    return callback


def test_training_equals_engine_steps_called_by_hand(data: Path, tmp_path: Path) -> None:
    chosen = config(6, optimizer=MUON)
    train(TrainArgs(data, tmp_path / "run", chosen))
    split = PackedTokens.open(data, "train")
    windows = WindowBatcher(split.tokens, 16, 0)
    by_hand = []
    with realized(MODEL.shape(split.meta.vocab_size), t_seq=16, t_batch=2, optimizer="muon") as engine:
        engine.build_training_step(clip=True, decay_vectors=False)
        for step in range(1, 7):
            hp = AdamW(learning_rate(chosen.schedule, 1e-2, step, 6), weight_decay=0.2, bias_correct=True).hp(step)
            muon = Muon(learning_rate(chosen.schedule, 0.05, step, 6), weight_decay=0.3).hp()
            ids, targets = windows.batch((step - 1) * 2, 2)
            by_hand.append(engine.train_step(ids, targets, hp, muon_hp=muon, max_norm=0.5)[0].hex())
        weights = {name: engine.download_weight(name).tobytes() for name in engine.weights}
    assert losses(tmp_path / "run") == by_hand
    assert {name: values for name, values in final_bytes(tmp_path / "run").items() if name in weights} == weights


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_run(data: Path, tmp_path: Path, accumulate: int) -> None:
    chosen = config(train=StepArgs(steps=8, batch=2, accumulate=accumulate), optimizer=MUON)
    train(TrainArgs(data, tmp_path / "whole", chosen, n_threads=1))
    train(TrainArgs(data, tmp_path / "parts", chosen), [stop_after(3)])  # type: ignore[list-item]
    train(TrainArgs(data, tmp_path / "parts", resume=True))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


def test_a_checkpoint_has_one_moment_for_each_matrix_of_a_layer(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", config(2, optimizer=MUON)))
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.training is not None
    moments = checkpoint.training.moments
    assert "blk.0.attn_q.weight.m" in moments
    assert "blk.0.attn_q.weight.v" not in moments
    assert {"blk.0.attn_norm.weight.v", "token_embd.weight.v"} <= set(moments)


def test_muon_needs_less_memory_for_moments_than_adamw() -> None:
    sizes = {}
    for optimizer in ("adamw", "muon"):
        with realized(MODEL.shape(50), t_seq=16, optimizer=optimizer) as engine:
            sizes[optimizer] = tinynn.tnn_session_weights_nbytes(engine.sess)
            matrices = sum(
                engine.download_weight(name).nbytes for name in engine.weights if name.startswith("blk.") and
                engine.download_weight(name).ndim == 2
            )  # fmt: skip
    assert sizes["adamw"] - sizes["muon"] >= matrices


def test_the_kind_of_optimizer_cannot_change_when_a_run_is_resumed(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", config(2)))
    changed = config(4, optimizer=OptimizerArgs(kind="muon", lr=1e-2))
    with pytest.raises(ConfigurationError, match=r"optimizer\.kind is 'muon', but the run has 'adamw'"):
        train(TrainArgs(data, tmp_path / "run", changed, resume=True))
    with pytest.raises(TinyNNValueError, match=r"changes\[0\] must be one of .*, got 'optimizer\.kind'"):
        TrainArgs(data, tmp_path / "run", changed, resume=True, changes=("optimizer.kind",))


def test_a_checkpoint_that_lacks_a_moment_is_refused(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", config(2, optimizer=MUON)))
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.training is not None
    moments = dict(checkpoint.training.moments)
    del moments["blk.1.ffn_norm.weight.v"]
    lacking = TrainingState(checkpoint.training.progress, moments)
    write_checkpoint(tmp_path / "damaged", checkpoint.model, step=2, training=lacking)
    with pytest.raises(FileFormatError, match=r"moments\.safetensors (lacks|contains)"):
        load_checkpoint(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("muon_hp", "says"),
    [
        (None, "muon_hp is missing: it must be given for a model that was realized with optimizer='muon'"),
        ([[0.1, 0.9]], r"muon_hp must have shape \(1, 3\): lr, momentum, weight_decay; got \(1, 2\)"),
        ([[0.1, 1.0, 0.0]], "muon_hp: momentum must be below 1, got 1.0"),
        ([[-0.1, 0.9, 0.0]], "muon_hp: lr must be finite and at least 0, got -0.1"),
        ([[0.1, 0.9, math.inf]], "muon_hp: weight_decay must be finite and at least 0, got inf"),
    ],
)
def test_wrong_hyperparameters_are_refused(muon_hp: list[list[float]] | None, says: str) -> None:
    with realized(MODEL.shape(50), t_seq=4, optimizer="muon") as engine:
        engine.build_training_step()
        with pytest.raises(TinyNNValueError, match=says):
            engine.train_step([0] * 4, [1] * 4, AdamW().hp(1), muon_hp=muon_hp)


def test_muon_is_refused_where_it_has_no_meaning() -> None:
    with realized(MODEL.shape(50), t_seq=4) as engine:
        engine.build_training_step()
        with pytest.raises(TinyNNValueError, match="muon_hp must be left out"):
            engine.train_step([0] * 4, [1] * 4, AdamW().hp(1), muon_hp=Muon().hp())
    options = RecipeOptions(t_seq=4, optimizer="muon")
    with LlamaSeqEngine() as engine, pytest.raises(TinyNNValueError, match="optimizer='muon' needs layout='fused'"):
        engine.realize(MODEL.shape(50), options)
    with pytest.raises(TinyNNValueError, match="optimizer must be one of 'adamw', 'muon', 'none', got 'sgd'"):
        RecipeOptions(optimizer="sgd")
    with pytest.raises(TinyNNValueError, match=r"optimizer\.kind must be one of 'adamw', 'muon', got 'sgd'"):
        OptimizerArgs(kind="sgd")
    for wrong in ({"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": math.nan}):
        with pytest.raises(TinyNNValueError, match=next(iter(wrong))):
            Muon(**wrong)
    with pytest.raises(TinyNNTypeError, match="lr"):
        Muon(lr="fast")  # type: ignore[arg-type]


def test_muon_learns_the_small_corpus_better_than_adamw_in_the_same_steps(data: Path, tmp_path: Path) -> None:
    schedule = ScheduleArgs(kind="constant", warmup=0)
    ends = {}
    for kind in ("adamw", "muon"):
        train(TrainArgs(data, tmp_path / kind, config(40, optimizer=OptimizerArgs(kind=kind), schedule=schedule)))
        ends[kind] = sum(float.fromhex(x) for x in losses(tmp_path / kind)[-5:]) / 5
    assert ends["muon"] < ends["adamw"]

"""The defaults that depend on the start of a run: optimizer, learning rate and spread of the initial weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import toynn
from small_runs import config
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import AdapterArgs, ModelArgs, OptimizerArgs, StepArgs, TrainConfig
from toynn.training.toml_config import read_config

SIZES = {"d_model": 32, "n_heads": 2, "n_kv": 1, "d_ff": 48, "n_layers": 2, "ctx": 16}
SHAPE = ModelArgs(**SIZES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("d_model", "with_muon", "from_scratch", "fine_tuning", "adapter"),
    [
        (32, 0.0133, 0.01, 0.001, 0.01),
        (128, 0.01, 0.003125, 0.0003125, 0.003125),
        (768, 1.28 / 768, 0.4 / 768, 0.04 / 768, 0.4 / 768),
    ],
)
def test_the_default_learning_rate_depends_on_the_width_and_on_the_start(
    d_model: int, with_muon: float, from_scratch: float, fine_tuning: float, adapter: float
) -> None:
    shape = ModelArgs(d_model=d_model, n_heads=4, n_kv=4)
    assert TrainConfig(shape).explicit().optimizer.lr == pytest.approx(with_muon)
    adamw, muon = OptimizerArgs(kind="adamw"), OptimizerArgs(kind="muon")
    assert TrainConfig(shape, optimizer=adamw).explicit().optimizer.lr == pytest.approx(from_scratch)
    assert TrainConfig(optimizer=muon).explicit(shape).optimizer.lr == pytest.approx(fine_tuning)
    assert TrainConfig().explicit(shape).optimizer.lr == pytest.approx(fine_tuning)
    with_adapter = TrainConfig(adapter=AdapterArgs(rank=2))
    assert with_adapter.explicit(shape).optimizer.lr == pytest.approx(adapter)
    pairs = StepArgs(objective="dpo")
    assert TrainConfig(train=pairs).explicit(shape).optimizer.lr == 3e-5
    assert TrainConfig(train=pairs, adapter=AdapterArgs(rank=2)).explicit(shape).optimizer.lr == 1e-5
    assert TrainConfig(optimizer=OptimizerArgs(lr=0.5)).explicit(shape).optimizer.lr == 0.5


def test_the_default_optimizer_is_muon_for_random_weights_and_adamw_for_models_and_adapters() -> None:
    with_adapter = TrainConfig(adapter=AdapterArgs(rank=2))
    assert TrainConfig(SHAPE).explicit().optimizer.kind == TrainConfig(SHAPE).optimizer_kind == "muon"
    assert TrainConfig().explicit(SHAPE).optimizer.kind == "adamw"
    assert with_adapter.explicit(SHAPE).optimizer.kind == with_adapter.optimizer_kind == "adamw"
    for kind in ("adamw", "muon"):
        chosen = TrainConfig(SHAPE, optimizer=OptimizerArgs(kind=kind))
        assert chosen.explicit().optimizer.kind == chosen.explicit(SHAPE).optimizer.kind == kind


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_run_keeps_its_optimizer_if_the_file_does_not_name_one(data: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[optimizer]\nlr = 0.004\n[train]\nbatch = 2\nsteps = 3\n")
    given: dict[str, Any] = {"model": SIZES, "progress": False}
    first: dict[str, Any] = {**given, "steps": 2, "optimizer.kind": kind}
    toynn.train(data, tmp_path / "run", config=file, **first)
    toynn.train(data, tmp_path / "run", config=file, resume=True, **given)
    own = read_config(tmp_path / "run" / "run.toml")
    assert (own.optimizer.kind, own.optimizer.lr, own.train.steps) == (kind, 0.004, 3)


def test_a_new_run_with_only_a_learning_rate_notes_which_weights_it_applies_to(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[optimizer]\nlr = 0.004\n")
    given: dict[str, Any] = {"model": SIZES, "steps": 1, "batch": 2, "progress": False}
    noted = toynn.train(data, tmp_path / "new", config=file, **given)
    (note,) = [note for note in noted.notes if "optimizer.lr" in note]
    assert "optimizer.lr = 0.004 does not apply to the matrices of the layers" in note
    assert 'set optimizer.kind to "adamw"' in note
    assert read_config(tmp_path / "new" / "run.toml").optimizer.kind == "muon"
    for key, value in (("optimizer.kind", "muon"), ("optimizer.muon_lr", 0.01)):
        chosen: dict[str, Any] = {**given, key: value}
        ended = toynn.train(data, tmp_path / key, config=file, **chosen)
        assert not any("optimizer.lr" in note for note in ended.notes), key
    assert toynn.train(data, tmp_path / "default", **given).notes == ()


def test_a_run_records_its_default_learning_rate_and_initial_spread(data: Path, tmp_path: Path) -> None:
    """A resumed run keeps the values of its start, also if its configuration file leaves them out."""
    short: dict[str, Any] = {"steps": 2, "batch": 2, "progress": False}
    toynn.train(data, tmp_path / "base", config=config(2, model=SHAPE), progress=False)
    toynn.train(data, tmp_path / "tuned", init=tmp_path / "base", **short)
    tuned = read_config(tmp_path / "tuned" / "run.toml")
    assert tuned.optimizer.lr == pytest.approx(0.1 * min(0.4 / SHAPE.d_model, 0.01))
    chosen = TrainConfig(dataclasses.replace(SHAPE, init_scale=0.7, embedding_std=0.3))
    toynn.train(data, tmp_path / "new", config=chosen, **short)
    plain = TrainConfig(SHAPE, StepArgs(steps=3, batch=2))
    toynn.train(data, tmp_path / "new", config=plain, resume=True, progress=False)
    new = read_config(tmp_path / "new" / "run.toml")
    assert new.model is not None
    assert (new.model.init_scale, new.model.embedding_std, new.train.steps) == (0.7, 0.3, 3)
    toynn.train(data, tmp_path / "default", config=TrainConfig(SHAPE), **short)
    found = read_config(tmp_path / "default" / "run.toml")
    assert found.model is not None
    assert (found.model.init_scale, found.model.embedding_std) == (0.12, 0.02)
    assert (found.optimizer.kind, found.optimizer.lr) == ("muon", 0.0133)
    assert tuned.optimizer.kind == "adamw"
    gate = load_checkpoint(tmp_path / "default" / "checkpoints" / "step-00000000").model.weights[
        "blk.0.ffn_gate.weight"
    ]
    assert gate.std() == pytest.approx(0.12 / SHAPE.d_model**0.5, rel=0.15)
    # three steps change the embedding only a little
    assert load_checkpoint(tmp_path / "new").model.weights["token_embd.weight"].std() == pytest.approx(0.3, rel=0.15)

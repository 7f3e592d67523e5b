"""`toynn lr-find` and `toynn.lr_find`: the suggestion trains well, the result is reproducible, nothing is written."""

from __future__ import annotations

import json
import math
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import toynn
from commands import toynn as command
from preference_pairs import make_pairs
from small_runs import config
from toynn import ConfigurationError, TinyNNTypeError, TinyNNValueError, TrainArgs
from toynn.training import OptimizerArgs, StepArgs
from toynn.training.diagnosis import SATURATED, SPIKE, TOO_HIGH, TOO_LOW, advice_in_log
from toynn.training.run_log import read_log

SHAPE = {"d_model": 32, "n_heads": 2, "n_kv": 2, "d_ff": 64, "n_layers": 2, "ctx": 16}
SMALL: dict[str, Any] = {**{f"model.{key}": n for key, n in SHAPE.items()}, "train.batch": 4, "optimizer.kind": "adamw"}
SETTINGS = [f"--set={key}={value}" for key, value in SMALL.items()]


def files(folder: Path) -> set[str]:
    return {str(Path(at) / name) for at, _, names in os.walk(folder) for name in names}


def loss_with(data: Path, out: Path, lr: float) -> float:
    """Return the best validation loss of a short run with a learning rate."""
    settings: dict[str, Any] = {"lr": lr, "steps": 80, "evaluation.every": 20, **SMALL}
    best: float | None = toynn.train(data, out, progress=False, **settings).best_loss
    assert best is not None
    return best


# ---- the suggestion ----


def test_the_suggestion_trains_better_than_much_lower_and_higher_rates(data: Path, tmp_path: Path) -> None:
    found = toynn.lr_find(data, **SMALL)
    at = loss_with(data, tmp_path / "at", found.lr)
    assert at < loss_with(data, tmp_path / "below", found.lr / 30)
    assert at < loss_with(data, tmp_path / "above", found.lr * 30)


def test_the_rates_rise_exponentially_and_the_losses_are_those_of_a_run_at_first(data: Path, tmp_path: Path) -> None:
    found = toynn.lr_find(data, steps=40, lowest=1e-8, highest=1.0, **SMALL)
    assert found.learning_rates[0] == pytest.approx(1e-8, rel=1e-6)
    ratios = [b / a for a, b in pairwise(found.learning_rates)]
    assert ratios == pytest.approx([1e8 ** (1 / 39)] * len(ratios), rel=1e-6)
    toynn.train(data, tmp_path / "run", lr=1e-8, steps=5, progress=False, **SMALL)
    losses = [one["loss"] for one in read_log(tmp_path / "run") if one["event"] == "stepped"]
    assert list(found.losses[:5]) == pytest.approx(losses, abs=1e-4)
    assert found.losses[0] == losses[0]
    assert len(found.losses) == len(found.changes) == len(found.learning_rates)
    assert found.changes[0] == 0  # the first step has the initial weights
    toynn.train(data, tmp_path / "untrained", lr=1e-20, steps=40, progress=False, **SMALL)
    untrained = [one["loss"] for one in read_log(tmp_path / "untrained") if one["event"] == "stepped"]
    mean, weight = 0.0, 0.0
    for loss, before, given in zip(found.losses, untrained, found.changes, strict=False):
        mean, weight = 0.8 * mean + 0.2 * (loss - before), 0.8 * weight + 0.2
        assert given == pytest.approx(mean / weight, abs=1e-5)
    best = found.learning_rates[found.changes.index(min(found.changes))]
    assert found.lr == pytest.approx(best / 4, rel=0.05)


def test_the_test_ends_when_the_loss_rises(data: Path) -> None:
    found = toynn.lr_find(data, steps=60, lowest=1e-4, highest=1e4, **SMALL)
    assert len(found.losses) < 60
    assert found.diverged or found.changes[-1] - min(found.changes) > 0.3 * found.losses[0]
    before = found.changes[:-1]
    assert all(one - min(before[: i + 1]) <= 0.3 * found.losses[0] for i, one in enumerate(before))


def test_muon_gets_both_rates(data: Path) -> None:
    found = toynn.lr_find(data, **{**SMALL, "muon_lr": 0.05, "lr": 0.02, "optimizer.kind": "muon"})
    assert found.muon_lr == pytest.approx(found.lr * 2.5, rel=0.06)
    by_default = toynn.lr_find(data, steps=30, **{**SMALL, "optimizer.kind": None})
    assert by_default.muon_lr == pytest.approx(by_default.lr * 0.02 / 0.0133, rel=0.06)
    assert toynn.lr_find(data, steps=30, **SMALL).muon_lr is None


def test_an_existing_model_gets_a_lower_rate_and_an_adapter_works(data: Path, tmp_path: Path) -> None:
    toynn.train(data, tmp_path / "run", lr=1e-2, steps=150, progress=False, **SMALL)
    anew, tuned = toynn.lr_find(data, **SMALL), toynn.lr_find(data, init=tmp_path / "run", batch=4)
    assert tuned.losses[0] < anew.losses[0] - 1
    assert tuned.muon_lr is None
    adapted = toynn.lr_find(data, base=tmp_path / "run", batch=4, rank=2, steps=30, highest=10)
    assert adapted.losses[0] == pytest.approx(tuned.losses[0], abs=1e-3)
    assert math.isfinite(adapted.lr)


# ---- reproducible, and nothing is written ----


def test_the_result_does_not_depend_on_the_number_of_threads_and_nothing_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(data.parent), files(tmp_path)
    one, two = (toynn.lr_find(data, steps=40, n_threads=n, **SMALL) for n in (1, 2))
    assert one == two
    assert (files(data.parent), files(tmp_path)) == before


# ---- errors ----


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"lowest": 1.0, "highest": 0.1}, TinyNNValueError, "lowest must be below highest = 0.1, got 1"),
        ({"lowest": 0.0}, TinyNNValueError, "lowest must be"),
        ({"highest": math.inf}, TinyNNValueError, "highest must be"),
        ({"steps": 9}, TinyNNValueError, "steps must be an integer from 10"),
        ({"steps": 1.5}, TinyNNTypeError, "steps must be an integer"),
        ({"lr": 0}, ConfigurationError, "optimizer.lr must be above 0, got 0; leave out optimizer.lr"),
        ({"lowest": 1e3, "highest": 1e4, "steps": 10}, TinyNNValueError, "did not fall at any learning rate"),
        ({"init_scale": 1e30}, TinyNNValueError, "gradient of the initial weights is NaN or infinite"),
        ({"d_modle": 3}, ConfigurationError, "unknown setting 'd_modle'"),
        ({"config": 3}, TinyNNTypeError, "config must be"),
    ],
)
def test_wrong_arguments_are_refused(data: Path, arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        toynn.lr_find(data, **{**SMALL, **arguments})


def test_preference_pairs_are_refused(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    with pytest.raises(ConfigurationError, match=r"train\.objective must be next_token, got dpo"):
        toynn.lr_find(tmp_path / "data", init=tmp_path / "base", objective="dpo")


# ---- the command ----


def test_the_command_prints_a_table_and_the_suggestion_of_the_function(data: Path) -> None:
    found = toynn.lr_find(data, steps=50, **SMALL)
    done = command("lr-find", str(data), "--steps", "50", "--threads", "1", *SETTINGS)
    assert done.returncode == 0
    progress = done.stderr.splitlines()
    assert [line.split(":")[0] for line in progress[:10]] == [f"initial loss {n}/50" for n in range(5, 51, 5)]
    assert progress[10].startswith(f"step 5/50: loss {found.losses[4]:.4f}, lr {found.learning_rates[4]:.2e}")
    lines = done.stdout.splitlines()
    assert lines[0] == "learning rate    loss  mean change"
    assert lines[-1] == f"suggestion: --set optimizer.lr={found.lr:g}"
    (lowest,) = [line for line in lines if line.endswith("lowest")]
    assert float(lowest.split()[2]) == pytest.approx(min(found.changes), abs=6e-4)
    assert 10 < len(lines) < 35
    as_json = json.loads(command("lr-find", str(data), "--steps", "50", "--json", *SETTINGS).stdout)
    assert as_json["losses"] == list(found.losses)
    assert as_json["lr"] == found.lr


def test_the_command_names_its_options_in_errors(data: Path) -> None:
    done = command("lr-find", str(data), "--lowest", "1", "--highest", "0.5", *SETTINGS)
    assert done.returncode == 2
    assert done.stderr == "toynn: --lowest must be below --highest = 0.5, got 1\n"
    done = command("lr-find", str(data), "--highest", "inf", *SETTINGS)
    assert done.stderr.startswith("toynn: --highest must be")


# ---- the advice of real runs ----


@pytest.mark.parametrize(("lr", "wanted"), [(1e-6, {TOO_LOW}), (1e-2, set()), (3.0, {TOO_HIGH, SATURATED, SPIKE})])
def test_runs_with_wrong_learning_rates_get_advice(
    data: Path, tmp_path: Path, lr: float, wanted: set[str], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = config(train=StepArgs(steps=160, batch=4), optimizer=OptimizerArgs(lr=lr, kind="adamw"))
    ended = toynn.train(TrainArgs(data, tmp_path / "run", settings), progress=True)
    found = advice_in_log(read_log(tmp_path / "run"))
    assert {one.sign for one in found} <= wanted
    assert bool(found) == bool(wanted)
    assert ended.advice == tuple(map(str, found))
    printed = [line for line in capfd.readouterr().err.splitlines() if "advice" in line]
    assert printed == [f"step {one.step}: advice: {one}" for one in found]

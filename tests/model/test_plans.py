"""`toynn plan`, `toynn.plan`, and training that follows a plan."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import toynn
from small_runs import make_data
from toynn.cli import train_command
from toynn.cli.app import app
from toynn.errors import ConfigurationError, TinyNNTypeError, TinyNNValueError
from toynn.planning import plan as planning
from toynn.planning.recipe import PROBE, PROBE_STEPS, settings_of
from toynn.planning.speed import probe
from toynn.training import Event, Stepped, StopTraining, TrainConfig, time_budget, trainer
from toynn.training.run_log import read_log
from toynn.training.toml_config import read_config

PROBED = 2.0  # loss of the probe in nats per token
LIGHT: dict[str, Any] = {"d_model": 32, "n_layers": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("plans") / "data", documents=80)


@pytest.fixture
def _probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the probe, which takes seconds."""
    monkeypatch.setattr(planning, "probe", lambda *_: PROBED)


def test_the_probe_is_the_shortest_run_of_the_smallest_size(data: Path, tmp_path: Path) -> None:
    settings = {
        **settings_of(PROBE, PROBE_STEPS),
        "evaluation.windows": 128,
        "evaluation.every": 0,
        "checkpoint.every": 0,
    }
    trained = toynn.train(data, tmp_path / "run", progress=False, **settings)
    assert probe(toynn.data.DataFolder.open(data), None) == trained.best_loss


@pytest.mark.usefixtures("_probed")
def test_a_plan_can_be_trained_for_its_steps(data: Path, tmp_path: Path) -> None:
    plan = toynn.plan(data, time=30, n_threads=1, **LIGHT)
    assert plan.settings["model.d_model"] == 32
    assert plan.steps == plan.settings["train.steps"]
    assert plan.seconds <= 31
    assert 0 < plan.loss_low < plan.loss < plan.loss_high < 20
    assert plan.bits_per_byte is not None
    meta = toynn.data.DataFolder.open(data).meta
    assert plan.tokens == 1024 * plan.steps
    assert plan.epochs == pytest.approx(plan.tokens / meta.splits["train"].tokens)
    assert plan.memory > 4 * 4 * plan.parameters  # each parameter has a weight, a gradient and two moments
    assert any("too small for the time" in note for note in plan.notes)  # the text has only a few kilobytes
    assert not plan.uses_whole_time
    assert "toynn.Plan" in repr(plan)
    ended = toynn.train(
        data, tmp_path / "run", progress=False, **{**plan.settings, "train.steps": 30, "schedule.decay": 6}
    )
    assert ended.step == 30


@pytest.mark.usefixtures("_probed")
def test_settings_of_a_user_stay_and_are_named_if_the_law_does_not_know_them(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[optimizer]\nlr = 0.001\n[evaluation]\nevery = 7\n")
    plan = toynn.plan(data, time="10s", config=file, batch=2, **LIGHT)
    assert (plan.settings["optimizer.lr"], plan.settings["evaluation.every"]) == (0.001, 7)
    assert plan.tokens == 512 * plan.steps
    assert plan.notes[-1] == (
        "the expected loss is for the plan's own values, not for your values, of optimizer.lr, train.batch"
    )


@pytest.mark.usefixtures("_probed")
def test_params_and_memory_limit_a_plan(data: Path) -> None:
    of_size = toynn.plan(data, params="300k")
    assert 100_000 < of_size.parameters < 700_000
    assert (of_size.limit, of_size.candidates) == (None, ())
    assert not any("were requested" in note for note in of_size.notes)
    tiny = toynn.plan(data, params=10_000)
    assert tiny.notes[-1].startswith("10000 parameters were requested; the nearest size that a plan considers has ")
    small = toynn.plan(data, time=600, memory="30MB", n_threads=1)
    assert small.memory <= 30_000_000
    with pytest.raises(TinyNNValueError, match="no model that a plan considers fits into 1 MB"):
        toynn.plan(data, time=600, memory="1MB", n_threads=1)


@pytest.mark.usefixtures("_probed")
@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, TinyNNValueError, "a plan needs time or params"),
        ({"time": "soon"}, TinyNNValueError, "time must be a time from 5s to 30d"),
        ({"time": True}, TinyNNTypeError, "time must be a number"),
        ({"time": 60, "params": "few"}, TinyNNValueError, "params must be a number of parameters"),
        ({"time": 60, "memory": -1}, TinyNNValueError, "memory must be a memory size"),
        ({"time": 60, "n_threads": 0}, TinyNNValueError, "n_threads must be an integer from 1"),
        ({"time": 60, "steps": 5}, ConfigurationError, "train.steps cannot be set together with a plan"),
        ({"time": 60, "seconds": 5}, ConfigurationError, "train.seconds cannot be set together with a plan"),
        ({"time": 60, "rank": 4}, ConfigurationError, "adapter.rank cannot be set together with a plan"),
        ({"time": 60, "objective": "dpo"}, ConfigurationError, "train.objective cannot be set together with a plan"),
        ({"time": 60, "stepz": 5}, ConfigurationError, "unknown setting 'stepz'"),
        ({"time": 60, "n_heads": 7}, ConfigurationError, "n_heads"),
        ({"time": 60, "config": 5}, TinyNNTypeError, "config must be a path"),
        ({"time": 60, "batch": 100_000}, ConfigurationError, "train.batch = 100000 is too large"),
        ({"time": 60, "lr": 1e30, **LIGHT}, ConfigurationError, "is NaN or infinite in step .*now 1e.30"),
    ],
)
def test_wrong_arguments_are_refused(
    data: Path, arguments: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        toynn.plan(data, **arguments)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_probed")
def test_a_plan_does_not_use_the_seconds_that_are_reserved(data: Path) -> None:
    overrides = tuple(f"model.{key}={value}" for key, value in LIGHT.items())
    plan = planning.make_plan(data, 60.0, overrides=overrides, n_threads=1, reserved=45.0)
    assert plan.limit == 60
    assert plan.seconds < 15


@pytest.mark.usefixtures("_probed")
def test_a_time_that_is_too_short_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "options_of", lambda *_, **__: [])
    with pytest.raises(TinyNNValueError, match=r"^the time 7\.0 s or the memory is too small for a plan: the"):
        toynn.plan(data, time=7)
    with pytest.raises(TinyNNValueError, match=r"a model of about 50000 parameters must fit .* at least 125 steps"):
        toynn.plan(data, time=7, params="50k")


def test_a_plan_needs_plain_text_of_some_length(tmp_path: Path) -> None:
    short = make_data(tmp_path / "short", documents=4)
    with pytest.raises(TinyNNValueError, match="a plan needs more than 1024 training tokens, but this data has"):
        toynn.plan(short, time=60)
    lines = tmp_path / "samples.jsonl"
    lines.write_text("".join(json.dumps({"prompt": f"a {i}", "completion": f"b {i}"}) + "\n" for i in range(50)))
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    file = tmp_path / "template.jinja"
    file.write_text(template)
    samples = toynn.prepare(lines, tmp_path / "samples", vocab_size=300, chat_template=file, progress=False)
    with pytest.raises(TinyNNValueError, match="a plan needs data of plain text, but this data consists of samples"):
        toynn.plan(samples, time=60)


@pytest.mark.usefixtures("_probed")
def test_training_for_a_time_takes_the_plan_and_ends_in_the_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    for module in (time_budget, trainer):
        monkeypatch.setattr(module, "now", lambda: now[0])

    def clock(event: Event) -> None:
        if isinstance(event, Stepped):
            now[0] += 0.2

    run = tmp_path / "run"
    ended = toynn.train(data, run, time=20, progress=False, callbacks=[clock], n_threads=1, **LIGHT)
    assert ended.step <= 100
    config = read_config(run / "run.toml")
    assert config.model is not None
    assert (config.model.d_model, config.optimizer.kind) == (32, "muon")
    assert config.schedule.steps_of_falls[-1][1] == ended.step
    assert read_log(run)[0]["seconds_used"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"init": "x"}, "time cannot be combined with init or base"),
        ({"config": TrainConfig()}, "time cannot be combined with a TrainConfig"),
        ({"time": "1s"}, "time must be a time from 5s"),
    ],
)
def test_a_time_that_cannot_be_planned_is_refused(
    data: Path, tmp_path: Path, arguments: dict[str, object], says: str
) -> None:
    if "init" in arguments:
        arguments = {"init": toynn.train(data, tmp_path / "other", steps=1, progress=False, **LIGHT)}
    with pytest.raises((TinyNNValueError, TinyNNTypeError), match=says):
        toynn.train(data, tmp_path / "run", **{"time": 60, "progress": False, **arguments})  # type: ignore[call-overload]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_probed")
def test_the_command_prints_a_plan(data: Path, tmp_path: Path) -> None:
    light = [word for key, value in LIGHT.items() for word in ("--set", f"model.{key}={value}")]
    run = CliRunner().invoke(app, ["plan", str(data), "--time", "20s", *light])
    assert run.exit_code == 0, run.output
    assert all(len(line) <= 80 for line in run.output.splitlines() if not line.startswith("to train it"))
    shown = " ".join(light)
    assert f"to train it: toynn train {data} --out RUN --time 20s {shown}" in run.output
    run = CliRunner().invoke(app, ["plan", str(data), "--params", "50k", *light, "--threads", "1"])
    *_, save, train = run.output.splitlines()
    assert save == f"to save it: toynn plan {data} --params 50k {shown} --threads 1 --save plan.toml"
    assert train == f"to train it: toynn train {data} --out RUN --config plan.toml --threads 1"
    saved = tmp_path / "plan.toml"
    run = CliRunner().invoke(app, ["plan", str(data), "--params", "50k", "--json", "--save", str(saved), *light])
    plan = json.loads(run.output)
    assert read_config(saved).train.steps == plan["steps"] == plan["settings"]["train.steps"]
    assert math.isfinite(plan["loss"])


def test_a_run_counts_the_seconds_before_the_command_and_after_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_command, "reserved_seconds", lambda: 100.0)
    settings = ["train.seconds=200", "train.steps=2", "schedule.kind=wsd", "model.d_model=32", "model.n_layers=1"]
    words = [word for one in settings for word in ("--set", one)]

    def stop(*_: object) -> None:
        raise StopTraining

    monkeypatch.setattr(train_command, "_view", lambda *_: contextlib.nullcontext(stop))
    run = CliRunner().invoke(app, ["train", str(data), "--out", str(tmp_path / "run"), *words])
    assert run.exit_code == 0, run.output
    assert 100 < read_log(tmp_path / "run")[0]["seconds_used"] < 200


def test_the_command_names_its_options_in_errors(data: Path) -> None:
    for arguments, says in (
        ([], "a plan needs --time or --params, for example --time 1h"),
        (["--time", "1"], "--time must be a time from 5s to 30d"),
        (["--time", "1m", "--memory", "x"], "--memory must be a memory size"),
    ):
        run = CliRunner().invoke(app, ["plan", str(data), *arguments])
        assert run.exit_code == 2
        assert says in run.stderr

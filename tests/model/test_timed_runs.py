"""Runs with train.seconds: the recorded steps give the same bytes without a clock, also after a stop.

The clock is simulated: each step takes the same time, or the time that a test chooses.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import toynn
from small_runs import config, make_data
from toynn.api.plain_progress import PlainProgress
from toynn.cli.info_command import command as info_command
from toynn.errors import ConfigurationError
from toynn.serve.watch_data import watch_data
from toynn.storage.checkpoint.names import CONFIG, LOG
from toynn.training import (
    CheckpointArgs,
    EvaluationArgs,
    Event,
    Rescheduled,
    Saved,
    ScheduleArgs,
    Started,
    StepArgs,
    Stepped,
    StopTraining,
    TrainArgs,
    TrainConfig,
    time_budget,
    trainer,
)
from toynn.training.progress import ProgressView
from toynn.training.run_log import planned_steps, read_log
from toynn.training.step import StepResult, TrainingSteps
from toynn.training.toml_config import read_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("timed") / "data")


class Clock:
    """A clock that each step of a run moves forward. seconds: returns the duration of a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> None:
        self.now, take = 0.0, TrainingSteps.take
        for module in (time_budget, trainer):
            monkeypatch.setattr(module, "now", lambda: self.now)

        def taken(steps: TrainingSteps, step: int) -> StepResult | None:
            self.now += seconds(step)
            return take(steps, step)

        monkeypatch.setattr(TrainingSteps, "take", taken)


def timed(seconds: float = 3.0, steps: int = 50) -> TrainConfig:
    """Return the configuration of a run that ends after a time. steps: an estimate of the number of steps."""
    return replace(
        config(),
        train=StepArgs(steps=steps, batch=2, seconds=seconds),
        schedule=ScheduleArgs("wsd", warmup=2, min_ratio=0.0),
        evaluation=EvaluationArgs(every=5),
        checkpoint=CheckpointArgs(every=10),
    )


def files_of(run: Path) -> dict[str, bytes]:
    """Return the weights and moments of the latest checkpoint."""
    checkpoint = run / "checkpoints" / (run / "latest").read_text().strip()
    return {name: (checkpoint / f"{name}.safetensors").read_bytes() for name in ("weights", "moments")}


def replayed(data: Path, run: Path, out: Path) -> dict[str, bytes]:
    """Train with the steps that a run recorded, without a clock."""
    recorded = read_config(run / CONFIG)
    toynn.train(TrainArgs(data, out, replace(recorded, train=replace(recorded.train, seconds=0.0))))
    return files_of(out)


def test_a_timed_run_has_the_bytes_of_a_run_with_its_steps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda step: 0.1 if step < 25 else 0.05)
    decided: list[Rescheduled] = []

    def collect(event: Event) -> None:
        if isinstance(event, Rescheduled):
            decided.append(event)

    ended = toynn.train(TrainArgs(data, tmp_path / "run", timed()), [collect])
    assert abs(clock.now - 3.0) < 0.15
    assert len(decided) >= 2  # the speed changes during the fall, so the end is moved at least once
    assert decided[-1].steps == ended.step > 30
    recorded = read_config(tmp_path / "run" / CONFIG)
    assert recorded.schedule.falls == decided[-1].falls
    in_log = [event for event in read_log(tmp_path / "run") if event["event"] == "rescheduled"]
    assert [event["falls"] for event in in_log] == [list(one.falls) for one in decided]
    assert files_of(tmp_path / "run") == replayed(data, tmp_path / "run", tmp_path / "replayed")


def test_views_show_the_last_step_that_was_decided(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    Clock(monkeypatch, lambda _: 0.1)
    ended = toynn.train(TrainArgs(data, run, timed(3.05)), [PlainProgress(1)])
    events = read_log(run)
    assert (planned_steps(events), ended.step) == (30, 30)
    assert planned_steps([event for event in events if event["event"] != "rescheduled"]) == 50
    assert planned_steps([]) is None
    assert watch_data(events)["figures"]["steps"] == 30
    shown = capsys.readouterr().err
    assert "step 24: the learning rate begins to fall, the last step is 30\n" in shown
    assert "step 24/50: " in shown
    assert "step 25/30: " in shown
    console = Console(file=io.StringIO(), width=80)
    with ProgressView(console) as view:
        view(Rescheduled(24, 30, ("24-31", "26-30"), 1.0))
    assert "step 24: the speed has changed, the last step is 30" in console.file.getvalue()  # type: ignore[attr-defined]


def test_no_view_shows_the_estimate_after_a_run_has_taken_more_steps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    Clock(monkeypatch, lambda _: 0.1)
    looked: list[int] = []

    def look(event: Event) -> None:
        if isinstance(event, Saved) and event.step == 20:
            assert CliRunner().invoke(info_command, [str(run)]).output.count("seconds planned") == 1
            looked.append(event.step)

    ended = toynn.train(TrainArgs(data, run, timed(3.05, steps=10)), [PlainProgress(1), look])
    events = read_log(run)
    shown = capsys.readouterr().err
    assert ended.step == 30
    assert "step 10/10: " in shown
    assert "step 11: loss" in shown
    assert "step 24: loss" in shown
    assert "step 25/30: " in shown
    before = events[: next(i for i, event in enumerate(events) if event["event"] == "rescheduled")]
    assert planned_steps(before) is None
    figures = watch_data(before)["figures"]
    assert (figures["step"], figures["steps"], figures["seconds_left"]) == (24, None, None)
    info = CliRunner().invoke(info_command, [str(run), "--json"])
    assert json.loads(info.output)["steps planned"] == 30
    assert looked == [20]


def test_the_bar_has_no_total_after_more_steps_than_estimated() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with ProgressView(console) as view:
        view(Started(Path("run"), Path("data"), 0, 10, 1, 1, 1, 1, None, None, ""))
        view(Stepped(11, 1.0, 0.1, 1.0, 11, 0.1, 10.0))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "11/?" in shown
    assert "11/10" not in shown


# The run stops before the fall, during the fall, or after more steps than estimated.
@pytest.mark.parametrize(("stop", "steps"), [(7, 50), (28, 50), (15, 10)])
def test_a_resumed_run_continues_with_the_rest_of_its_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, steps: int
) -> None:
    run = tmp_path / "run"
    Clock(monkeypatch, lambda _: 0.1)

    def stops(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == stop:
            raise StopTraining

    toynn.train(TrainArgs(data, run, timed(steps=steps)), [stops])
    log = run / LOG
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:  # replaces the real seconds of the steps in the log by the simulated seconds
        line.update({key: value for key, value in (("seconds", 0.1 * (line["event"] == "stepped")),) if key in line})
        line.update({key: 0.0 for key in ("seconds_used",) if key in line})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.undo()
    Clock(monkeypatch, lambda _: 0.1)
    started: list[Started] = []
    ended = toynn.train(
        TrainArgs(data, run, resume=True),
        [lambda event: started.append(event) if isinstance(event, Started) else None],
    )
    assert started[0].seconds_used == pytest.approx(0.1 * stop, abs=0.05)
    assert ended.step == pytest.approx(30, abs=1)
    assert files_of(run) == replayed(data, run, tmp_path / "replayed")


def test_the_time_can_change_until_the_run_has_ended(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    Clock(monkeypatch, lambda _: 0.1)

    def stops(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 5:
            raise StopTraining

    toynn.train(TrainArgs(data, run, timed()), [stops])
    ended = toynn.train(data, run, resume=True, seconds=5.0, progress=False)
    assert ended.step == pytest.approx(55, abs=4)  # the log says that the first five steps took almost no time
    with pytest.raises(ConfigurationError, match=r"train.seconds = 90 has no effect, because the run has ended"):
        toynn.train(data, run, resume=True, seconds=90, progress=False)
    assert toynn.train(data, run, resume=True, progress=False).reason == "done"


def test_a_step_after_the_time_is_over_ends_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = TrainArgs(data, tmp_path / "run", timed(1.0), seconds_used=5.0)
    Clock(monkeypatch, lambda _: 0.1)
    assert toynn.train(args).step == 2

"""Wrong input of commands that run as processes: the exit status, the single line of the error, and valid JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import SMALL, TOYNN, assert_refused, start_training, toynn, wait_for_a_step
from small_runs import config, final_bytes, losses
from toynn import TrainArgs, train
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.storage.checkpoint.names import checkpoint_names
from toynn.training import StepArgs


def test_a_pipe_is_refused_as_a_text_a_configuration_and_an_export_path(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(toynn("eval", trained, tmp_path / "pipe"), "is not a regular file")
    assert_refused(
        toynn("train", data, "--out", tmp_path / "r", "--config", tmp_path / "pipe"), "is not a regular file"
    )
    assert_refused(toynn("export", trained, tmp_path / "pipe", "--format", "gguf", "--force"), "is not a regular file")


def test_an_import_does_not_change_the_folder_of_a_training_run(trained: Path, tmp_path: Path) -> None:
    assert toynn("export", trained, tmp_path / "m.gguf").returncode == 0
    before = (checkpoint_names(trained), (trained / "latest").read_bytes(), (trained / "best").read_bytes())
    assert_refused(toynn("import", tmp_path / "m.gguf", "--out", trained, "--force"), "is a run that was trained")
    assert (checkpoint_names(trained), (trained / "latest").read_bytes(), (trained / "best").read_bytes()) == before


def strict(raw: str) -> Any:
    """Parse JSON, and refuse NaN and Infinity, which are not valid JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not valid JSON")

    return json.loads(raw, parse_constant=refuse)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_eval_prints_valid_json_for_a_model_with_an_infinite_perplexity(
    trained: Path, tmp_path: Path, scale: float
) -> None:
    one = load_checkpoint(trained).model
    gamma = np.full_like(one.weights["output_norm.weight"], scale)
    write_checkpoint(tmp_path / "run", dataclasses.replace(one, weights={**one.weights, "output_norm.weight": gamma}))
    (tmp_path / "text").write_text("the cat saw a hen and the dog ran home.")
    done = toynn("eval", tmp_path / "run", tmp_path / "text", "--json")
    assert done.returncode == 0, done.stderr
    assert strict(done.stdout)["perplexity"] is None
    assert toynn("eval", tmp_path / "run", tmp_path / "text").returncode == 0


def test_a_run_with_a_name_that_is_not_utf_8_can_be_trained_and_used(data: Path, tmp_path: Path) -> None:
    run = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    options = [*SMALL, "--set", "train.steps=3", "--set", "optimizer.lr=1e-3"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}

    def utf8(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*TOYNN, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, errors="surrogateescape"
        )

    done = utf8("train", data, "--out", run, *options)
    assert done.returncode == 0, done.stderr
    assert f"report  {run / 'report.html'}\n" in done.stdout
    assert "<h1>b\\xff</h1>" in (run / "report.html").read_text(encoding="utf-8")
    for command in ("report", "info", "generate"):
        done = utf8(command, run)
        assert done.returncode == 0, done.stderr


# ---- interrupts ----

ENDLESS = ["--set", f"train.accumulate={2**31 - 1}", "--quiet"]  # a step with so many batches that it never ends


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_step_between_two_accumulated_batches(data: Path, tmp_path: Path, number: int) -> None:
    process = start_training(data, tmp_path / "run", 3, *ENDLESS)
    wait_for(tmp_path / "run" / "latest", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted after 0 steps, saved" in out
    assert load_checkpoint(tmp_path / "run").step == 0


def test_a_run_that_was_stopped_within_a_step_resumes_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    from toynn.llm.engine import LlamaSeqEngine

    three = config(4, train=StepArgs(steps=4, batch=2, accumulate=3))
    train(TrainArgs(data, tmp_path / "whole", three))
    real, calls = LlamaSeqEngine.train_step, 0

    def interrupting(self: LlamaSeqEngine, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:  # the signal arrives in the second batch of the third step
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaSeqEngine, "train_step", interrupting)
        ended = train(TrainArgs(data, tmp_path / "run", three))
    assert (ended.reason, ended.step, calls) == ("interrupted", 2, 8)
    train(TrainArgs(data, tmp_path / "run", resume=True))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_of_either_kind_stops_training_at_once(
    data: Path, tmp_path: Path, first: int, second: int
) -> None:
    from toynn.training import Event, Stepped

    def twice(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), second)

    with pytest.raises(KeyboardInterrupt):
        train(TrainArgs(data, tmp_path / "run", config(9)), [twice])
    assert load_checkpoint(tmp_path / "run").step == 0


def test_two_sigterms_end_the_command_with_exit_status_130(data: Path, tmp_path: Path) -> None:
    process = start_training(data, tmp_path / "run", 100000)
    wait_for_a_step(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err

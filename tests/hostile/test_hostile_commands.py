"""Commands given what they should not be given, as processes: the right exit code, one line, JSON that is JSON."""

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
from toynn.storage.checkpoint.run_folder import checkpoint_names
from toynn.training import StepArgs


def test_a_pipe_is_no_text_to_evaluate_and_no_configuration(data: Path, trained: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(toynn("eval", trained, tmp_path / "pipe"), "is not a regular file")
    assert_refused(
        toynn("train", data, "--out", tmp_path / "r", "--config", tmp_path / "pipe"), "is not a regular file"
    )
    assert_refused(toynn("export", trained, tmp_path / "pipe", "--format", "gguf", "--force"), "is not a regular file")


def test_an_import_leaves_a_training_alone(trained: Path, tmp_path: Path) -> None:
    assert toynn("export", trained, tmp_path / "m.gguf").returncode == 0
    before = (checkpoint_names(trained), (trained / "latest").read_bytes(), (trained / "best").read_bytes())
    assert_refused(toynn("import", tmp_path / "m.gguf", "--out", trained, "--force"), "is a run that was trained")
    assert (checkpoint_names(trained), (trained / "latest").read_bytes(), (trained / "best").read_bytes()) == before


def strict(raw: str) -> Any:
    """JSON without NaN and Infinity, which are none."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(raw, parse_constant=refuse)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_what_eval_says_is_json_however_bad_the_model(trained: Path, tmp_path: Path, scale: float) -> None:
    one = load_checkpoint(trained).model
    gamma = np.full_like(one.weights["output_norm.weight"], scale)
    write_checkpoint(tmp_path / "run", dataclasses.replace(one, weights={**one.weights, "output_norm.weight": gamma}))
    (tmp_path / "text").write_text("the cat saw a hen and the dog ran home.")
    done = toynn("eval", tmp_path / "run", tmp_path / "text", "--json")
    assert done.returncode == 0, done.stderr
    assert strict(done.stdout)["perplexity"] is None
    assert toynn("eval", tmp_path / "run", tmp_path / "text").returncode == 0


def test_a_run_whose_name_is_no_utf_8_trains_reports_and_writes(data: Path, tmp_path: Path) -> None:
    run = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    words = [*SMALL, "--set", "train.steps=3", "--set", "optimizer.lr=1e-3"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}

    def utf8(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*TOYNN, *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, errors="surrogateescape"
        )

    done = utf8("train", data, "--out", run, *words)
    assert done.returncode == 0, done.stderr
    assert f"report  {run / 'report.html'}\n" in done.stdout
    assert "<h1>b\\xff</h1>" in (run / "report.html").read_text(encoding="utf-8")
    for command in ("report", "info", "generate"):
        done = utf8(command, run)
        assert done.returncode == 0, done.stderr


# ---- interrupts ----

ENDLESS = ["--set", f"train.accumulate={2**31 - 1}", "--quiet"]  # a step that no test would see the end of


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_step_of_many_parts_is_dropped_between_two_of_them(data: Path, tmp_path: Path, number: int) -> None:
    process = start_training(data, tmp_path / "run", 3, *ENDLESS)
    wait_for(tmp_path / "run" / "latest", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted after 0 steps, saved" in out
    assert load_checkpoint(tmp_path / "run").step == 0


def test_a_step_that_was_dropped_leaves_no_trace_in_the_bytes(data: Path, tmp_path: Path) -> None:
    """Parts of a step are computed and thrown away; then the run goes on, and ends as one that was never stopped."""
    from toynn.llm.engine import LlamaSeqEngine

    three = config(4, train=StepArgs(steps=4, batch=2, accumulate=3))
    train(TrainArgs(data, tmp_path / "whole", three))
    real, calls = LlamaSeqEngine.train_step, 0

    def interrupting(self: LlamaSeqEngine, *args: Any, **words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:  # the second part of the third step
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaSeqEngine, "train_step", interrupting)
        ended = train(TrainArgs(data, tmp_path / "run", three))
    assert (ended.reason, ended.step, calls) == ("interrupted", 2, 8)
    train(TrainArgs(data, tmp_path / "run", resume=True))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_of_either_kind_ends_at_once(data: Path, tmp_path: Path, first: int, second: int) -> None:
    from toynn.training import Event, Stepped

    def twice(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), second)

    with pytest.raises(KeyboardInterrupt):
        train(TrainArgs(data, tmp_path / "run", config(9)), [twice])
    assert load_checkpoint(tmp_path / "run").step == 0


def test_two_sigterms_end_the_command_with_130(data: Path, tmp_path: Path) -> None:
    process = start_training(data, tmp_path / "run", 100000)
    wait_for_a_step(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err

"""Logging with Weights & Biases (offline) and MLflow (a local folder): every figure and text, read from the files."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toynn
from commands import SMALL
from small_runs import config
from toynn import SessionError, TrainArgs
from toynn.training import EvaluationArgs
from toynn.training.events import Evaluated, Stepped
from toynn.training.logged_figures import figures_of
from toynn.training.run_log import read_log

STEP = Stepped(step=1, loss=1.0, learning_rate=0.1, gradient_norm=1.0, tokens=1, seconds=1.0, tokens_per_second=1.0)
NAMES = {
    "stepped": ("train", ("loss", "learning_rate", "gradient_norm", "tokens_per_second")),
    "evaluated": ("validation", ("loss", "perplexity", "bits_per_byte")),
}


def expected(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the figures in the log of a run: the steps and values of each name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in read_log(run):
        group, names = NAMES.get(event["event"], ("", ()))
        for name in names:
            found.setdefault(f"{group}/{name}", []).append((event["step"], event[name]))
    return found


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a .wandb file: a header of 7 bytes, then the log format of LevelDB in blocks of 32 KiB.

    A record is in one or more parts of u32 checksum, u16 length, u8 kind (1: whole, 2 to 4: first, middle, last).
    """
    assert content[:4] == b":W&B"
    at, record = 7, b""
    while at + 7 <= len(content):
        if (1 << 15) - at % (1 << 15) < 7:  # a part does not begin in the last 6 bytes of a block
            at += (1 << 15) - at % (1 << 15)
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def texts(run: Path) -> dict[int, list[str]]:
    return {
        event["step"]: [prompt + text for prompt, text in zip(event["prompts"], event["samples"], strict=True)]
        for event in read_log(run)
        if event["event"] == "evaluated"
    }


def train_with(view: Any, data: Path, run: Path) -> None:
    evaluation = EvaluationArgs(every=3, prompts=("the cat", "a"), sample_tokens=3)
    with view:
        toynn.train(TrainArgs(data, run, config(6, evaluation=evaluation)), [view])


def test_an_unknown_figure_is_left_out() -> None:
    unknown = Evaluated(1, 1.0, 2.0, math.nan, 1, 1.0, True)
    assert figures_of(unknown) == {"validation/loss": 1.0, "validation/perplexity": 2.0}


def test_weights_and_biases_gets_every_figure_and_text(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.proto import wandb_internal_pb2

    from toynn.training.wandb_view import WandbView

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "my run"
    train_with(WandbView(), data, run)
    (file,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    records = [wandb_internal_pb2.Record.FromString(content) for content in wandb_records(file.read_bytes())]
    started = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (started.project, started.display_name, started.run_group) == ("toynn", "my run", "my run")
    settings = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert settings["train"]["steps"] == 6
    found: dict[str, list[tuple[int, float]]] = {}
    tables = 0
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = items["_step"]
            for name, value in items.items():
                if "/" in name:
                    found.setdefault(name, []).append((step, value))
            tables += any(name.startswith("samples") for name in items)
    assert found == expected(run)
    written = [json.loads(path.read_text(encoding="utf-8"))["data"] for path in run.rglob("*.table.json")]
    assert tables == 2
    assert sorted(written) == sorted([[text] for text in those] for those in texts(run).values())
    with pytest.raises(SessionError, match="WandbView must receive the event Started"):
        WandbView()(STEP)


def test_mlflow_gets_every_figure_and_text(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    from mlflow.tracking import MlflowClient

    from toynn.training.mlflow_view import MlflowView

    run = tmp_path / "my run"
    train_with(MlflowView(), data, run)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("toynn")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("my run", "FINISHED")
    assert (found.data.params["train.steps"], found.data.params["optimizer.lr"]) == ("6", "0.01")
    wanted = expected(run)
    assert found.data.metrics.keys() == wanted.keys()
    for name, values in wanted.items():
        history = client.get_metric_history(found.info.run_id, name)
        assert sorted((one.step, one.value) for one in history) == values
    for step, those in texts(run).items():
        path = client.download_artifacts(found.info.run_id, f"samples/step-{step:08}.txt")
        assert Path(path).read_text(encoding="utf-8") == "\n\n".join(those) + "\n"
    with pytest.raises(SessionError, match="MlflowView must receive the event Started"):
        MlflowView()(STEP)


def test_the_command_logs_with_both(data: Path, tmp_path: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    environment = {
        "WANDB_MODE": "offline",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": store.as_uri(),
        "MLFLOW_EXPERIMENT_NAME": "other",
    }
    words = ["train", str(data), "--out", str(run), *SMALL, "--set", "train.steps=3", "--wandb", "--mlflow", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", "from toynn.cli.start import main; main()", *words],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((run / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
    assert [path.name for path in store.rglob("loss")] == ["loss", "loss"]

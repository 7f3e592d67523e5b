"""A run can be read while it trains and removes checkpoints, and no reader reports a complete file as damaged."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toynn
from commands import SMALL, output_of, start_training
from commands import toynn as run_toynn
from small_models import random_model
from toynn import FileFormatError
from toynn.storage.checkpoint import RunFolder, folder, load_checkpoint
from toynn.storage.checkpoint.folder import CheckpointRemovedError
from toynn.training.report import write_report


def rotate(run: Path, step: int) -> None:
    """Write the checkpoint of a step and remove all older checkpoints, as a run with keep_last = 1 does."""
    with RunFolder(run) as run_folder:
        run_folder.save(step, random_model(seed=step), None, best=True)
        run_folder.keep(1, best=True)


def while_it_is_read(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None], times: int = 1) -> None:
    """Call `act` before each of the first `times` calls of the function `name`, which reads a checkpoint."""
    original = getattr(folder, name)
    left = [times]

    def read(*arguments: Any, **named: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            act()
        return original(*arguments, **named)

    monkeypatch.setattr(folder, name, read)


@pytest.mark.quick
@pytest.mark.parametrize("which", ["latest", "best"])
@pytest.mark.parametrize("moment", ["read_checkpoint_meta", "_opened"])
def test_a_checkpoint_that_is_removed_before_it_is_open_is_followed_to_its_successor(
    which: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    rotate(run, 1)
    steps = iter((2, 3, 4))
    while_it_is_read(monkeypatch, moment, lambda: rotate(run, next(steps)), times=3)
    assert load_checkpoint(run, which).step == 4


@pytest.mark.quick
@pytest.mark.parametrize("moment", ["sha256_of_file", "tensors_in_memory", "_model"])
def test_a_checkpoint_that_is_removed_while_it_is_open_is_read_to_its_end(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    rotate(run, 1)
    while_it_is_read(monkeypatch, moment, lambda: rotate(run, 2))
    read = load_checkpoint(run)
    assert read.step == 1
    assert not read.path.exists()
    assert all((read.model.weights[name] == values).all() for name, values in random_model(seed=1).weights.items())


@pytest.mark.quick
def test_the_error_for_a_removed_checkpoint_does_not_say_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate(tmp_path / "run", 1)
    while_it_is_read(monkeypatch, "_opened", lambda: rotate(tmp_path / "run", 2))
    with pytest.raises(
        CheckpointRemovedError, match=r"step-00000001 was removed while it was read, .*give the folder of the run"
    ):
        load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000001")


@pytest.mark.quick
def test_a_pointer_to_a_checkpoint_that_never_existed_is_damaged(tmp_path: Path) -> None:
    rotate(tmp_path / "run", 1)
    (tmp_path / "run" / "latest").write_text("step-00000009\n")
    with pytest.raises(FileFormatError, match=r"latest is damaged: it names step-00000009, .*; other .*1$"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.quick
def test_a_checkpoint_with_a_missing_file_is_reported_as_damaged(tmp_path: Path) -> None:
    rotate(tmp_path / "run", 1)
    (load_checkpoint(tmp_path / "run").path / "tokenizer.json").unlink()
    with pytest.raises(FileFormatError, match=r"is damaged: tokenizer\.json cannot be read"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.quick
def test_a_thousand_reads_beside_a_writer_succeed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    rotate(run, 1)
    done = threading.Event()

    def write() -> None:
        step = 1
        with RunFolder(run) as run_folder:
            while not done.is_set():
                step += 1
                run_folder.save(step, random_model(seed=step % 3), None, best=step % 5 == 0)
                run_folder.keep(1, best=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        steps = {load_checkpoint(run, which).step for _ in range(500) for which in ("latest", "best")}
    finally:
        done.set()
        writer.join()
    assert len(steps) > 20, "the writer must have written while the checkpoints were read"


def test_every_reader_succeeds_beside_a_training_that_saves_every_step(data: Path, tmp_path: Path) -> None:
    run, text, busy = tmp_path / "run", tmp_path / "t.txt", tmp_path / "busy"
    text.write_text("the cat saw a hen.\n")
    sets = [word for key in ("checkpoint.keep_last=1", "evaluation.every=3") for word in ("--set", key)]
    # a run of three steps is copied and resumed, so that the readers always find a checkpoint
    output_of("train", data, "--out", run, *SMALL, "--set", "train.steps=3", "--quiet")
    shutil.copytree(run, busy)
    commands: list[list[str]] = [
        ["generate", str(busy), "-p", "the", "-n", "1", "--best"], ["eval", str(busy), str(text)],
        ["info", str(busy)], ["report", str(busy)], ["export", str(busy), str(tmp_path / "out"), "--force"],
        ["train", str(data), "--out", str(tmp_path / "on"), "--init", str(busy), "--set", "train.steps=1",
         "--set", "schedule.warmup=0", "--set", "train.batch=1", "--quiet"],
    ]  # fmt: skip
    process = start_training(data, busy, 100_000, "--resume", "--quiet", *sets)
    try:
        while not load_checkpoint(busy).step > 3:
            assert process.poll() is None, process.stderr
        for command in commands:
            done = run_toynn(*command)
            assert done.returncode == 0, done.stderr
        for i in range(100):
            with toynn.load(busy, which=("latest", "best")[i % 2]) as model:
                assert model.step > 3
        write_report(busy)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()

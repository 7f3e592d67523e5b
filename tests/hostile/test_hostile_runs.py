"""Damaged or hostile runs, checkpoints and configurations are refused with the reason, and so are wrong arguments."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from small_models import random_model
from small_runs import config
from toynn import LlamaSeqEngine, RunFolderError, SmolLM2Config, TinyNNTypeError, TinyNNValueError, TrainArgs, train
from toynn.interop import export_gguf, import_gguf, import_hf
from toynn.llm.options import RecipeOptions
from toynn.storage.checkpoint import RunFolder, load_checkpoint, write_checkpoint
from toynn.storage.checkpoint.names import checkpoint_names
from toynn.training import Event, Stepped
from toynn.training.report import write_report
from toynn.training.run_log import read_log
from toynn.training.toml_config import from_toml, read_config


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the trained run."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


# ---- files that are not regular files ----


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


READERS: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "a configuration": ("run.toml", lambda data, run: read_config(run / "run.toml")),
    "latest": ("latest", lambda data, run: load_checkpoint(run)),
    "best": ("best", lambda data, run: load_checkpoint(run, "best")),
    "the lock": (".lock", lambda data, run: RunFolder(run)),
    "a log that is read": ("log.jsonl", lambda data, run: read_log(run / "log.jsonl")),
    "a log that is reported": ("log.jsonl", lambda data, run: write_report(run)),
    "a log that is added to": ("log.jsonl", lambda data, run: train(TrainArgs(data, run, resume=True))),
}


@pytest.mark.parametrize("make", [os.mkfifo, zero])
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_or_device_in_a_run_folder_is_refused_at_once(
    name: str, make: Callable[[Path], None], data: Path, run: Path
) -> None:
    file, read = READERS[name]
    (run / file).unlink()
    make(run / file)
    with pytest.raises(TinyNNValueError, match=rf"{file} is not a regular file"):
        read(data, run)


def test_an_export_does_not_replace_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TinyNNValueError, match="is not a regular file"):
        export_gguf(random_model(), tmp_path / "pipe", overwrite=True)
    assert (tmp_path / "pipe").is_fifo()


def test_a_configuration_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "run.toml").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(TinyNNValueError, match="larger than"):
        read_config(tmp_path / "run.toml")


# ---- a wrong meta.json whose checksums are correct ----


def tampered(run: Path, change: Callable[[dict[str, Any], Path], None]) -> Path:
    """Change the latest checkpoint, and correct the sizes and checksums of its files."""
    path = load_checkpoint(run).path
    meta = json.loads((path / "meta.json").read_text())
    change(meta, path)
    for name in meta["files"]:
        content = (path / name).read_bytes()
        meta["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "meta.json").write_text(json.dumps(meta))
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("best_loss", float("nan"), "training: best_loss must be a finite number or null, got nan"),
        ("best_loss", float("inf"), "training: best_loss must be a finite number or null, got inf"),
        ("best_loss", 10**400, "training: best_loss must be a finite number or null"),
        ("best_loss", None, "best_loss and best_step must both be null or both be numbers"),
        ("best_step", -5, r"training\.best_step must be an integer from 0 to 5, got -5"),
        ("best_step", 6, r"training\.best_step must be an integer from 0 to 5, got 6"),
        ("best_step", 10**30, r"training\.best_step must be an integer from 0 to 5"),
        ("best_step", None, "best_loss and best_step must both be null or both be numbers"),
        ("bad_evaluations", 2**62, r"training\.bad_evaluations must be an integer from 0 to 5"),
    ],
)
def test_an_impossible_training_state_is_refused_by_name(run: Path, key: str, value: object, message: str) -> None:
    tampered(run, lambda meta, _: meta["training"].update({key: value}))
    with pytest.raises(TinyNNValueError, match=message):
        load_checkpoint(run)


def test_more_steps_than_a_run_can_have_are_refused(run: Path) -> None:
    tampered(run, lambda meta, _: (meta.update(step=2**40), meta["training"].update(windows=2**41))[0])
    with pytest.raises(TinyNNValueError, match="step must be an integer from 0 to 2147483647, got 1099511627776"):
        load_checkpoint(run)


def test_negative_second_moments_are_refused_by_name(run: Path) -> None:
    def change(meta: dict[str, Any], path: Path) -> None:
        moments = load_file(path / "moments.safetensors")
        moments["output_norm.weight.v"][0] = -1.0
        save_file(moments, path / "moments.safetensors")

    tampered(run, change)
    with pytest.raises(TinyNNValueError, match=r"output_norm\.weight\.v must be 0 or above, but its minimum is -1\.0"):
        load_checkpoint(run)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E8M0", "BF16", "F64", "C64", "BOOL"])
def test_weights_with_another_dtype_are_refused(run: Path, dtype: str) -> None:
    sizes = {"F8_E4M3": 1, "F8_E8M0": 1, "BF16": 2, "F64": 8, "C64": 8, "BOOL": 1}

    def change(meta: dict[str, Any], path: Path) -> None:
        header, end = {}, 0
        for name, values in load_checkpoint(run).model.weights.items():
            start, end = end, end + values.size * sizes[dtype]
            header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [start, end]}
        raw = json.dumps(header).encode()
        (path / "weights.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(end))

    tampered(run, change)
    with pytest.raises(TinyNNValueError, match=r"weights\.safetensors"):
        load_checkpoint(run)


# ---- the best checkpoint ----


def test_a_best_checkpoint_after_latest_is_reset_when_the_run_resumes(data: Path, tmp_path: Path) -> None:
    """A process that was killed after it wrote `best` and before it wrote `latest` leaves this state."""
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(5)))
    best = load_checkpoint(run, "best")
    again = load_checkpoint(run)
    assert best.step == 5 and again.training is not None
    with RunFolder(run) as folder:
        stray = folder.save(9, again.model, again.training, best=True)
        (run / "latest").write_text(f"{best.path.name}\n")
    assert load_checkpoint(run, "best").path == stray
    train(TrainArgs(data, run, resume=True))
    assert load_checkpoint(run, "best").path == best.path
    assert (run / "best").read_text().strip() in checkpoint_names(run)


def test_best_is_removed_with_its_checkpoint(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.save(1, random_model(), None, best=True)
        run.save(2, random_model(seed=1), None)
        run.keep(1, best=True)
        assert load_checkpoint(tmp_path / "run", "best").step == 1
        run.keep(1, best=False)
    assert checkpoint_names(tmp_path / "run") == ["step-00000002"]
    assert not (tmp_path / "run" / "best").exists()


def test_another_model_cannot_be_written_into_a_training_run(run: Path) -> None:
    before = checkpoint_names(run)
    with pytest.raises(
        TinyNNValueError, match=r"is a run that was trained \(it contains log\.jsonl\); write the model"
    ):
        write_checkpoint(run, random_model())
    for name in ("log.jsonl", "best"):
        (run / name).unlink()
    with pytest.raises(TinyNNValueError, match=r"is a run that was trained \(it contains step-\d+\)"):
        write_checkpoint(run, random_model())
    assert checkpoint_names(run) == before


# ---- a removed run folder, a full disk ----


def test_training_ends_with_an_error_if_its_run_folder_is_removed(data: Path, tmp_path: Path) -> None:
    def remove(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(RunFolderError, match="another process has removed"):
        train(TrainArgs(data, tmp_path / "run", config(5)), [remove])


def test_the_error_for_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("toynn.storage.checkpoint.folder.write_synced", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*step-00000003'"):
        write_checkpoint(tmp_path / "run", random_model(), step=3)
    monkeypatch.setattr("gguf.GGUFWriter.write_tensors_to_file", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*m\.gguf'"):
        export_gguf(random_model(tokenizer=None), tmp_path / "m.gguf")


# ---- arguments ----


class Array:
    """An object whose == compares each element and returns an array, like == of numpy's arrays."""

    def __eq__(self, other: object) -> Any:
        return np.array([True, False])

    __hash__ = None  # type: ignore[assignment]


NOT_PATHS: list[tuple[Any, type[Exception]]] = [
    (None, TinyNNTypeError),
    (5, TinyNNTypeError),
    ("a\0b", TinyNNValueError),
    ("\ud800", TinyNNValueError),
]


@pytest.mark.parametrize(("value", "error"), NOT_PATHS)
@pytest.mark.parametrize("call", [load_checkpoint, RunFolder, read_config, write_report, import_gguf, import_hf])
def test_a_value_that_is_not_a_path_is_refused_by_name(
    call: Callable[[Any], Any], value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^(path|folder|run) must"):
        call(value)


def test_errors_of_a_run_folder_name_the_argument(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        for arguments, message in [((0, None, None), "model must be"), ((0, random_model(), 5), "training must be")]:
            with pytest.raises(TinyNNTypeError, match=message):
                run.save(*arguments)  # type: ignore[arg-type]
    with pytest.raises(TinyNNValueError, match="which must be"):
        load_checkpoint(tmp_path / "run", Array())  # type: ignore[arg-type]


def test_a_closed_run_folder_refuses_to_write(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.close()
    for call in (lambda: run.save(0, random_model(), None), lambda: run.keep(1, True), lambda: run.settle(None)):
        with pytest.raises(RunFolderError, match="was closed"):
            call()
    assert checkpoint_names(tmp_path / "run") == []


@pytest.mark.parametrize("content", [5, None, b"", b"x = 1"])
def test_a_configuration_that_is_not_a_str_is_refused(content: Any) -> None:
    with pytest.raises(TinyNNTypeError, match="the configuration must be a str"):
        from_toml(content)


@pytest.mark.parametrize("content", ["x = " + "[" * 20_000, "x = " + "9" * 5000, "x"])
def test_a_configuration_that_is_not_valid_toml_is_refused(content: str) -> None:
    with pytest.raises(TinyNNValueError, match="the configuration: the text is not valid TOML"):
        from_toml(content)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=" + "[" * 20_000, r"optimizer\.lr: .* is nested too deeply"),
        ("optimizer.lr=" + "9" * 5000, r"optimizer\.lr: .* is not a TOML value"),
        ("optimizer.lr=1e-3\nfoo=1", r"sets more keys than optimizer\.lr"),
        ("optimizer.lr=1e-3\n[train]\nsteps=5", r"sets more keys than optimizer\.lr"),
        ("schedule.kind=cosine\nfoo=1", r"schedule\.kind must be one of"),
        ("x" * 9999, "a setting must be section.key=VALUE"),
    ],
)
def test_an_override_that_is_not_one_valid_setting_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(TinyNNValueError, match=message) as caught:
        from_toml("", "--set", [override])
    assert len(str(caught.value)) < 300


def test_an_override_that_is_not_a_str_is_refused() -> None:
    with pytest.raises(TinyNNTypeError, match="an override must be a str"):
        from_toml("", "--set", [5])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("callbacks", "message"), [(5, "callbacks must be a sequence"), ([print, 5], r"callbacks\[1\]")]
)
def test_invalid_callbacks_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path, callbacks: Any, message: str
) -> None:
    with pytest.raises(TinyNNTypeError, match=message):
        train(TrainArgs(data, tmp_path / "run", config(3)), callbacks)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("weights", [5, b"x", [[1]]])
def test_weights_for_fine_tuning_that_are_not_a_mapping_are_refused(weights: Any) -> None:
    with pytest.raises(TinyNNTypeError, match="weights must be a mapping of names to arrays"):
        LlamaSeqEngine().realize(SmolLM2Config.tiny(), RecipeOptions(4), weights)

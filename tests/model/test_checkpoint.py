"""Checkpoints: round trips, errors for damaged files and files of another format, and kills that do not lose data."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kill_at_every_moment
from small_models import SHAPE, random_model
from small_runs import config, final_bytes
from toynn import FileFormatError, TinyNNError, TinyNNTypeError, TinyNNValueError, TrainArgs, train
from toynn.interop import export_hf
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import RunFolder, load_checkpoint, write_checkpoint
from toynn.storage.checkpoint.names import checkpoint_names

# ---- round trips ----


@pytest.mark.quick
def test_a_model_is_equal_after_a_round_trip_through_a_checkpoint(tmp_path: Path) -> None:
    one = random_model()
    path = write_checkpoint(tmp_path / "run", one, step=7)
    for where in (tmp_path / "run", path):
        back = load_checkpoint(where)
        assert (back.step, back.path, back.training) == (7, path, None)
        assert back.model.shape == SHAPE
        assert (back.model.tokenizer, back.model.eos_id, back.model.bos_id) == (b"{}", 3, None)
        assert list(back.model.weights) == list(one.weights)
        assert all((back.model.weights[name] == values).all() for name, values in one.weights.items())
    assert set(back.versions) == {"toynn", "ggml", "profile"}


@pytest.mark.quick
def test_the_same_model_gives_the_same_files(tmp_path: Path) -> None:
    a, b = (write_checkpoint(tmp_path / name, random_model()) for name in "ab")
    assert sorted(p.name for p in a.iterdir()) == ["meta.json", "tokenizer.json", "weights.safetensors"]
    assert all(p.read_bytes() == (b / p.name).read_bytes() for p in a.iterdir())


def test_writing_a_step_again_always_keeps_a_latest_checkpoint(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        first = run.save(0, random_model(seed=0), None)
        second = run.save(0, random_model(seed=1), None)
        assert first != second
        assert load_checkpoint(run.path).path == second
        run.keep(1, best=True)
        assert checkpoint_names(run.path) == [second.name]


@pytest.mark.quick
def test_an_existing_checkpoint_is_replaced_only_on_request(tmp_path: Path) -> None:
    run, (old, new) = tmp_path / "run", (random_model(seed=0), random_model(seed=1))
    first = write_checkpoint(run, old, step=3)
    with pytest.raises(TinyNNValueError, match=r"already has a checkpoint of step 3 \(step-00000003\); .*replace=True"):
        write_checkpoint(run, new, step=3)
    assert [load_checkpoint(run).path, *(run / "checkpoints").iterdir()] == [first, first]
    second = write_checkpoint(run, new, step=3, replace=True)
    assert [load_checkpoint(run).path, *(run / "checkpoints").iterdir()] == [second, second]
    assert (load_checkpoint(run).model.weights["output_norm.weight"] == new.weights["output_norm.weight"]).all()
    write_checkpoint(run, old, step=4)
    assert checkpoint_names(run) == [second.name, "step-00000004"]
    with pytest.raises(TinyNNTypeError, match="replace must be"):
        write_checkpoint(run, new, step=4, replace=1)  # type: ignore[arg-type]


@pytest.mark.quick
def test_a_link_to_a_missing_path_is_refused_as_a_run(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(TinyNNValueError, match="link is a link to nowhere, which does not exist; use another path"):
        write_checkpoint(tmp_path / "link", random_model())


def test_a_failed_save_leaves_the_run_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path / "run", random_model())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toynn.storage.checkpoint.folder.write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path / "run", random_model(seed=1), step=5)
    assert load_checkpoint(tmp_path / "run").path == path
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == [path.name]


def test_a_kill_at_any_file_system_call_loses_nothing(data: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, kill_at_every_moment.__file__, str(data), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills, last_change = (int(word) for word in done.stdout.split() if word.isdigit())
    assert last_change >= 40
    assert kills > last_change


# ---- refused files and arguments ----


def damaged(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return load_checkpoint(to).path


@pytest.mark.quick
def test_a_short_changed_or_missing_file_is_refused_by_name(trained: Path, tmp_path: Path) -> None:
    for i, name in enumerate(["weights.safetensors", "moments.safetensors", "tokenizer.json"]):
        for what in ("short", "changed", "missing"):
            file = damaged(trained, tmp_path / f"{i}{what}") / name
            content = file.read_bytes()
            if what == "missing":
                file.unlink()
            else:
                file.write_bytes(content[:-1] if what == "short" else content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(TinyNNValueError, match=rf"is damaged: .*{name}"):
                load_checkpoint(tmp_path / f"{i}{what}")


def test_the_error_of_a_damaged_latest_checkpoint_lists_the_others(trained: Path, tmp_path: Path) -> None:
    path = damaged(trained, tmp_path / "run")
    (path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(TinyNNValueError, match=r"other checkpoints: .*step-00000004"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("pointer", [b"", b"../../etc\n", b"step-1\n", b"\xff\xfe", b"step-00000099\n"])
def test_a_damaged_pointer_is_refused(trained: Path, tmp_path: Path, pointer: bytes) -> None:
    damaged(trained, tmp_path / "run")
    (tmp_path / "run" / "latest").write_bytes(pointer)
    with pytest.raises(TinyNNValueError, match=r"latest|is not a checkpoint"):
        load_checkpoint(tmp_path / "run")


def test_paths_without_a_run_or_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TinyNNValueError, match="is not a folder"):
        load_checkpoint(tmp_path / "file")
    with pytest.raises(TinyNNValueError, match="is not a folder"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(TinyNNValueError, match="is neither a checkpoint"):
        load_checkpoint(tmp_path / "empty")
    with pytest.raises(TinyNNValueError, match="exists and is not a run"):
        write_checkpoint(tmp_path, random_model())
    with pytest.raises(TinyNNValueError, match="not a folder"):
        write_checkpoint(tmp_path / "file", random_model())


def test_a_run_that_another_process_is_creating_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process creates `checkpoints` just before or after a system call of this process."""
    made: list[Path] = []

    def make_folder(folder: Path) -> None:
        if folder not in made:
            made.append(folder)
            folder.mkdir()

    calls = ("exists", "is_dir", "is_file", "iterdir", "is_symlink")
    for name, after in [(name, after) for name in calls for after in (False, True)]:
        run = tmp_path / f"{name}-{after}"
        run.mkdir()
        original = getattr(Path, name)

        def patched(*args: Any, run: Path = run, after: bool = after, original: Any = original, **more: Any) -> Any:
            result = original(*args, **more) if after else None
            make_folder(run / "checkpoints")
            return result if after else original(*args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Path, name, patched)
            RunFolder(run).close()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "must have the format 'toynn-checkpoint', got 'other'"),
        ({"version": 3}, r"has version 3 of its format, but toynn .* reads only versions up to 2"),
        ({"version": "2"}, "version must be an integer, got '2'"),
        ({"step": -1}, "step must be an integer from 0"),
        ({"step": True}, "step must be an integer, got True"),
        ({"untied": True}, "unknown key 'untied'"),
        ({"eos_id": 10**9}, "eos_id"),
        ({"model": {}}, r"the key 'model\.vocab' is missing"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"files": {}}, r"files must contain weights\.safetensors"),
        ({"files": {"../x": {}}}, r"the key \'files\.\.\./x\.bytes\' is missing"),
        ({"training": []}, r"training must be a table of keys and values, got \[\]"),
    ],
)
def test_a_wrong_meta_json_is_refused(trained: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = damaged(trained, tmp_path / "run") / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(TinyNNValueError, match=says):
        load_checkpoint(tmp_path / "run")


@pytest.mark.parametrize(
    ("place", "change", "says"),
    [
        (["training", "data"], {"x": "0" * 64}, r"unknown key 'training\.data\.x'"),
        (["training", "data"], {"train": 5}, r"training\.data\.train must be a string, got 5"),
        (["training"], {"config": None}, r"training\.config must be a string, got None"),
        (["model"], {"activation": "relu"}, r"unknown key 'model\.activation'"),
        (["model"], {"n_kv": 3}, "model: n_kv must divide"),
        (["model", "rope_scaling"], {"kind": 1}, r"model\.rope_scaling\.kind must be a string, got 1"),
        (
            ["files", "weights.safetensors"],
            {"bytes": -1},
            r"files\.weights\.safetensors: bytes must be an integer from 0",
        ),
        (
            ["files", "weights.safetensors"],
            {"sha256": "0" * 63},
            r"files\.weights\.safetensors: sha256 must be a SHA",
        ),
        (
            ["files", "weights.safetensors"],
            {"sha256": "G" * 64},
            r"files\.weights\.safetensors: sha256 must be a SHA",
        ),
        (
            ["training", "data"],
            {"tokenizer": ""},
            r"training\.data: tokenizer must be a SHA-256 of 64 .* got ''",
        ),
        ([], {"eos_id": 280}, "eos_id must be an integer from 0 to 279, got 280"),
        ([], {"bos_id": -1}, "bos_id must be an integer from 0 to 279, got -1"),
    ],
)
def test_each_key_of_a_meta_is_checked_and_named(
    trained: Path, tmp_path: Path, place: list[str], change: dict[str, Any], says: str
) -> None:
    path = damaged(trained, tmp_path / "run") / "meta.json"
    meta = json.loads(path.read_text())
    section = meta
    for key in place:
        section = section[key]
    section.update(change)
    path.write_text(json.dumps(meta))
    with pytest.raises(FileFormatError, match=rf"^{path} is damaged: {says}"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.quick
def test_a_key_that_an_older_version_did_not_write_has_its_default(trained: Path, tmp_path: Path) -> None:
    path = damaged(trained, tmp_path / "run") / "meta.json"
    meta = json.loads(path.read_text())
    del meta["model"]["architecture"], meta["model"]["untied"]
    path.write_text(json.dumps(meta))
    assert load_checkpoint(tmp_path / "run").model.shape == load_checkpoint(trained).model.shape


def as_version_1(meta: dict[str, Any]) -> dict[str, Any]:
    model = dict(meta["model"])
    variants = {key: model.pop(key) for key in ("untied", "qkv_bias")}
    del model["architecture"]
    return {**meta, "version": 1, "model": model, **variants}


@pytest.mark.quick
def test_version_1_is_migrated_and_checked_like_the_current_version(trained: Path, tmp_path: Path) -> None:
    path = damaged(trained, tmp_path / "run") / "meta.json"
    old = as_version_1(json.loads(path.read_text()))
    path.write_text(json.dumps(old))
    assert load_checkpoint(tmp_path / "run").model.shape == load_checkpoint(trained).model.shape
    without = {key: value for key, value in old.items() if key != "untied"}
    for changed, says in [
        (without, "the key 'untied' is missing"),
        ({**old, "model": {**old["model"], "untied": True}}, r"unknown key 'model\.untied'"),
        ({**old, "model": 5}, r"model must be a table of keys and values, got 5|unknown key"),
    ]:
        path.write_text(json.dumps(changed))
        with pytest.raises(FileFormatError, match=says):
            load_checkpoint(tmp_path / "run")


def test_a_shape_that_contradicts_the_weights_is_refused_before_allocation(trained: Path, tmp_path: Path) -> None:
    path = damaged(trained, tmp_path / "run") / "meta.json"
    meta = json.loads(path.read_text())
    for key, value in (("n_layers", 2**31 - 1), ("d_ff", 2**31 - 1), ("vocab", 5)):
        path.write_text(json.dumps({**meta, "eos_id": None, "bos_id": None, "model": {**meta["model"], key: value}}))
        with pytest.raises(TinyNNValueError, match="damaged"):
            load_checkpoint(tmp_path / "run")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data_=st.data())
def test_a_changed_byte_anywhere_is_refused_or_harmless(trained: Path, tmp_path: Path, data_: st.DataObject) -> None:
    run = tmp_path / "run"
    if not run.exists():
        damaged(trained, run)
    good = final_bytes(run)
    name = data_.draw(st.sampled_from(["meta.json", "weights.safetensors", "moments.safetensors"]))
    path = load_checkpoint(run).path / name
    content = path.read_bytes()
    at = data_.draw(st.integers(0, len(content) - 1))
    kind = data_.draw(st.sampled_from(["change", "cut", "insert"]))
    noise = data_.draw(st.binary(min_size=1, max_size=9))
    changed = {
        "change": content[:at] + noise + content[at + len(noise) :],
        "cut": content[:at],
        "insert": content[:at] + noise + content[at:],
    }[kind]
    path.write_bytes(changed)
    try:
        back = load_checkpoint(run)
        # a changed byte in meta.json may be harmless, for example in the versions of the software
        assert {**back.model.weights}.keys() <= good.keys()
        assert all(values.tobytes() == good[name] for name, values in back.model.weights.items())
    except TinyNNError:
        assert changed != content
    finally:
        path.write_bytes(content)


# ---- TrainedModel ----


def test_an_incomplete_model_is_refused_by_name() -> None:
    good = random_model()
    weights = dict(good.weights)
    name = "blk.1.ffn_up.weight"
    cases: list[tuple[dict[str, Any], type[TinyNNError], str]] = [
        ({k: v for k, v in weights.items() if k != name}, TinyNNValueError, f"but '{name}' is missing"),
        ({**weights, "x": weights[name]}, TinyNNValueError, "but 'x' is unknown"),
        ({**weights, name: weights[name].T}, TinyNNValueError, "must have shape"),
        ({**weights, name: weights[name].astype(np.float64)}, TinyNNTypeError, "float32"),
        (
            {**weights, name: np.full_like(weights[name], np.nan)},
            TinyNNValueError,
            "finite numbers, got nan at",
        ),
    ]
    for changed, error, says in cases:
        with pytest.raises(error, match=says):
            TrainedModel(SHAPE, changed, None)
    with pytest.raises(TinyNNValueError, match="eos_id"):
        TrainedModel(SHAPE, weights, None, eos_id=40)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_has_the_mode_that_the_umask_gives(data: Path, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        train(TrainArgs(data, tmp_path / "run", config(2)))
        export_hf(load_checkpoint(tmp_path / "run").model, tmp_path / "hf")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.name for path in files} >= {"weights.safetensors", "moments.safetensors", "model.safetensors"}
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        path.name: oct(0o666 & ~umask) for path in files
    }


def test_resuming_from_an_older_step_keeps_later_checkpoints_until_they_are_replaced(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2, 3):
            run.save(step, random_model(seed=step), None)
        run.go_back("step-00000001", None)
        run.keep(1, True)
        assert checkpoint_names(run.path) == ["step-00000001", "step-00000002", "step-00000003"]
        run.save(2, random_model(seed=9), None)
        run.keep(1, True)
        assert checkpoint_names(run.path) == ["step-00000002-1", "step-00000003"]
        with pytest.raises(TinyNNValueError, match="no checkpoint 'step-00000007'; its checkpoints are step"):
            run.named("step-00000007")
        assert run.named("step-00000003").step == 3


def test_a_run_folder_without_a_checkpoint_is_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "run"):
        assert (tmp_path / "a" / "run" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b").mkdir()
    with RunFolder(tmp_path / "b"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize("what", ["gguf", "hf", "data"])
def test_the_error_of_a_path_that_is_not_a_run_says_what_to_do(what: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / f"m.{what}"
    if what == "gguf":
        path.write_bytes(b"GGUF" + bytes(30))
    elif what == "hf":
        path.mkdir()
        (path / "config.json").write_text("{}")
        (path / "model.safetensors").write_bytes(b"")
    else:
        path = data
    says = "is a data folder, not a run" if what == "data" else f"toynn import {path} --out RUN"
    with pytest.raises(TinyNNValueError, match=re.escape(says)):
        load_checkpoint(path)

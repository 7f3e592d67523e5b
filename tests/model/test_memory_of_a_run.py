"""A run keeps no second copy of its weights and moments, neither after its start nor for a checkpoint."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from small_models import SHAPE, random_model
from small_runs import config
from toynn import FileFormatError, LlamaSeqEngine, TinyNNValueError, TrainArgs, train
from toynn.arguments import FloatArray
from toynn.llm.adapters.model_on_base import without_weights
from toynn.storage.checkpoint import RunFolder, folder, load_checkpoint
from toynn.storage.checkpoint.stored_tensors import _Reader, tensors_in_memory, tensors_on_disk
from toynn.storage.tensor_files import MadeTensors, write_tensors
from toynn.training import Event, Saved, Stepped, StopTraining


class Living:
    """Counts the arrays of a function that are still in memory."""

    def __init__(self) -> None:
        self._arrays: list[weakref.ref[FloatArray]] = []

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls `function` and counts the arrays in its result: an array or a dict of arrays."""

        def call(*args: Any) -> Any:
            result = function(*args)
            values = result.values() if isinstance(result, dict) else [result]
            self._arrays += [weakref.ref(array) for array in values]
            return result

        return call

    def count(self) -> int:
        gc.collect()
        return sum(array() is not None for array in self._arrays)

    @property
    def seen(self) -> int:
        return len(self._arrays)


def test_a_resumed_run_drops_the_tensors_of_its_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            raise StopTraining

    train(TrainArgs(data, tmp_path / "run", config(4)), [stop])
    loaded, moments = Living(), Living()
    monkeypatch.setattr(folder, "tensors_in_memory", loaded.watched(tensors_in_memory))
    read, most = moments.watched(_Reader.read), [0]

    def counted(reader: _Reader, name: str) -> FloatArray:
        most[0] = max(most[0], moments.count())
        values: FloatArray = read(reader, name)
        return values

    monkeypatch.setattr(_Reader, "read", counted)
    counts = []

    def count(event: Event) -> None:
        if isinstance(event, Stepped):
            counts.append(loaded.count() + moments.count())

    train(TrainArgs(data, tmp_path / "run", config(4), resume=True), [count])
    assert loaded.seen > 0
    assert moments.seen >= 2 * loaded.seen
    assert most[0] <= 1, "moments are read one at a time"
    assert counts == [0, 0]


def test_a_checkpoint_copies_one_tensor_at_a_time(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded = Living()
    most = [0]

    def download(engine: LlamaSeqEngine, name: str) -> FloatArray:
        most[0] = max(most[0], downloaded.count())
        values: FloatArray = original(engine, name)
        return values

    original = downloaded.watched(LlamaSeqEngine.download_weight)
    monkeypatch.setattr(LlamaSeqEngine, "download_weight", download)
    saved: list[Event] = []
    train(TrainArgs(data, tmp_path / "run", config(2)), [saved.append])
    assert any(isinstance(event, Saved) and event.step == 2 for event in saved)
    weights = load_checkpoint(tmp_path / "run").model.weights
    assert downloaded.seen == (2 + 2) * len(weights), "the weights of both checkpoints, and both moments of the last"
    assert most[0] <= 2


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_of_tensors_has_the_bytes_of_the_safetensors_library(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    shapes = {"b": (3, 5), "a.é.weight": (7,), "Z": (2, 1, 4), "": (1,)}
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["view"] = np.arange(12, dtype=np.float32).reshape(3, 4).T
    save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, tmp_path / "want", metadata)
    made = MadeTensors({name: one.shape for name, one in tensors.items()}, tensors.__getitem__)
    for name, given in (("dict", tensors), ("made", made)):
        write_tensors(tmp_path / name, given, metadata)
        assert (tmp_path / name).read_bytes() == (tmp_path / "want").read_bytes()
    assert load_file(tmp_path / "made")["view"].tolist() == tensors["view"].tolist()
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "made", made)
    with pytest.raises(KeyError):
        made["unknown"]


def test_tensors_on_disk_are_read_from_the_open_file_also_after_it_was_removed(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in {"b": (3, 5), "a": (7,)}.items()}
    save_file(tensors, tmp_path / "f", {"format": "pt"})
    with (tmp_path / "f").open("rb") as file:
        file.read(5)  # the readers must not depend on the position in the file
        found = {"disk": tensors_on_disk(tmp_path / "f", file), "memory": tensors_in_memory(tmp_path / "f", file)}
    (tmp_path / "f").unlink()
    for read in found.values():
        assert sorted(read) == ["a", "b"]
        for name, values in tensors.items():
            np.testing.assert_array_equal(read[name], values)
    assert found["disk"]["a"] is not found["disk"]["a"]


def test_a_file_that_becomes_shorter_and_other_types_are_refused(tmp_path: Path) -> None:
    save_file({"w": np.ones((4, 4), np.float32)}, tmp_path / "f")
    with (tmp_path / "f").open("r+b") as file:
        moments = tensors_on_disk(tmp_path / "f", file)
        file.truncate((tmp_path / "f").stat().st_size - 1)
        with pytest.raises(FileFormatError, match="f became shorter while it was read: w is not complete"):
            moments["w"]
        with pytest.raises(FileFormatError, match="f cannot be read: "):
            tensors_on_disk(tmp_path / "f", file)
    save_file({"w": np.ones(4, np.float16)}, tmp_path / "f")
    with (tmp_path / "f").open("rb") as file, pytest.raises(FileFormatError, match="w must have the type F32, but has"):
        tensors_in_memory(tmp_path / "f", file)


def test_a_description_without_weights_is_not_saved_as_a_checkpoint(tmp_path: Path) -> None:
    model = random_model()
    with RunFolder(tmp_path / "run") as run:
        with pytest.raises(TinyNNValueError, match="model must contain weights or an adapter"):
            run.save(0, without_weights(model), None)
        path = run.save(0, without_weights(model), None, weights=model.weights)
    assert folder.read_folder(path).model.shape == SHAPE

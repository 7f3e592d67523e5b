"""The workloads for `toynn prepare`, `toynn import` and `toynn export`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from small_runs import config, make_data
from toynn import FileFormatError, TinyNNError, TinyNNValueError, TrainArgs, train
from toynn.data import DataFolder
from toynn.data.meta import META, DataMeta, load_meta
from toynn.data.prepare import prepare
from toynn.interop import export_gguf, export_hf, import_hf
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.storage.checkpoint.names import checkpoint_names
from toynn.storage.checkpoint.reading import named_checkpoint
from workload import FaultError

DATA = Path("made") / "data"
RUN = Path("models") / "run"


class Prepare:
    """Make a data folder with an existing tokenizer."""

    name = "prepare"

    def make_inputs(self, given: Path) -> None:
        make_data(given / "data")  # the text, data.txt, is beside this folder

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        _prepared(given, files)
        report("prepared")

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        try:
            meta = DataFolder.open(files / DATA).meta
        except (FileFormatError, FileNotFoundError) as error:
            if reports:
                raise FaultError(f"prepare ended, but the data cannot be used: {error}") from error
            if (files / DATA / META).exists():
                raise FaultError(f"an unfinished folder has {META}: {error}") from error
            return
        if _content(meta) != _content(load_meta(given / "data")):
            raise FaultError("an unfinished folder is read as whole")

    def go_on(self, given: Path, files: Path) -> None:
        try:
            _prepared(given, files)
        except TinyNNValueError as error:  # a folder that is not empty is never changed
            if "out:" not in str(error):
                raise FaultError(f"cannot go on: {error}") from error
        else:
            self.check(given, files, ["prepared"])


class Import:
    """Make a run from a Hugging Face folder."""

    name = "import"

    def make_inputs(self, given: Path) -> None:
        export_hf(_trained(given), given / "hf")

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        write_checkpoint(files / RUN, import_hf(given / "hf"))
        report("imported")

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        try:
            model = load_checkpoint(files / RUN).model
        except FileFormatError as error:
            if reports:
                raise FaultError(f"import ended, but the model cannot be loaded: {error}") from error
            if (files / RUN / "latest").exists():
                raise FaultError(f"an unfinished run has latest: {error}") from error
            return
        wanted = import_hf(given / "hf")
        if model.tokenizer != wanted.tokenizer or _weights(model) != _weights(wanted):
            raise FaultError("an unfinished run is read as whole")

    def go_on(self, given: Path, files: Path) -> None:
        try:
            write_checkpoint(files / RUN, import_hf(given / "hf"), replace=True)
        except (TinyNNError, OSError) as error:
            raise FaultError(f"cannot go on: {error}") from error
        self.check(given, files, ["imported"])


class ReplacingImport:
    """Make a run from a Hugging Face folder, then replace its model by another one, as `toynn import --force` does."""

    name = "import with replacement"

    def make_inputs(self, given: Path) -> None:
        first = _trained(given)
        export_hf(first, given / "first")
        export_hf(_other(first), given / "second")

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        write_checkpoint(files / RUN, import_hf(given / "first"))
        report("first")
        write_checkpoint(files / RUN, import_hf(given / "second"), replace=True)
        report("second")

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        models = {_weights_key(import_hf(given / name)): name for name in ("first", "second")}
        run = files / RUN
        for name in checkpoint_names(run):
            try:
                model = named_checkpoint(run, name).model
            except FileFormatError as error:
                raise FaultError(f"{name} cannot be read: {error}") from error
            if _weights_key(model) not in models:
                raise FaultError(f"{name} is read as complete but has other weights")
        try:
            model = load_checkpoint(run).model
        except FileFormatError as error:
            if reports or (run / "latest").exists():
                raise FaultError(f"the model cannot be loaded after {list(reports)}: {error}") from error
            return
        found = models.get(_weights_key(model))
        if found not in ({"first", "second"} if len(reports) < 2 else {"second"}):
            raise FaultError(f"the user was told {reports[-1:]}, but the run has the model {found}")

    def go_on(self, given: Path, files: Path) -> None:
        run = files / RUN
        try:
            write_checkpoint(run, import_hf(given / "second"), replace=True)
        except (TinyNNError, OSError) as error:
            raise FaultError(f"cannot go on: {error}") from error
        self.check(given, files, ["first", "second"])
        left = [path.name for path in (run / "checkpoints").iterdir()]
        if len(left) != 1 or left != checkpoint_names(run):
            raise FaultError(f"the run has one model, but the entries {left}")


class Export:
    """Write a model to a new path, then another model to the same path."""

    def __init__(self, name: str, write: Callable[[TrainedModel, Path, bool], object]) -> None:
        self.name, self._write = name, write

    def make_inputs(self, given: Path) -> None:
        first = _trained(given)
        for name, model in (("first", first), ("second", _other(first))):
            (given / name).mkdir()
            # all these files have the same name, because the content of a file may include its name
            self._write(model, given / name / "model", False)

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        first = load_checkpoint(given / "run").model
        self._write(first, files / "model", False)
        report("first")
        self._write(_other(first), files / "model", True)
        report("second")

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        written = {name: _bytes(given / name / "model") for name in ("first", "second")}
        found = _bytes(files / "model")
        if not found and len(reports) == 1 and any(path.name.startswith(".old-") for path in files.iterdir()):
            # Between the two renames that replace a folder, the old folder is complete under another name.
            found = next(_bytes(path) for path in files.iterdir() if path.name.startswith(".old-"))
        allowed = [{}, written["first"]] if not reports else [written[reports[-1]], written["second"]]
        if found not in allowed:
            told = f"{reports[-1]} was written" if reports else "nothing was written"
            names = {name: len(content) for name, content in found.items()}
            raise FaultError(f"the user was told that {told}, but the files and their sizes are {names}")

    def go_on(self, given: Path, files: Path) -> None:
        try:
            self._write(_other(load_checkpoint(given / "run").model), files / "model", True)
        except (TinyNNError, OSError) as error:
            raise FaultError(f"cannot go on: {error}") from error
        self.check(given, files, ["first", "second"])


EXPORTS = (
    Export("export to GGUF", lambda model, path, overwrite: export_gguf(model, path, overwrite=overwrite)),
    Export("export to Hugging Face", lambda model, path, overwrite: export_hf(model, path, overwrite=overwrite)),
)


def _prepared(given: Path, files: Path) -> None:
    prepare([given / "data.txt"], files / DATA, tokenizer=given / "data" / "tokenizer.json", validation=0.1)


def _content(meta: DataMeta) -> dict[str, object]:
    return {name: split.sha256 for name, split in meta.splits.items()}


def _trained(given: Path) -> TrainedModel:
    """Train a small model and return it."""
    make_data(given / "data")
    train(TrainArgs(given / "data", given / "run", config(1), n_threads=1))
    return load_checkpoint(given / "run").model


def _other(model: TrainedModel) -> TrainedModel:
    """Return a model with other weights."""
    return dataclasses.replace(model, weights={name: values * 2 for name, values in model.weights.items()})


def _weights_key(model: TrainedModel) -> tuple[tuple[str, bytes], ...]:
    return tuple(_weights(model).items())


def _weights(model: TrainedModel) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in model.weights.items()}


def _bytes(path: Path) -> dict[str, bytes]:
    """Return the contents of a file, or of the files in a folder; return nothing if the path does not exist."""
    if path.is_dir():
        return {entry.name: entry.read_bytes() for entry in path.iterdir()}
    return {"": path.read_bytes()} if path.exists() else {}

"""meta.json of a checkpoint: which model, how far its training went, what wrote it, and the sha256 of its files."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toynn
from toynn.arguments import INT31_MAX
from toynn.errors import TinyNNError, TinyNNValueError
from toynn.model.config import RopeScaling, SmolLM2Config
from toynn.model.shape import ModelShape
from toynn.storage.json_fields import JsonFields, read_json

FORMAT, VERSION = "toynn-checkpoint", 1
META = "meta.json"
WEIGHTS, MOMENTS, TOKENIZER = "weights.safetensors", "moments.safetensors", "tokenizer.json"
FILES = (WEIGHTS, MOMENTS, TOKENIZER)


@dataclass(frozen=True)
class StoredFile:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands after a step, beside weights and moments.

    windows: of the data's order, that were read. best_loss, best_step: of the evaluations; None: none yet.
    bad_evaluations: in a row, that were not the best. config: the run's, as TOML. data: sha256 of its token files and
    tokenizer by name, so that other data is noticed.
    """

    windows: int
    best_loss: float | None
    best_step: int | None
    bad_evaluations: int
    config: str
    data: dict[str, str]


@dataclass(frozen=True)
class CheckpointMeta:
    """step: optimizer steps taken. training: None for a model that comes from elsewhere."""

    step: int
    shape: ModelShape
    eos_id: int | None
    bos_id: int | None
    training: TrainingProgress | None
    versions: dict[str, str]
    files: dict[str, StoredFile]

    def to_json(self) -> str:
        sizes = dataclasses.asdict(self.shape)
        variants = {name: sizes.pop(name) for name in ("untied", "qkv_bias")}
        del sizes["architecture"]  # format 1 has no other than llama
        content = {
            "format": FORMAT,
            "version": VERSION,
            "step": self.step,
            "model": sizes,
            **variants,
            "eos_id": self.eos_id,
            "bos_id": self.bos_id,
            "training": None if self.training is None else dataclasses.asdict(self.training),
            "versions": self.versions,
            "files": {name: dataclasses.asdict(file) for name, file in self.files.items()},
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def versions_now() -> dict[str, str]:
    """What writes a checkpoint now: for people, and never compared."""
    return {
        "toynn": toynn.__version__,
        "ggml": toynn.ggml_version(),
        "profile": str(toynn.build_info()["profile"]),
    }


def read_checkpoint_meta(folder: Path) -> CheckpointMeta:
    """The meta.json of a checkpoint, checked for form but not against the files.

    Raises TinyNNValueError, with the reason, for a folder that is none, or is damaged or of another version.
    """
    path = folder / META
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise TinyNNValueError(f"{folder} is no checkpoint: it has no {META}") from None
    try:
        return _parsed(content)
    except TinyNNError as error:
        raise TinyNNValueError(f"{path} is damaged or foreign: {error}") from None


def _parsed(content: Any) -> CheckpointMeta:
    top = JsonFields("it", content)
    top.require_format(FORMAT, VERSION)
    step = top.count("step")
    cfg = _config(top.fields("model"))
    untied, qkv_bias = top.take("untied", bool), top.take("qkv_bias", bool)
    eos_id, bos_id = top.take("eos_id", int, type(None)), top.take("bos_id", int, type(None))
    training = top.take("training", dict, type(None))
    progress = None if training is None else _progress(JsonFields("training", training), step)
    versions = _strings(top.fields("versions"))
    files = _files(top.fields("files"))
    top.end()
    if progress is not None and step > 0 and MOMENTS not in files:
        raise TinyNNValueError(f"files has no {MOMENTS}, which a training of {step} steps has")
    shape = ModelShape.of(cfg, untied=untied, qkv_bias=qkv_bias)
    return CheckpointMeta(step, shape, eos_id, bos_id, progress, versions, files)


def _config(reader: JsonFields) -> SmolLM2Config:
    scaling = reader.fields("rope_scaling")
    rope: dict[str, Any] = {f.name: scaling.take(f.name, str, int, float) for f in dataclasses.fields(RopeScaling)}
    scaling.end()
    names = [f.name for f in dataclasses.fields(SmolLM2Config) if f.name != "rope_scaling"]
    sizes: dict[str, Any] = {name: reader.take(name, int, float) for name in names}
    reader.end()
    return SmolLM2Config(**sizes, rope_scaling=RopeScaling(**rope))


def _progress(reader: JsonFields, step: int) -> TrainingProgress:
    if step > INT31_MAX:  # of train.steps
        raise TinyNNValueError(f"'step' must be at most {INT31_MAX} in a training, got {step}")
    best_loss = reader.finite_or_none("best_loss")
    best_step = reader.take("best_step", type(None)) if best_loss is None else reader.count("best_step", most=step)
    progress = TrainingProgress(
        reader.count("windows"),
        best_loss,
        best_step,
        reader.count("bad_evaluations", most=step),
        reader.take("config", str),
        _strings(reader.fields("data")),
    )
    reader.end()
    return progress


def _strings(reader: JsonFields) -> dict[str, str]:
    return {key: reader.take(key, str) for key in reader.keys()}  # noqa: SIM118 (not a mapping)


def _files(reader: JsonFields) -> dict[str, StoredFile]:
    names = reader.keys()
    if unknown := [name for name in names if name not in FILES]:
        raise TinyNNValueError(f"files: {unknown[0]!r:.60} is not a file of a checkpoint")
    if WEIGHTS not in names:
        raise TinyNNValueError(f"files has no {WEIGHTS}")
    files = {}
    for name in names:
        one = reader.fields(name)
        files[name] = StoredFile(one.count("bytes"), one.take("sha256", str))
        one.end()
    return files

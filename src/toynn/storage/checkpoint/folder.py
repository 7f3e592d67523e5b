"""One checkpoint's folder, written and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from toynn.arguments import FloatArray
from toynn.errors import TinyNNValueError
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import moment_names, weight_shapes
from toynn.storage.checkpoint.meta import (
    META,
    MOMENTS,
    TOKENIZER,
    WEIGHTS,
    CheckpointMeta,
    StoredFile,
    TrainingProgress,
    read_checkpoint_meta,
    versions_now,
)
from toynn.storage.durable_files import sha256_of, sync, write_synced
from toynn.storage.regular_files import read_regular
from toynn.storage.tensor_files import write_tensors


@dataclass(frozen=True)
class TrainingState:
    """What a training needs to go on, beside the model. moments: weight name + ".m" or ".v", of the weight's shape;
    empty before the first step."""

    progress: TrainingProgress
    moments: dict[str, FloatArray]


@dataclass(frozen=True)
class Checkpoint:
    """path: its folder. training: None for a model that comes from elsewhere."""

    path: Path
    step: int
    model: TrainedModel
    training: TrainingState | None
    versions: dict[str, str]


def write_folder(folder: Path, step: int, model: TrainedModel, training: TrainingState | None) -> None:
    """Writes a checkpoint into a folder that is there and empty, meta.json last, and waits until the disk has it.

    Raises OSError; what is there then has no meta.json and is no checkpoint.
    """
    write_tensors(folder / WEIGHTS, model.weights)
    if training is not None and training.moments:
        write_tensors(folder / MOMENTS, training.moments)
    if model.tokenizer is not None:
        write_synced(folder / TOKENIZER, model.tokenizer)
    files = {path.name: StoredFile(path.stat().st_size, sha256_of(path)) for path in sorted(folder.iterdir())}
    meta = CheckpointMeta(
        step,
        model.shape,
        model.eos_id,
        model.bos_id,
        None if training is None else training.progress,
        versions_now(),
        files,
    )
    write_synced(folder / META, meta.to_json().encode("utf-8"))
    sync(folder)


def read_folder(folder: Path) -> Checkpoint:
    """Reads a checkpoint and checks all of it: form, sizes, sha256, every tensor's name, type and shape.

    Raises TinyNNValueError with the reason where anything is wrong.
    """
    meta = read_checkpoint_meta(folder)
    for name, stored in meta.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise TinyNNValueError(f"{folder} is damaged: {name} cannot be read ({error.strerror})") from None
        if size != stored.bytes:
            raise TinyNNValueError(f"{folder} is damaged: {name} has {size} bytes, {stored.bytes} were written")
        if sha256_of(path) != stored.sha256:
            raise TinyNNValueError(f"{folder} is damaged: the sha256 of {name} is not the one that {META} records")
    tokenizer = read_regular(folder / TOKENIZER) if TOKENIZER in meta.files else None
    weights = _load(folder / WEIGHTS)
    try:
        model = TrainedModel(meta.shape, weights, tokenizer, eos_id=meta.eos_id, bos_id=meta.bos_id)
    except TinyNNValueError as error:
        raise TinyNNValueError(f"{folder} is damaged: {error}") from None
    training = None
    if meta.training is not None:
        moments = _load(folder / MOMENTS) if MOMENTS in meta.files else {}
        if moments:
            _check_moments(folder, model, moments)
        training = TrainingState(meta.training, moments)
    return Checkpoint(folder, meta.step, model, training, meta.versions)


def _check_moments(folder: Path, model: TrainedModel, moments: Mapping[str, FloatArray]) -> None:
    wanted = set(moment_names(model.shape))
    if wrong := wanted.symmetric_difference(moments):
        raise TinyNNValueError(
            f"{folder} is damaged: {MOMENTS} should have all moments and no more; see {min(wrong)!r}"
        )
    shapes = weight_shapes(model.shape)
    for name, values in moments.items():
        shape = shapes[name[:-2]]
        if values.shape != shape or not np.isfinite(values).all():
            raise TinyNNValueError(f"{folder} is damaged: {name} must be finite and of shape {shape}")
        if name.endswith(".v") and (values < 0).any():  # a mean of squares
            raise TinyNNValueError(f"{folder} is damaged: {name} must be 0 or above, it holds {values.min()}")


def _load(path: Path) -> dict[str, FloatArray]:
    try:
        tensors = load_file(path)
    except AttributeError as error:  # how the library reports a dtype that numpy has not
        raise TinyNNValueError(
            f"{path}: a tensor is of a type that is not read ({error}); all must be float32"
        ) from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise TinyNNValueError(f"{path} cannot be read: {error}") from None
    for name, values in tensors.items():
        if values.dtype != np.float32:
            raise TinyNNValueError(f"{path}: {name} must be float32, it is {values.dtype}")
    return tensors

"""Write and read the folder of one checkpoint.

A run in training removes its old checkpoints, also while another process reads them. Reading therefore opens all files
first, because an open file can be read to its end after it was removed. If the folder is removed before all files are
open, reading raises `CheckpointRemovedError` and does not call the checkpoint damaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from toynn.arguments import FloatArray
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.model_on_base import AnyModel, ModelOnBase, adapter_of
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import MOMENTS as MOMENT_ENDS
from toynn.model.weights import OPTIMIZERS, UNAVERAGED, weights_of
from toynn.storage.checkpoint.meta import (
    ADAPTER,
    META,
    MOMENTS,
    TOKENIZER,
    WEIGHTS,
    CheckpointMeta,
    StoredAdapter,
    StoredFile,
    TrainingProgress,
    read_checkpoint_meta,
    versions_now,
)
from toynn.storage.checkpoint.stored_tensors import tensors_in_memory, tensors_on_disk
from toynn.storage.durable_files import sha256_of_file, sync, write_synced
from toynn.storage.regular_files import open_regular
from toynn.storage.tensor_files import Tensors, shapes_of, write_tensors

_REMEDY = "restore the file, or use another checkpoint"
_LARGE = 1 << 23  # a checkpoint with this number of values or more is written by one thread for each file


@dataclass(frozen=True)
class TrainingState(Initialised):
    """The state that a run needs to resume, besides the model.

    moments: the moments of the optimizer. The keys are the names of the weights with ".m" or ".v" at the end. Each
    array has the shape of its weight. There are no moments before the first step. The moments of a loaded checkpoint
    stay in its file: each moment is read when it is accessed.
    """

    progress: TrainingProgress
    moments: Tensors


@dataclass(frozen=True)
class Checkpoint(Initialised):
    """A checkpoint in memory.

    path: the folder or file that it was read from.
    step: optimizer steps taken.
    contents: the model. It is a `ModelOnBase` if the checkpoint does not contain the weights of its base.
    training: the state of training, None for a model that was not written by training.
    versions: the software that wrote the checkpoint.
    """

    path: Path
    step: int
    contents: AnyModel
    training: TrainingState | None
    versions: dict[str, str]

    @property
    def model(self) -> TrainedModel:
        """The model with all its weights. Raises TinyNNValueError if the checkpoint does not contain the weights."""
        if isinstance(self.contents, ModelOnBase):
            raise TinyNNValueError(
                f"{self.path} contains only an adapter, but a checkpoint with all weights of a model is needed here"
            )
        return self.contents


def write_folder(
    folder: Path, step: int, model: AnyModel, training: TrainingState | None, weights: Tensors | None = None
) -> None:
    """Write a checkpoint into an existing empty folder, and wait until it is on the disk. meta.json is written last.

    weights: all weights of the model, if `model` is a ModelOnBase but the checkpoint must contain the weights.

    Raises TinyNNValueError if the model has neither weights nor an adapter, or OSError if a file cannot be written.
    After an error the folder is not a checkpoint, because it has no meta.json.
    """
    adapter = adapter_of(model)
    contents: dict[str, Tensors] = {}
    if isinstance(model, TrainedModel):
        weights = model.weights
    if weights is not None:
        contents[WEIGHTS] = weights
    elif adapter is not None:
        contents[ADAPTER] = adapter.tensors
    else:
        raise TinyNNValueError("model must contain weights or an adapter, but it contains neither")
    if training is not None and training.moments:
        contents[MOMENTS] = training.moments
    hashes = _written(folder, contents)
    if model.tokenizer is not None:
        write_synced(folder / TOKENIZER, model.tokenizer)
        hashes[TOKENIZER] = sha256(model.tokenizer).hexdigest()
    files = {name: StoredFile((folder / name).stat().st_size, hashes[name]) for name in sorted(hashes)}
    meta = CheckpointMeta(
        step,
        model.shape,
        model.eos_id,
        model.bos_id,
        None if training is None else training.progress,
        versions_now(),
        files,
        list(model.other_eos_ids),
        model.foreign,
        None if adapter is None else StoredAdapter.of(adapter),
    )
    write_synced(folder / META, meta.to_json().encode("utf-8"))
    sync(folder)


def _written(folder: Path, contents: dict[str, Tensors]) -> dict[str, str]:
    """Write files of tensors and return the SHA-256 of each.

    Large files are written side by side, because computing a SHA-256 takes longer than writing to a fast disk.
    """
    numbers = sum(prod(shape) for tensors in contents.values() for shape in shapes_of(tensors).values())
    if len(contents) == 1 or numbers < _LARGE:
        return {name: write_tensors(folder / name, tensors) for name, tensors in contents.items()}
    from concurrent.futures import ThreadPoolExecutor  # a slow import, which reading a model does not need

    with ThreadPoolExecutor(len(contents)) as threads:
        tasks = {name: threads.submit(write_tensors, folder / name, one) for name, one in contents.items()}
        return {name: task.result() for name, task in tasks.items()}


class CheckpointRemovedError(FileFormatError):
    """A checkpoint was removed while it was read. A run removes its old checkpoints: see `CheckpointArgs.keep_last`."""


def read_folder(folder: Path) -> Checkpoint:
    """Read a checkpoint and check it: meta.json, the sha256 of each file, the name, dtype and shape of each tensor.

    Raises FileFormatError, with the reason, for a damaged checkpoint, or CheckpointRemovedError if the folder was
    removed or replaced meanwhile.
    """
    before = _identity(folder)
    try:
        return _read(folder)
    except FileFormatError:
        if before is None or _identity(folder) == before:
            raise
        raise CheckpointRemovedError(
            f"{folder} was removed while it was read, because a run in training keeps only its newest checkpoints "
            "(checkpoint.keep_last); give the folder of the run to read its latest checkpoint"
        ) from None


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return a value that identifies this folder even if another folder gets its name. Return None if it is missing."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read(folder: Path) -> Checkpoint:
    meta = read_checkpoint_meta(folder)
    with _opened(folder, meta) as files:
        for name, stored in meta.files.items():
            size = os.fstat(files[name].fileno()).st_size
            if size != stored.bytes:
                raise FileFormatError(
                    f"{folder} is damaged: {name} must have {stored.bytes} bytes, but has {size}; {_REMEDY}"
                )
            if sha256_of_file(files[name]) != stored.sha256:
                raise FileFormatError(
                    f"{folder} is damaged: the sha256 of {name} differs from the one in {META}; {_REMEDY}"
                )
        tokenizer = files[TOKENIZER].read() if TOKENIZER in files else None
        weights_file = WEIGHTS if meta.adapter is None else ADAPTER
        weights = tensors_in_memory(folder / weights_file, files[weights_file])
        moments: Tensors = {}
        if meta.training is not None and MOMENTS in files:
            moments = tensors_on_disk(folder / MOMENTS, files[MOMENTS])
    try:
        model = _model(meta, weights, tokenizer)
    except TinyNNValueError as error:
        raise FileFormatError(f"{folder} is damaged: {error}; {_REMEDY}") from None
    if moments:
        _check_moments(folder, model, moments)
    training = None if meta.training is None else TrainingState(meta.training, moments)
    return Checkpoint(folder, meta.step, model, training, meta.versions)


def _model(meta: CheckpointMeta, tensors: dict[str, FloatArray], tokenizer: bytes | None) -> AnyModel:
    described = (meta.eos_id, meta.bos_id, tuple(meta.other_eos_ids), meta.foreign)
    if meta.adapter is None:
        return TrainedModel(meta.model, tensors, tokenizer, *described)
    adapter = TrainedAdapter(meta.adapter.spec(), meta.model, tensors, meta.adapter.base())
    return ModelOnBase(meta.model, adapter, tokenizer, *described)


@contextmanager
def _opened(folder: Path, meta: CheckpointMeta) -> Iterator[dict[str, BinaryIO]]:
    """Open all files of a checkpoint. They can then be read even if the checkpoint is removed."""
    with ExitStack() as stack:
        files = {}
        for name in meta.files:
            try:
                files[name] = stack.enter_context(open_regular(folder / name))
            except OSError as error:  # noqa: PERF203 (a checkpoint has few files)
                raise FileFormatError(
                    f"{folder} is damaged: {name} cannot be read ({error.strerror}); {_REMEDY}"
                ) from None
        yield files


def _check_moments(folder: Path, model: AnyModel, moments: Mapping[str, FloatArray]) -> None:
    """Check that each trained weight has all moments of an optimizer. A run may train only some weights of a model."""
    if isinstance(model, TrainedModel):
        known = [one for one in weights_of(model.shape) if one.trainable]
        trained = [one for one in known if any(one.name + end in moments for end in MOMENT_ENDS)]
    else:
        trained = [] if model.adapter is None else model.adapter.spec.weights(model.shape)
    shapes = {weight.name: weight.size for weight in trained}
    averaged = (UNAVERAGED,) if any(name.endswith(UNAVERAGED) for name in moments) else ()
    possible = [
        {one.name + end for one in trained for end in (*one.moments(optimizer), *averaged)} for optimizer in OPTIMIZERS
    ]
    wanted = next((names for names in possible if names == moments.keys()), possible[0])
    if wrong := wanted.symmetric_difference(moments):
        what = "lacks the tensor" if min(wrong) in wanted else "contains the unknown tensor"
        raise FileFormatError(f"{folder} is damaged: {MOMENTS} {what} {min(wrong)!r}; {_REMEDY}")
    for name, values in moments.items():
        shape = shapes[name[:-2]]
        if values.shape != shape or not np.isfinite(values).all():
            raise FileFormatError(
                f"{folder} is damaged: {name} must have shape {shape} and only finite numbers, got shape "
                f"{values.shape} and {np.count_nonzero(~np.isfinite(values))} numbers that are not finite; {_REMEDY}"
            )
        if name.endswith(".v") and (values < 0).any():  # v is a mean of squares, so it cannot be negative
            raise FileFormatError(
                f"{folder} is damaged: {name} must be 0 or above, but its minimum is {values.min()}; {_REMEDY}"
            )

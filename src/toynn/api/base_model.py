"""Open the base model of an adapter: a GGUF file (it stays mapped), a Hugging Face folder, or a checkpoint."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.llm.adapters.model_on_base import ModelOnBase, without_weights
from toynn.llm.adapters.open_base import OpenBase, needed_base, place_of_base
from toynn.llm.adapters.trained_adapter import BaseModel
from toynn.llm.base import LoadedBase
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.storage.checkpoint.foreign import kind_of_path
from toynn.storage.durable_files import sha256_of, sha256_of_parts
from toynn.storage.regular_files import path_of

_WEIGHTS = ".safetensors"
_SHAPES = ("config.json", "meta.json")  # files with the model's shape: of a Hugging Face folder, of a checkpoint
_NOT_OF_THE_MODEL = ("moments.safetensors",)


def open_base(path: str | os.PathLike[str], expected: BaseModel | None = None) -> OpenBase:
    """Open a base model.

    The weights of a GGUF file are mapped and keep their types; other weights are read into memory.

    path: a GGUF file, a Hugging Face folder, or the folder of a run or of a checkpoint. If the path is a run, its
        latest checkpoint at this moment is the base, even if the run makes newer checkpoints later.
    expected: the base that an adapter was trained on. A base with another SHA-256 is refused.

    Raises:
        FileFormatError: a file is damaged, has another format, or holds a value that is NaN or infinite.
        TinyNNValueError: the base is not the expected one, or is itself an adapter. OSError: a file cannot be read.
    """
    path = path_of("base", path)
    if not path.exists():
        raise FileNotFoundError(f"base: {path} does not exist; give a GGUF file, a Hugging Face folder or a run")
    opened = _opened(path)
    try:
        if expected is not None:
            opened.require(expected)
    except BaseException:
        opened.close()
        raise
    return opened


def base_of(checkpoint: Checkpoint, place: Path | None = None) -> OpenBase | None:
    """Open the base of a checkpoint that has only an adapter. Return None for a checkpoint with all weights.

    place: where the base is now. Default: where it was when the checkpoint was written.

    Raises TinyNNValueError if the base is missing or was changed, or if place is given for a checkpoint without an
    adapter. Also raises the errors of `open_base`.
    """
    needed = needed_base(checkpoint.contents, checkpoint.path, place)
    if needed is None:
        return None
    path = needed.path if place is None else place
    if not path.exists():
        raise TinyNNValueError(
            f"{checkpoint.path} is an adapter on the base {needed.path}, but {path} does not exist; {place_of_base()}"
        )
    return open_base(path, needed)


def decoder_of(
    source: Checkpoint,
    base: OpenBase | None,
    *,
    n_ctx: int | None = None,
    cache: str = "f32",
    n_threads: int | None = None,
) -> LlamaDecoder:
    """Return a decoder for the model of a checkpoint.

    base: the open base, if the checkpoint does not contain the weights of the model.

    Raises TinyNNValueError if the base is missing. Also raises the errors of `LlamaDecoder`.
    """
    contents = source.contents
    if isinstance(contents, TrainedModel):
        return LlamaDecoder(contents.shape, contents.weights, n_ctx=n_ctx, cache=cache, n_threads=n_threads)
    if base is None:
        raise TinyNNValueError(f"base must be the opened base of the adapter {source.path}, got None")
    return LlamaDecoder.on_base(base.weights, contents.adapter, n_ctx=n_ctx, cache=cache, n_threads=n_threads)


def described_base(base: OpenBase) -> Checkpoint:
    """Return a checkpoint without weights that describes a base."""
    return Checkpoint(base.path, 0, base.description, None, {})


def _opened(path: Path) -> OpenBase:
    kind = kind_of_path(path)
    if kind == "gguf":
        return _gguf(path)
    if kind == "hf":
        from toynn.interop import import_hf  # this module needs the extra toynn[interop]

        sha256 = _sha256(path)
        return _in_memory(path, sha256, import_hf(path))
    if path.is_file():
        raise FileFormatError(f"{path} is not a GGUF file; give a GGUF file, a Hugging Face folder or a run")
    checkpoint = load_checkpoint(path)
    return _in_memory(checkpoint.path, _sha256(checkpoint.path), checkpoint.model)


def _gguf(path: Path) -> OpenBase:
    from toynn.interop import GgufBase  # this module needs the extra toynn[interop]

    base = GgufBase(path)
    try:
        described = _beside(base.check_finite, base.description)
        return OpenBase(path.resolve(), base, described, base.sha256, base.close)
    except BaseException:
        base.close()
        raise


def _beside(check: Callable[[], None], function: Callable[[], ModelOnBase]) -> ModelOnBase:
    """Return the result of `function`, while another thread runs `check`. If both fail, raise the error of `check`."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            check()
        except BaseException as error:  # the thread that waits for this thread raises the error
            found.append(error)

    thread = threading.Thread(target=run, name="toynn-check", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system cannot start another thread
        check()
        return function()
    try:
        return function()
    finally:
        thread.join()
        if found:
            raise found[0]


def _in_memory(path: Path, sha256: str, model: TrainedModel) -> OpenBase:
    return OpenBase(path.resolve(), LoadedBase(model), without_weights(model), lambda: sha256)


def _sha256(folder: Path) -> str:
    """Return one SHA-256 for the files of a folder that contain the shape and the weights of a model."""
    names = sorted(entry.name for entry in folder.iterdir())
    parts = [name for name in names if name.endswith(_WEIGHTS) and name not in _NOT_OF_THE_MODEL]
    return sha256_of_parts({name: sha256_of(folder / name) for name in (*parts, *_SHAPES) if name in names})

"""Read a model from a run, a checkpoint, a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toynn.api.base_model import base_of, decoder_of, open_base
from toynn.api.text_model import TextModel
from toynn.arguments import one_of
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.llm.adapters.open_base import OpenBase
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.storage.checkpoint.foreign import kind_of_path
from toynn.storage.checkpoint.meta import META
from toynn.storage.durable_files import sha256_of, sha256_of_parts
from toynn.storage.regular_files import path_of, refuse_lfs_pointer

# extensions of the files in a Hugging Face folder
_FILES_OF_MODEL = (".safetensors", ".json", ".jinja", ".model")
WHICH = ("latest", "best")
_NAMES = {"gguf": "a GGUF file", "hf": "a Hugging Face folder"}


def load(
    path: str | os.PathLike[str],
    *,
    which: str = "latest",
    base: str | os.PathLike[str] | None = None,
    n_ctx: int | None = None,
    cache: str = "f32",
    n_threads: int | None = None,
) -> TextModel:
    """Load a trained model and return it as a `TextModel`, which generates and scores text.

    Args:
        path: the folder of a run or of one checkpoint, a GGUF file, or a Hugging Face folder. A GGUF file and a Hugging
            Face folder need the extra toynn[interop]. The weights of a GGUF file are mapped and keep their types.
        base: the place of the base, if the run trained an adapter and its base was moved.
        which: the checkpoint of a run to load: "latest", or "best" for the one with the lowest validation loss.
        n_ctx: context length in tokens. Default and maximum: the context length that the model was trained with.
        cache: type of the cached keys and values of the tokens that the model has read: "f32", or "f16", which needs
            half the memory. The results with "f16" differ slightly, because keys and values are rounded.
        n_threads: number of threads. Default: the number of cores that this process may use. The results do not depend
            on this number.

    Raises:
        FileNotFoundError: the path does not exist.
        FileFormatError: a file is damaged, has another format, or contains a model that toynn cannot compute.
        TinyNNValueError: an argument is out of range; the model has no tokenizer, or a tokenizer that does not fit the
            model.
        TinyNNTypeError: an argument has the wrong type.
        TinyNNMemoryError: the model does not fit into memory. OSError: a file cannot be read.
    """
    source, opened = open_model(path, which, base)
    try:
        return TextModel(source, base=opened, n_ctx=n_ctx, cache=cache, n_threads=n_threads)
    except BaseException:
        if opened is not None:
            opened.close()
        raise


def open_model(
    path: str | os.PathLike[str], which: str = "latest", base: str | os.PathLike[str] | None = None
) -> tuple[Checkpoint, OpenBase | None]:
    """Return the model at a path that `load` accepts, and the open base of an adapter or of a GGUF file.

    The caller closes the base. Raises the errors of `load`.
    """
    path, place = path_of("path", path), None if base is None else path_of("base", base)
    if path.exists() and kind_of_path(path) == "gguf" and which == "latest" and place is None:
        opened = open_base(path)
        return Checkpoint(path, 0, opened.description, None, {}), opened
    source = read_model(path, which)
    return source, base_of(source, place)


@contextmanager
def open_decoder(
    path: str | os.PathLike[str], which: str = "latest", base: str | os.PathLike[str] | None = None, *,
    n_threads: int | None = None,
) -> Iterator[tuple[Checkpoint, LlamaDecoder]]:  # fmt: skip
    """Yield the model at a path that `load` accepts, and its decoder. A model without a tokenizer is accepted too.

    Raises the errors of `load`.
    """
    source, opened = open_model(path, which, base)
    with contextlib.ExitStack() as stack:
        if opened is not None:
            stack.callback(opened.close)
        yield source, stack.enter_context(decoder_of(source, opened, n_threads=n_threads))


def read_model(path: str | os.PathLike[str], which: str = "latest", *, name: str = "path") -> Checkpoint:
    """Read the model at a path that `load` accepts, and return it as a `Checkpoint`.

    name: the name of the argument that contains the path, for messages. Raises the errors of `load` for the path
    and for `which`.
    """
    path = path_of(name, path)
    one_of("which", which, WHICH)
    if not path.exists():
        raise FileNotFoundError(f"{name}: {path} does not exist; give a run, a GGUF file or a Hugging Face folder")
    kind = kind_of_path(path)
    if kind not in ("gguf", "hf"):
        if path.is_file():
            with path.open("rb") as file:
                refuse_lfs_pointer(file.read(256), str(path))
            raise FileFormatError(f"{path} is not a GGUF file; give a run, a GGUF file or a Hugging Face folder")
        return load_checkpoint(path, which)
    if which != "latest":
        raise TinyNNValueError(
            f"which = {which!r} needs a run, but {path} is {_NAMES[kind]}, which contains one model; "
            "leave out the argument 'which'"
        )
    from toynn.interop import import_gguf, import_hf  # these modules need the extra toynn[interop]

    model = import_gguf(path) if kind == "gguf" else import_hf(path)
    return Checkpoint(path, 0, model, None, {})


def model_identity(path: Path) -> str:
    """Return a SHA-256 that identifies the model in a checkpoint, a GGUF file or a Hugging Face folder.

    For a checkpoint, this is the SHA-256 of its meta.json. This file contains the SHA-256 of the other files, and of
    the base of an adapter.
    """
    if path.is_file():
        return sha256_of(path)
    if (path / META).is_file():
        return sha256_of(path / META)
    names = sorted(entry.name for entry in path.iterdir() if entry.suffix in _FILES_OF_MODEL)
    return sha256_of_parts({name: sha256_of(path / name) for name in names})

"""Read a model from any path that holds one: a run, a checkpoint, a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import os

from toynn.api.text_model import TextModel
from toynn.arguments import one_of
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.storage.checkpoint.foreign import kind_of_path
from toynn.storage.regular_files import path_of, refuse_lfs_pointer

WHICH = ("latest", "best")


def load(
    path: str | os.PathLike[str], *, which: str = "latest", n_ctx: int | None = None, n_threads: int | None = None
) -> TextModel:
    """Open a model that reads, writes and scores text.

    Args:
        path: the folder of a run or of one checkpoint, a GGUF file, or a Hugging Face folder. The last two need the
            extra toynn[interop].
        which: of a run, the "latest" checkpoint, or the "best" one by its evaluations.
        n_ctx: context length in tokens, at most the model's own, which is the default.
        n_threads: threads to compute with. Default: the number of cores that this process may use. The results do not
            depend on it.

    Raises:
        FileNotFoundError: nothing is at the path.
        FileFormatError: a file that is damaged, has another format, or holds a model that toynn cannot compute.
        TinyNNValueError: an argument that is out of range; a model without a tokenizer, or with one that does not fit.
        TinyNNTypeError: an argument of the wrong type. TinyNNMemoryError. OSError: a file cannot be read.
    """
    return TextModel(read_model(path, which), n_ctx=n_ctx, n_threads=n_threads)


def read_model(path: str | os.PathLike[str], which: str = "latest") -> Checkpoint:
    """Return the model of a path that `load` accepts, as values. Raises what `load` raises for path and which."""
    path = path_of("path", path)
    one_of("which", which, WHICH)
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file or folder {path}")
    kind = kind_of_path(path)
    if kind not in ("gguf", "hf"):
        if path.is_file():
            with path.open("rb") as file:
                refuse_lfs_pointer(file.read(256), str(path))
            raise FileFormatError(f"{path} is not a GGUF file; name a run, a GGUF file or a Hugging Face folder")
        return load_checkpoint(path, which)
    if which != "latest":
        raise TinyNNValueError(f"which = {which!r} needs a run: {path} holds one model only; leave it out")
    from toynn.interop import import_gguf, import_hf  # they need the extra toynn[interop]

    model = import_gguf(path) if kind == "gguf" else import_hf(path)
    return Checkpoint(path, 0, model, None, {})

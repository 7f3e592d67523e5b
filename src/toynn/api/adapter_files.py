"""Write the adapter of a run for other programs, merge it into its base, and make a run from an adapter's file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from toynn.api.base_model import base_of, open_base
from toynn.api.save_model import SavedModel, exists, size_of
from toynn.errors import TinyNNValueError
from toynn.llm.adapters.merge import merged
from toynn.llm.adapters.model_on_base import ModelOnBase, adapter_of
from toynn.llm.adapters.open_base import OpenBase
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weights_of
from toynn.storage.checkpoint import Checkpoint
from toynn.storage.regular_files import path_of


def write_adapter(
    adapter: TrainedAdapter, path: Path, *, kind: str, overwrite: bool, name: str | None = None
) -> SavedModel:
    """Write an adapter as a GGUF file (kind "gguf") or as a PEFT folder ("hf").

    name: the name in a GGUF file.

    Raises TinyNNValueError if the path exists and overwrite is false. Also raises the errors of `export_gguf_adapter`
    and `export_peft`.
    """
    if not overwrite and exists(path):
        raise TinyNNValueError(f"path: {path} already exists; name another path, or pass overwrite=True")
    from toynn.interop import export_gguf_adapter, export_peft  # these functions need the extra toynn[interop]

    if kind == "gguf":
        written = export_gguf_adapter(adapter, path, name=name, overwrite=overwrite)
        return SavedModel(path, kind, "f32", written.bytes, written.notes)
    base = None if adapter.base is None or not adapter.base.path.is_dir() else str(adapter.base.path)
    folder = export_peft(adapter, path, base=base, overwrite=overwrite)
    return SavedModel(path, "peft", "f32", size_of(folder), ())


def merged_model(checkpoint: Checkpoint, place: Path | None = None) -> TrainedModel:
    """Return the whole model of a checkpoint that has only an adapter: the weights of the base plus the adapter.

    place: where the base is now. Default: where it was when the adapter was trained.

    Raises TinyNNValueError if the checkpoint has no adapter, or if the base is missing or was changed. Also raises the
    errors of `open_base` and `merged`.
    """
    adapter, opened = adapter_of(checkpoint.contents), base_of(checkpoint, place)
    if adapter is None or opened is None:
        raise TinyNNValueError(
            f"{checkpoint.path} has no adapter, so there is nothing to merge; export the model itself"
        )
    with opened:
        return merged(_whole(opened, checkpoint), adapter)


def _whole(base: OpenBase, checkpoint: Checkpoint) -> TrainedModel:
    """Return a base with all its weights as f32, and with the tokenizer and the special tokens of a checkpoint."""
    described = checkpoint.contents
    return TrainedModel(
        described.shape,
        {weight.name: base.weights.values(weight) for weight in weights_of(described.shape)},
        described.tokenizer,
        eos_id=described.eos_id,
        bos_id=described.bos_id,
        other_eos_ids=described.other_eos_ids,
        foreign=described.foreign,
    )


def adapter_on_base(source: str | os.PathLike[str], base: str | os.PathLike[str]) -> ModelOnBase:
    """Return the adapter in a GGUF file or a PEFT folder as a model on its base, with the tokenizer of the base.

    Raises FileFormatError if the adapter is damaged, is not supported or belongs to another base. Also raises the
    errors of `open_base`.
    """
    from toynn.interop import import_adapter  # this module needs the extra toynn[interop]

    with open_base(base) as opened:
        adapter = import_adapter(path_of("source", source), opened.description.shape)
        adapter = dataclasses.replace(adapter, base=opened.identity)
        return dataclasses.replace(opened.description, adapter=adapter)

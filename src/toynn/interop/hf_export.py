"""Export a model as a Hugging Face folder for transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.arguments import boolean, one_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.interop.families import folder_offset
from toynn.interop.hf_config import config_of
from toynn.interop.hf_settings import GENERATION_CONFIG, TOKENIZER_CONFIG, generation_config, tokenizer_config
from toynn.interop.lens import folded
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import Weight, foreign_weights_of, weights_of
from toynn.storage.durable_files import replacing_folder
from toynn.storage.regular_files import path_of
from toynn.storage.tensor_files import write_half_tensors, write_tensors
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer

FILES = ("config.json", GENERATION_CONFIG, "model.safetensors", "tokenizer.json", TOKENIZER_CONFIG)
_TORCH_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
HF_DTYPES = tuple(_TORCH_NAMES)


def export_hf(model: TrainedModel, folder: Path, dtype: str = "f32", *, overwrite: bool = False) -> Path:
    """Write a model as a folder for `transformers.AutoModelForCausalLM.from_pretrained`, and return its path.

    All weights are stored in `dtype`, and tokenizer.json is copied unchanged. A projection lens is folded into the
    embedding. The folder is written under another name and renamed when it is complete, so an old folder stays
    unchanged until then.

    Args:
        dtype: "f32", "f16" or "bf16".
        overwrite: replace an existing folder. A folder that contains any other file is never changed.

    Raises:
        TinyNNValueError: the folder exists and `overwrite` is False; transformers does not support the RoPE scaling or
            the width; the tokenizer has more tokens than the model; or a value is too large for the dtype.
        OSError: the folder cannot be written.
    """
    if not isinstance(model, TrainedModel):
        raise TinyNNTypeError(f"model must be a TrainedModel, got {type(model).__name__}")
    one_of("dtype", dtype, HF_DTYPES)
    folder = path_of("folder", folder).resolve()
    may_be_written(folder, FILES, boolean("overwrite", overwrite))
    plain = folded(model)
    tokenizer = None if plain.tokenizer is None else parsed_tokenizer(plain.tokenizer)
    if tokenizer is not None and (needed := ids_needed(tokenizer)) > plain.shape.vocab:
        raise TinyNNValueError(f"the tokenizer has {needed} token ids, but the model has only {plain.shape.vocab}")
    config = {**config_of(plain), "torch_dtype": _TORCH_NAMES[dtype]}
    weights = {weight.hf_name: _stored(weight, plain.weights[weight.name]) for weight in weights_of(plain.shape)}
    if plain.shape.qkv_bias:  # with attention_bias, transformers also expects a bias of o
        foreign = foreign_weights_of(plain.shape)
        weights.update({weight.hf_name: np.zeros(weight.size, dtype=np.float32) for weight in foreign})
    with replacing_folder(folder, check=lambda: may_be_written(folder, FILES, overwrite)) as temporary:
        if dtype == "f32":
            write_tensors(temporary / "model.safetensors", weights, metadata={"format": "pt"})
        else:
            write_half_tensors(temporary / "model.safetensors", weights, {"format": "pt"}, dtype)
        write_json(temporary / "config.json", config)
        write_json(temporary / GENERATION_CONFIG, generation_config(plain))
        if plain.tokenizer is not None and tokenizer is not None:
            (temporary / "tokenizer.json").write_bytes(plain.tokenizer)
            write_json(temporary / TOKENIZER_CONFIG, tokenizer_config(plain, tokenizer))
    return folder


def may_be_written(folder: Path, files: tuple[str, ...], overwrite: bool) -> None:
    """Raise TinyNNValueError unless a folder with these files can be written at the path.

    A folder that contains other files is never replaced. A folder with these files is replaced only if `overwrite` is
    true.
    """
    if not folder.parent.is_dir():
        raise TinyNNValueError(f"folder: the folder {folder.parent} does not exist; create it first")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise TinyNNValueError(f"folder: {folder} is a file; give the path of a folder")
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in files or not entry.is_file())
    if others:
        raise TinyNNValueError(f"folder: {folder} contains other files ({others[0]!r:.60}); give another path")
    if not overwrite and any(folder.iterdir()):
        raise TinyNNValueError(f"folder: {folder} already exists; pass overwrite=True to replace it")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object to a new file, in the form of Hugging Face's libraries."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _stored(weight: Weight, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the values of a weight as the folder contains them."""
    offset = folder_offset(weight)
    return values - np.float32(offset) if offset else values

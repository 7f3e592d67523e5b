"""Import a model from a Hugging Face folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.families import folder_offset
from toynn.interop.file_errors import naming
from toynn.interop.hf_config import shape_of
from toynn.interop.hf_settings import (
    TOKENIZER_CONFIG,
    check_agreement,
    json_object_of,
    read_settings,
    without_class,
)
from toynn.interop.hf_tokenizer_model import converted_model
from toynn.interop.safetensors_header import StoredTensor, stored_tensors
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import EMBEDDING, FEWEST_PER_LAYER, HF_OUTPUT, foreign_weights_of, weights_of
from toynn.storage.json_files import read_json
from toynn.storage.regular_files import open_regular, path_of, refuse_lfs_pointer
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer

CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
MODEL = "tokenizer.model"  # the file of a SentencePiece model, read if there is no tokenizer.json
_LARGEST_TOKENIZER = 1 << 28  # bytes


def import_hf(folder: Path) -> TrainedModel:
    """Return the model in a Hugging Face folder of a supported architecture (`toynn.model.shape.ARCHITECTURES`).

    Reads config.json, the weights (one safetensors file, or several with an index) and, if they exist, tokenizer.json
    (or tokenizer.model), tokenizer_config.json, generation_config.json, chat_template.jinja and the license in
    README.md.
    Weights in F32, F16 and BF16 become f32.

    Raises:
        FileFormatError: toynn cannot read a file, or does not support the model. The message names the file and the
            reason.
        TinyNNMemoryError: there is not enough memory for the weights.
        OSError: a file cannot be read.
    """
    folder = path_of("folder", folder)
    if not folder.is_dir():
        raise FileFormatError(f"{folder} is not a folder; give a Hugging Face folder")
    if not (folder / CONFIG).exists():
        raise FileFormatError(f"{folder} is not a Hugging Face folder: it contains no {CONFIG}")
    config = read_json(folder / CONFIG)
    with naming(folder / CONFIG):
        shape = shape_of(config)
    begins, ends, settings = read_settings(folder, config, shape.vocab)
    stored = _stored(folder)
    with naming(folder / CONFIG):
        if shape.n_layers > len(stored) // FEWEST_PER_LAYER:
            raise FileFormatError(
                f"num_hidden_layers is {shape.n_layers}, but the folder contains only {len(stored)} tensors; "
                f"each layer needs at least {FEWEST_PER_LAYER}"
            )
    foreign = {weight.hf_name: weight.size for weight in foreign_weights_of(shape) if shape.qkv_bias}
    with naming(folder):
        _check(stored, foreign, shape)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for weight in weights_of(shape):
        values, offset = _read(stored, weight.hf_name), folder_offset(weight)
        weights[weight.name] = values + np.float32(offset) if offset else values
    for name in foreign:
        if name in stored and (values := _read(stored, name)).any():
            raise FileFormatError(
                f"{stored[name].path}: {name!r} must contain only zeros, because toynn has no such bias, got "
                f"{values[values != 0][0]:g}"
            )
    head = HF_OUTPUT
    if not shape.untied and head in stored and not np.array_equal(_read(stored, head), weights[EMBEDDING]):
        raise FileFormatError(
            f"{stored[head].path}: {head} differs from the embedding, but config.json sets tie_word_embeddings; "
            "set tie_word_embeddings to false to use both matrices"
        )
    tokenizer, from_model = _tokenizer(folder, shape.vocab)
    if from_model:  # an export writes a tokenizer.json, whose rules differ from those of tokenizer_class
        settings = without_class(settings)
    with naming(folder):
        return TrainedModel(
            shape,
            weights,
            tokenizer,
            eos_id=ends[0] if ends else None,
            bos_id=begins[0] if begins else None,
            other_eos_ids=tuple(ends[1:]),
            foreign=settings,
        )


def _stored(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of model.safetensors, or of all files that the index names."""
    if (folder / WEIGHTS).exists():
        with naming(folder / WEIGHTS):
            return stored_tensors(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        pickles = "; toynn does not load pickle files (*.bin), so save the model with safe_serialization=True"
        raise FileFormatError(
            f"{folder} contains neither {WEIGHTS} nor {INDEX}{pickles if any(folder.glob('*.bin')) else ''}"
        )
    index = read_json(folder / INDEX)
    with naming(folder / INDEX):
        places = _places(folder, index)
    found: dict[str, StoredTensor] = {}
    for shard in sorted(set(places.values())):
        with naming(folder / shard):
            tensors = stored_tensors(folder / shard)
            for name in tensors:
                if places.get(name) != shard:
                    raise FileFormatError(f"{INDEX} does not assign the tensor {name!r:.80} to this file")
            found.update(tensors)
    with naming(folder / INDEX):
        for name, shard in places.items():
            if name not in found:
                raise FileFormatError(
                    f"weight_map assigns {name!r:.80} to {shard}, but {shard} does not contain this tensor"
                )
    return found


def _places(folder: Path, index: Any) -> dict[str, str]:
    """Return the name of the file (the shard) that holds each tensor, by the tensor's name.

    Each file must exist in the folder.
    """
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise FileFormatError("the key weight_map must assign each tensor to a file, but it is missing or empty")
    for name, shard in places.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or Path(shard).name != shard:
            raise FileFormatError(
                f"weight_map assigns {name!r:.80} to {shard!r:.80}, which is not the name of a .safetensors file"
            )
        if not (folder / shard).is_file():
            raise FileFormatError(f"weight_map names the file {shard!r:.80}, which does not exist; add the file")
    return places


def _check(stored: dict[str, StoredTensor], foreign: dict[str, tuple[int, ...]], shape: ModelShape) -> None:
    """Raise FileFormatError if a tensor is missing or unknown, or has another shape."""
    expected = {weight.hf_name: weight.size for weight in weights_of(shape)}
    for name in expected:
        if name not in stored:
            tied = "; if the model uses its embedding for the output, set tie_word_embeddings to true in config.json"
            raise FileFormatError(f"the tensor {name!r} is missing{tied if name == HF_OUTPUT else ''}")
    expected.update(foreign)
    if not shape.untied:
        # Some programs store the embedding a second time, as the output matrix.
        expected[HF_OUTPUT] = (shape.vocab, shape.d_model)
    for name, tensor in stored.items():
        if name.endswith(".rotary_emb.inv_freq"):  # old files contain these values; toynn computes them
            continue
        if name not in expected:
            raise FileFormatError(f"the tensor {name!r:.80} is not part of any model that toynn supports")
        if tensor.shape != expected[name]:
            raise FileFormatError(f"the tensor {name!r} must have shape {expected[name]}, got {tensor.shape}")


def _read(stored: dict[str, StoredTensor], name: str) -> npt.NDArray[np.float32]:
    tensor = stored[name]
    with naming(tensor.path):
        try:
            return tensor.read()
        except TinyNNValueError as error:
            raise FileFormatError(f"tensor {name!r}: {error}") from None


def _tokenizer(folder: Path, vocab: int) -> tuple[bytes | None, bool]:
    """Return the tokenizer.json of a folder, and whether it was made from a tokenizer.model."""
    name = TOKENIZER if (folder / TOKENIZER).exists() else MODEL
    if not (folder / name).exists():
        return None, False
    with naming(folder), open_regular(folder / name) as file:
        if (size := os.fstat(file.fileno()).st_size) > _LARGEST_TOKENIZER:
            raise FileFormatError(f"{name} has {size} bytes, but the limit is {_LARGEST_TOKENIZER}")
        content = file.read(size)
        try:
            if name == MODEL:
                refuse_lfs_pointer(content)
                config, added = (json_object_of(folder / one) for one in (TOKENIZER_CONFIG, "added_tokens.json"))
                content = converted_model(content, config, added, vocab)
            tokenizer = parsed_tokenizer(content)
            needed = ids_needed(tokenizer)
        except TinyNNValueError as error:
            raise FileFormatError(f"{name}: {error}") from None
        if needed > vocab:
            raise FileFormatError(f"{name} has {needed} token ids, but the model has only {vocab}")
    check_agreement(folder, tokenizer)
    return content, name == MODEL

"""A Hugging Face folder as a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.errors import TinyNNValueError
from toynn.interop.file_errors import naming
from toynn.interop.hf_config import shape_of, token_ids_of
from toynn.interop.hf_names import hf_names, output_biases
from toynn.interop.safetensors_header import StoredTensor, stored_tensors
from toynn.model.config import SmolLM2Config
from toynn.model.trained_model import TrainedModel, weight_shapes
from toynn.storage.json_fields import read_json
from toynn.storage.regular_files import open_regular, path_of
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer

CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
_LARGEST_TOKENIZER = 1 << 28  # bytes
_LEAST_TENSORS_A_LAYER = 9  # of a llama without biases


def import_hf(folder: Path) -> TrainedModel:
    """The model in a folder of LlamaForCausalLM: config.json, safetensors (in one file or in shards), tokenizer.json
    if there is one. F16 and BF16 become f32.

    Raises:
        TinyNNValueError: anything that toynn does not compute or cannot read, with the file's name and the reason.
        TinyNNMemoryError: no memory for the weights.
        OSError: a file cannot be read.
    """
    folder = path_of("folder", folder)
    if not folder.is_dir():
        raise TinyNNValueError(f"{folder} is no folder")
    if not (folder / CONFIG).exists():
        raise TinyNNValueError(f"{folder} has no {CONFIG}: it is no Hugging Face folder")
    config = read_json(folder / CONFIG)
    with naming(folder / CONFIG):
        cfg, untied, qkv_bias = shape_of(config)
        bos_id, eos_id = token_ids_of(config, cfg.vocab)
    stored = _stored(folder)
    with naming(folder / CONFIG):
        if cfg.n_layers > len(stored) // _LEAST_TENSORS_A_LAYER:
            raise TinyNNValueError(
                f"its num_hidden_layers is {cfg.n_layers}, but there are {len(stored)} tensors in all"
            )
    shapes = weight_shapes(cfg, untied, qkv_bias)
    zeros = output_biases(cfg.n_layers) if qkv_bias else []
    with naming(folder):
        _check(stored, shapes, zeros, cfg, untied)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for ours, theirs in hf_names(shapes).items():
        weights[ours] = _read(stored, theirs)
    for name in zeros:
        if name in stored and _read(stored, name).any():
            raise TinyNNValueError(f"{stored[name].path}: its tensor {name!r} is not zero, and toynn has no such bias")
    head = "lm_head.weight"
    if not untied and head in stored and not np.array_equal(_read(stored, head), weights["token_embd.weight"]):
        raise TinyNNValueError(
            f"{stored[head].path}: its {head} is not the embedding, though config.json says tie_word_embeddings"
        )
    with naming(folder):
        tokenizer = _tokenizer(folder, cfg.vocab)
        return TrainedModel(cfg, untied, qkv_bias, weights, tokenizer, eos_id=eos_id, bos_id=bos_id)


def _stored(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of model.safetensors, or of the shards that the index names."""
    if (folder / WEIGHTS).exists():
        with naming(folder / WEIGHTS):
            return stored_tensors(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        pickles = " (pytorch_model.bin is a pickle, which toynn does not open: save it with safe_serialization=True)"
        raise TinyNNValueError(
            f"{folder} has neither {WEIGHTS} nor {INDEX}{pickles if any(folder.glob('*.bin')) else ''}"
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
                    raise TinyNNValueError(f"{INDEX} does not put its tensor {name!r:.80} here")
            found.update(tensors)
    with naming(folder / INDEX):
        for name, shard in places.items():
            if name not in found:
                raise TinyNNValueError(f"it puts {name!r:.80} into {shard}, which has no such tensor")
    return found


def _places(folder: Path, index: Any) -> dict[str, str]:
    """The shard of each tensor, by the index: files of this folder that are there."""
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise TinyNNValueError("it has no weight_map")
    for name, shard in places.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or Path(shard).name != shard:
            raise TinyNNValueError(f"its weight_map puts {name!r:.80} into {shard!r:.80}, no file of this folder")
        if not (folder / shard).is_file():
            raise TinyNNValueError(f"its weight_map names {shard!r:.80}, which is not there")
    return places


def _check(
    stored: dict[str, StoredTensor], shapes: dict[str, tuple[int, ...]], zeros: list[str], cfg: SmolLM2Config,
    untied: bool,
) -> None:  # fmt: skip
    """Raises TinyNNValueError for a tensor that is missing, unknown or of another shape."""
    expected = {theirs: shapes[ours] for ours, theirs in hf_names(shapes).items()}
    for name in expected:
        if name not in stored:
            raise TinyNNValueError(f"there is no tensor {name!r}")
    expected.update(dict.fromkeys(zeros, (cfg.d_model,)))
    if not untied:
        expected["lm_head.weight"] = (cfg.vocab, cfg.d_model)  # some write the embedding a second time
    for name, tensor in stored.items():
        if name.endswith(".rotary_emb.inv_freq"):  # of old files: computed anew
            continue
        if name not in expected:
            raise TinyNNValueError(f"there is a tensor {name!r:.80}, which toynn's llama has not")
        if tensor.shape != expected[name]:
            raise TinyNNValueError(f"the tensor {name!r} must have shape {expected[name]}, got {tensor.shape}")


def _read(stored: dict[str, StoredTensor], name: str) -> npt.NDArray[np.float32]:
    tensor = stored[name]
    with naming(tensor.path):
        try:
            return tensor.read()
        except TinyNNValueError as error:
            raise TinyNNValueError(f"its tensor {name!r}: {error}") from None


def _tokenizer(folder: Path, vocab: int) -> bytes | None:
    if not (folder / TOKENIZER).exists():
        return None
    with open_regular(folder / TOKENIZER) as file:
        if (size := os.fstat(file.fileno()).st_size) > _LARGEST_TOKENIZER:
            raise TinyNNValueError(f"{TOKENIZER} is {size} bytes long, larger than such a file can be")
        content = file.read(size)
    try:
        needed = ids_needed(parsed_tokenizer(content))
    except TinyNNValueError as error:
        raise TinyNNValueError(f"{TOKENIZER}: {error}") from None
    if needed > vocab:
        raise TinyNNValueError(f"{TOKENIZER} needs {needed} ids, the model's vocabulary has {vocab}")
    return content

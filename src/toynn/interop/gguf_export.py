"""Export a model as a GGUF file for llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFWriter, LlamaFileType, size_label

from toynn.arguments import boolean, label, one_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.interop.families import FAMILIES, Family
from toynn.interop.gguf_rope import ROPE_FREQS, write_scaling
from toynn.interop.gguf_sampling import write_sampling
from toynn.interop.gguf_tokenizer_export import write_gguf_tokenizer
from toynn.interop.gguf_types import GGUF_DTYPES, stored_type, stored_values
from toynn.interop.gguf_windows import write_windows
from toynn.interop.lens import folded
from toynn.interop.rope_order import to_interleaved
from toynn.model.foreign_settings import json_object
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weights_of
from toynn.storage.durable_files import replacing_file
from toynn.storage.regular_files import naming_file, path_of

_QUANTIZATION_VERSION = 2  # ggml's constant GGML_QNT_VERSION


@dataclass(frozen=True)
class GgufExport(Initialised):
    """The result of an export: what the file contains.

    tensors: the type of each tensor, by name.
    notes: sentences for the user about differences from the requested export.
    """

    path: Path
    bytes: int
    tensors: dict[str, str]
    notes: tuple[str, ...]


def export_gguf(
    model: TrainedModel, path: Path, dtype: str = "f32", *, name: str | None = None, overwrite: bool = False
) -> GgufExport:
    """Write a model and its tokenizer as a GGUF file of the model's architecture.

    Matrices are stored in `dtype`; norms and biases stay f32. As in llama.cpp, the output matrix of a quantized model
    has more bits than its other matrices. A matrix whose rows are not whole blocks of a type gets another type (see
    `gguf_types`). ggml quantizes the weights, without an importance matrix. A projection lens is folded into the
    embedding. The file is written under another name and renamed when it is complete, so an old file stays unchanged
    until then.

    Args:
        dtype: a name in GGUF_DTYPES, for example "f32", "bf16", "q8_0" or "q4_K".
        name: the name of the model in the file. Default: the name of the imported model, or the name of the file.
        overwrite: replace an existing file.

    Raises:
        TinyNNValueError: the file exists and `overwrite` is False; the path is a pipe or a device; llama.cpp does not
            support the tokenizer or the RoPE scaling; or a value is NaN, infinite, or too large for the type.
        OSError: the file cannot be written.
    """
    if not isinstance(model, TrainedModel):
        raise TinyNNTypeError(f"model must be a TrainedModel, got {type(model).__name__}")
    chosen = GGUF_DTYPES[one_of("dtype", dtype, tuple(GGUF_DTYPES))]
    path = new_path(path, overwrite)
    plain = folded(model)
    family = FAMILIES[plain.shape.architecture]
    _check_shape(plain.shape, family)
    notes: list[str] = []
    tensors: dict[str, str] = {}
    replaced: dict[tuple[str, int], list[str]] = {}
    with new_gguf(path, plain.shape.architecture, overwrite) as writer:
        _write_description(writer, plain, _name_of(model, path, name))
        _write_config(writer, plain, chosen.file_type)
        write_gguf_tokenizer(writer, plain, notes)
        factors = plain.shape.rope_scaling.freq_factors(plain.shape.head_dim, plain.shape.rope_base)
        if factors is not None and plain.shape.rope_scaling.kind != "yarn":
            writer.add_tensor(ROPE_FREQS, factors)
            tensors[ROPE_FREQS] = "F32"
        for weight in weights_of(plain.shape):
            values, n_heads = plain.weights[weight.name], weight.rotated_heads
            ordered = to_interleaved(values, n_heads) if n_heads and family.interleaved else values
            kind, missed = stored_type(weight, chosen)
            writer.add_tensor(weight.name, stored_values(weight.name, ordered, kind), raw_dtype=kind)
            tensors[weight.name] = kind.name
            if missed:
                replaced.setdefault((kind.name, missed), []).append(weight.name)
    for (used, block), names in replaced.items():
        notes.append(
            f"{len(names)} of {len(tensors)} tensors are stored as {used.lower()}, because their row length is not a "
            f"multiple of {block} (the first is {names[0]})"
        )
    return GgufExport(path, path.stat().st_size, tensors, tuple(notes))


def new_path(path: Path, overwrite: bool) -> Path:
    """Return the path of a file to write.

    Raises TinyNNValueError if a file cannot be written there, or if the file exists and overwrite is false.
    """
    path = path_of("path", path)
    if path.is_dir():
        raise TinyNNValueError(f"path: {path} is a folder; give the path of a file")
    if path.exists() and not path.is_file():
        raise TinyNNValueError(f"path: {path} is not a regular file, so it cannot be replaced; give another path")
    if not path.parent.is_dir():
        raise TinyNNValueError(f"path: the folder {path.parent} does not exist; create it first")
    if path.exists() and not boolean("overwrite", overwrite):
        raise TinyNNValueError(f"path: {path} already exists; pass overwrite=True to replace it")
    return path


@contextmanager
def new_gguf(path: Path, architecture: str, overwrite: bool) -> Iterator[GGUFWriter]:
    """Yield a writer for a GGUF file. After the block, the file with the added keys and tensors appears at `path`.

    overwrite: replace an existing file. After any error, `path` has its old content.

    Raises OSError if the file cannot be written.
    """
    with naming_file(path), replacing_file(path, replace=overwrite) as temporary:
        writer = GGUFWriter(temporary, architecture)
        try:
            yield writer
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _check_shape(shape: ModelShape, family: Family) -> None:
    """Raise TinyNNValueError for a model that llama.cpp cannot compute."""
    instead = "export a Hugging Face folder instead"
    if shape.rope_scaling.kind in ("llama3", "llama3_hf") and not family.freq_factors:
        raise TinyNNValueError(
            f"rope_scaling.kind = {shape.rope_scaling.kind!r} cannot be exported to GGUF: llama.cpp computes this "
            f"scaling only for the architecture 'llama', not for {shape.architecture!r}; {instead}"
        )
    if shape.no_rope_interval != family.no_rope_interval:
        raise TinyNNValueError(
            f"no_rope_interval = {shape.no_rope_interval} cannot be exported to GGUF: for the architecture "
            f"{shape.architecture!r}, llama.cpp always uses {family.no_rope_interval}; {instead}"
        )
    if family.heads_fill_width and shape.n_heads * shape.head_dim != shape.d_model:
        raise TinyNNValueError(
            f"head_dim = {shape.head_dim} cannot be exported to GGUF: for the architecture {shape.architecture!r}, "
            f"llama.cpp needs head_dim = d_model / n_heads = {shape.d_model / shape.n_heads:g}; {instead}"
        )


def _name_of(model: TrainedModel, path: Path, name: str | None) -> str:
    if name is not None:
        return label("name", name).decode("utf-8")
    return model.foreign.name or path.stem


def _write_description(writer: GGUFWriter, model: TrainedModel, name: str) -> None:
    """Write the values that programs show to users, and the settings of an imported model."""
    foreign = model.foreign
    writer.add_type("model")
    writer.add_name(name)
    parameters = sum(values.size for values in model.weights.values())
    writer.add_size_label(size_label(parameters, parameters, 0, 0))
    if foreign.license:
        writer.add_license(foreign.license)
    for key in ("tokenizer_config", "generation_config"):
        if text := getattr(foreign, key):
            writer.add_string(f"toynn.{key}", text)
    write_sampling(writer, json_object("generation_config", foreign.generation_config))


def _write_config(writer: GGUFWriter, model: TrainedModel, file_type: LlamaFileType) -> None:
    cfg = model.shape
    writer.add_file_type(file_type)
    writer.add_quantization_version(_QUANTIZATION_VERSION)
    writer.add_context_length(cfg.ctx)
    writer.add_embedding_length(cfg.d_model)
    writer.add_block_count(cfg.n_layers)
    writer.add_feed_forward_length(cfg.d_ff)
    writer.add_head_count(cfg.n_heads)
    writer.add_head_count_kv(cfg.n_kv)
    writer.add_key_length(cfg.head_dim)
    writer.add_value_length(cfg.head_dim)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_base)
    writer.add_layer_norm_rms_eps(cfg.rms_eps)
    writer.add_vocab_size(cfg.vocab)
    write_scaling(writer, cfg.rope_scaling)
    if cfg.sliding_window:
        write_windows(writer, cfg)

"""Export a model as a GGUF file for llama.cpp."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, size_label
from gguf.quants import dequantize, quantize

from toynn.arguments import boolean, label, one_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.interop.byte_level_bpe import ByteLevelBpe, read_tokenizer
from toynn.interop.gguf_own_keys import AFTER, BEFORE, BEGIN, NO_TOKEN, NORMALIZED, NORMALIZES
from toynn.interop.gguf_rope import ROPE_FREQS, write_scaling
from toynn.interop.lens import folded
from toynn.interop.rope_order import to_interleaved
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weights_of
from toynn.storage.durable_files import replacing_file
from toynn.storage.regular_files import naming_file, path_of

GGUF_DTYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_QUANTIZATION_VERSION = 2  # ggml's constant GGML_QNT_VERSION


@dataclass(frozen=True)
class GgufExport(Initialised):
    """The result of an export: what the file contains.

    tensors: the type of each tensor, by name. notes: sentences for the user about differences from the requested
    export.
    """

    path: Path
    bytes: int
    tensors: dict[str, str]
    notes: tuple[str, ...]


def export_gguf(
    model: TrainedModel, path: Path, dtype: str = "f32", *, name: str | None = None, overwrite: bool = False
) -> GgufExport:
    """Write a model and its tokenizer as a GGUF file of the `llama` architecture.

    Matrices are stored in `dtype`; norms and biases stay f32. With q8_0, a matrix whose row length is not a multiple
    of 32 is stored as f16, as the converter of llama.cpp does. A projection lens is folded into the embedding. The file
    is written under another name and renamed when it is complete, so an old file stays unchanged until then.

    Args:
        dtype: "f32", "f16", "bf16" or "q8_0".
        name: the name of the model in the file. Default: the name of the imported model, or that of the file.
        overwrite: replace an existing file.

    Raises:
        TinyNNValueError: the file exists and `overwrite` is False; the path is a pipe or a device; or llama.cpp does
            not support the tokenizer, the RoPE scaling or the size of a weight.
        OSError: the file cannot be written.
    """
    if not isinstance(model, TrainedModel):
        raise TinyNNTypeError(f"model must be a TrainedModel, got {type(model).__name__}")
    kind, file_type = GGUF_DTYPES[one_of("dtype", dtype, tuple(GGUF_DTYPES))]
    path = new_path(path, overwrite)
    plain = folded(model)
    notes: list[str] = []
    tensors: dict[str, str] = {}
    with naming_file(path), replacing_file(path, replace=overwrite) as temporary:
        writer = GGUFWriter(temporary, "llama")
        try:
            _write_description(writer, plain, _name_of(model, path, name))
            _write_config(writer, plain, file_type)
            _write_tokenizer(writer, plain, notes)
            factors = plain.shape.rope_scaling.freq_factors(plain.shape.head_dim, plain.shape.rope_base)
            if factors is not None:
                writer.add_tensor(ROPE_FREQS, factors)
                tensors[ROPE_FREQS] = "F32"
            for weight in weights_of(plain.shape):
                values, n_heads = plain.weights[weight.name], weight.rotated_heads
                ordered = to_interleaved(values, n_heads) if n_heads else values
                tensors[weight.name] = _add_tensor(writer, weight.name, ordered, kind).name
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    if other := [name for name, used in tensors.items() if kind.name == "Q8_0" and used == "F16"]:
        notes.append(
            f"{len(other)} of {len(tensors)} tensors are stored as f16, because their row length is not a multiple of "
            f"32 (the first is {other[0]})"
        )
    return GgufExport(path, path.stat().st_size, tensors, tuple(notes))


def new_path(path: Path, overwrite: bool) -> Path:
    """Return the path of a file to write. Raises TinyNNValueError if it cannot be written, or not without overwrite."""
    path = path_of("path", path)
    if path.is_dir():
        raise TinyNNValueError(f"path: {path} is a folder; give the path of a file")
    if path.exists() and not path.is_file():
        raise TinyNNValueError(f"path: {path} is not a regular file, so it cannot be replaced; give another path")
    if not path.parent.is_dir():
        raise TinyNNValueError(f"path: the folder {path.parent} does not exist")
    if path.exists() and not boolean("overwrite", overwrite):
        raise TinyNNValueError(f"path: {path} already exists; pass overwrite=True to replace it")
    return path


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


def _write_tokenizer(writer: GGUFWriter, model: TrainedModel, notes: list[str]) -> None:
    if model.tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
        notes.append("the model has no tokenizer: llama.cpp can run the file on token ids, but not on text")
        _write_ids(writer, model, model.bos_id, model.eos_id, notes)
        return
    try:
        bpe = read_tokenizer(model.tokenizer, model.shape.vocab)
    except TinyNNValueError as error:
        raise TinyNNValueError(f"the tokenizer cannot be exported: {error}") from None
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(bpe.pre)
    writer.add_token_list(bpe.tokens)
    writer.add_token_types(bpe.kinds)
    writer.add_token_merges(bpe.merges)
    if not bpe.normalizes:
        writer.add_bool(NORMALIZES, False)
    if bpe.normalized:
        writer.add_array(NORMALIZED, bpe.normalized)
    _write_special_tokens(writer, model, bpe, notes)
    if json.loads(model.tokenizer).get("normalizer") is not None:
        notes.append(
            "the tokenizer normalizes text to NFC, but llama.cpp does not: other text gets different tokens there"
        )


def _write_special_tokens(writer: GGUFWriter, model: TrainedModel, bpe: ByteLevelBpe, notes: list[str]) -> None:
    """Write the tokens that begin and end a text, and whether llama.cpp adds them to a prompt."""
    eos, bos = _end(model, bpe, notes), model.bos_id
    adds_bos, adds_eos = len(bpe.before) == 1, bpe.after != [] and bpe.after == [eos]
    if adds_bos:
        bos = bpe.before[0]
    elif bos is None:  # in training, the token before a text is the end token of the previous text
        bos = eos
    _write_ids(writer, model, bos, eos, notes)
    writer.add_add_bos_token(adds_bos)
    if adds_eos:
        writer.add_add_eos_token(True)
    if (bpe.before and not adds_bos) or (bpe.after and not adds_eos):
        notes.append(
            f"the tokenizer puts the tokens {bpe.before} before and {bpe.after} after a text; llama.cpp can add only "
            f"one bos token before it and the eos token after it, so prompts get other tokens there"
        )
        for key, ids in ((BEFORE, bpe.before), (AFTER, bpe.after)):
            if ids:
                writer.add_array(key, ids)


def _write_ids(writer: GGUFWriter, model: TrainedModel, bos: int | None, eos: int | None, notes: list[str]) -> None:
    if eos is not None:
        writer.add_eos_token_id(eos)
    if bos is not None:
        writer.add_bos_token_id(bos)
    if bos != model.bos_id:
        writer.add_int32(BEGIN, NO_TOKEN if model.bos_id is None else model.bos_id)
    for add, token in zip((writer.add_eot_token_id, writer.add_eom_token_id), model.other_eos_ids, strict=False):
        add(token)
    if len(model.other_eos_ids) > 2:
        notes.append(f"a GGUF file has room for three end tokens: {list(model.other_eos_ids[2:])} are left out")
    if model.foreign.pad_id is not None:
        writer.add_pad_token_id(model.foreign.pad_id)
    if model.foreign.chat_template:
        writer.add_chat_template(model.foreign.chat_template)


def _end(model: TrainedModel, bpe: ByteLevelBpe, notes: list[str]) -> int | None:
    """Return the id of the token that ends a text.

    If a file names no such token, llama.cpp uses id 11, which may be any token. So an unused token is written for a
    model without one, because it never occurs in a text.
    """
    if model.eos_id is not None:
        return model.eos_id
    if TokenType.UNUSED in bpe.kinds:
        return bpe.kinds.index(TokenType.UNUSED)
    notes.append(f"the model has no end-of-text token, so llama.cpp will use token 11, {bpe.tokens[11]!r}")
    return None


def _add_tensor(
    writer: GGUFWriter, name: str, values: npt.NDArray[np.float32], kind: GGMLQuantizationType
) -> GGMLQuantizationType:
    """Add a tensor to the file, and return the type in which it is stored; `export_gguf` describes the choice."""
    if values.ndim == 1:
        kind = GGMLQuantizationType.F32
    elif values.shape[-1] % GGML_QUANT_SIZES[kind][0]:
        kind = GGMLQuantizationType.F16
    with np.errstate(over="ignore", invalid="ignore"):
        stored = quantize(values, kind)
        fits = bool(np.isfinite(dequantize(stored, kind)).all())
    if not fits:
        largest = float(np.abs(values).max())
        raise TinyNNValueError(f"{name} contains values up to {largest:g}, which do not fit {kind.name}; use dtype f32")
    writer.add_tensor(name, stored, raw_dtype=kind)
    return kind

"""Import a model from a GGUF file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toynn import tinynn as nn
from toynn.arguments import integer
from toynn.errors import FileFormatError
from toynn.interop.families import FAMILIES
from toynn.interop.file_errors import naming
from toynn.interop.gguf_header import GgufTensor, GgufValues, is_adapter, shortest
from toynn.interop.gguf_model import GgufModel
from toynn.interop.gguf_rope import READ as SCALING
from toynn.interop.gguf_rope import ROPE_FREQS, read_scaling
from toynn.interop.gguf_sampling import read_sampling
from toynn.interop.gguf_tokenizer_import import read_gguf_tokenizer, special_tokens
from toynn.interop.gguf_windows import READ as WINDOWS
from toynn.interop.gguf_windows import read_windows, score_scalar
from toynn.interop.rope_order import to_halves
from toynn.interop.toy_format import (
    SCALING_KEYS,
    check_heads,
    is_toy_file,
    read_toy_scaling,
    stored_names,
    stored_sizes,
    whole_names,
)
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.model.foreign_settings import ForeignSettings
from toynn.model.shape import ARCHITECTURES, ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import (
    EMBEDDING,
    FEWEST_PER_LAYER,
    Weight,
    foreign_weights_of,
    variants_in,
    weights_of,
)

# Keys, without the name of the architecture, that change what llama.cpp computes, each with the only value that toynn
# supports.
_ONLY = {
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "attention.sliding_window": 0,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "logit_scale": 1.0,
    "embedding_scale": 1.0,
    "residual_scale": 1.0,
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
    "rope.scale_linear": 1.0,
    "use_parallel_residual": False,
    "tensor_data_layout": "Meta AI original pth",
}
_READ = (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
    "rope.freq_base", "attention.layer_norm_rms_epsilon", "vocab_size", "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
)  # fmt: skip


def import_gguf(path: Path) -> TrainedModel:
    """Return the model in a GGUF file of a supported architecture (see `toynn.model.shape.ARCHITECTURES`), with a
    byte-level or SentencePiece BPE tokenizer or without a tokenizer.

    All weights become f32. A tensor can have any type that ggml can convert to f32. For a model that is split
    into several files, path is the first file.

    Raises:
        FileFormatError: the file is damaged, or toynn does not support it: another architecture, a missing key, a key
            that changes what is computed, another tensor type. The message names the file and the reason.
        TinyNNMemoryError: there is not enough memory for the weights.
        OSError: the file cannot be read.
    """
    from concurrent.futures import ThreadPoolExecutor  # a slow import, not needed if a file is only mapped

    with GgufModel(path) as model, naming(model.path):
        described, halves = read_description(model)

        def read(weight: Weight) -> npt.NDArray[np.float32]:
            stored = read_rows(model, stored_names(weight, model.tensors))
            interleaved = weight.rotated_heads > 0 and not halves
            return to_halves(stored, weight.rotated_heads) if interleaved else stored

        listed = weights_of(described.shape)
        with ThreadPoolExecutor(nn.tnn_available_cores()) as threads:  # the calls of ggml run in parallel
            values = list(threads.map(read, listed))
        weights = {weight.name: one for weight, one in zip(listed, values, strict=True)}
        return TrainedModel(
            described.shape,
            weights,
            described.tokenizer,
            described.eos_id,
            described.bos_id,
            described.other_eos_ids,
            described.foreign,
        )


def read_description(model: GgufModel) -> tuple[ModelOnBase, bool]:
    """Return a model without its weights, and whether the rows of q and k have the order "halves".

    Raises FileFormatError, without the path, for a model that toynn does not support.
    """
    shape, halves = read_shape(model)
    tokenizer = read_gguf_tokenizer(model.values, shape.vocab, default="no_vocab" if _is_toy(model) else None)
    bos_id, ends = special_tokens(model.values, shape.vocab)
    foreign = _foreign(model.values, shape.vocab)
    described = ModelOnBase(
        shape,
        None,
        tokenizer,
        eos_id=ends[0] if ends else None,
        bos_id=bos_id,
        other_eos_ids=tuple(ends[1:]),
        foreign=foreign,
    )
    return described, halves


def read_shape(model: GgufModel) -> tuple[ModelShape, bool]:
    """Return the shape of a model, and whether the rows of q and k have the order "halves" (see `rope_order`).

    Everything but the tokenizer is checked. Raises FileFormatError, without the path, for a model that toynn does not
    support.
    """
    values = model.values
    if is_adapter(values):
        raise FileFormatError(
            "the file is an adapter, not a model; make a run from it with `toynn import FILE --base BASE --out RUN`"
        )
    if (arch := values.text("general.architecture")) not in FAMILIES:
        supported = ", ".join(repr(name) for name in FAMILIES)
        raise FileFormatError(f"general.architecture is {arch!r:.60}, but toynn supports only {supported}")
    toy = _is_toy(model)
    also_read = (*SCALING, *WINDOWS) if FAMILIES[arch].windows else SCALING
    _refuse_what_is_not_computed(values, arch, SCALING_KEYS if toy else tuple(f"{arch}.{name}" for name in also_read))
    cfg = _config(values, arch, model.tensors)
    zeros = _checked_names(model.tensors, cfg, toy)
    if toy:
        scaling = read_toy_scaling(values)
    else:
        factors = model.read(ROPE_FREQS) if ROPE_FREQS in model.tensors else None
        scaling = read_scaling(values, factors, cfg)
    for name in zeros:
        if (biases := model.read(name)).any():
            raise FileFormatError(
                f"the tensor {name!r} must contain only zeros, because toynn has no such bias, got "
                f"{biases[biases != 0][0]:g}"
            )
    return dataclasses.replace(cfg, rope_scaling=scaling), toy or not FAMILIES[arch].interleaved


def _is_toy(model: GgufModel) -> bool:
    return model.values.text("general.architecture") == "llama" and is_toy_file(model.values, model.tensors)


def _refuse_what_is_not_computed(values: GgufValues, arch: str, also_read: tuple[str, ...]) -> None:
    for key in values.keys():  # noqa: SIM118 (not a dict)
        if key.endswith(".block_count") and not key.startswith(f"{arch}."):
            raise FileFormatError(f"general.architecture is {arch!r}, but the file also has {key!r:.80}, a key of "
                                  "another architecture; a file must describe one model")  # fmt: skip
        name = key.removeprefix(f"{arch}.")
        if name == key or name in _READ or key in also_read:
            continue
        if name not in _ONLY:
            raise FileFormatError(
                f"toynn does not know the key {key!r:.80}, which may change what the model computes, so the file "
                "cannot be imported"
            )
        only, taken = _ONLY[name], values.any(key)
        if isinstance(taken, str) != isinstance(only, str) or taken != only:
            raise FileFormatError(f"{key} is {taken!r:.60}, but toynn supports only {only!r}")


def _config(values: GgufValues, arch: str, tensors: dict[str, GgufTensor]) -> ModelShape:
    """Return the shape without RoPE scaling. Refuse a number of layers for which the file has too few tensors."""
    if EMBEDDING not in tensors:
        raise FileFormatError(f"the tensor {EMBEDDING!r} is missing")
    d_model, n_heads = values.whole(f"{arch}.embedding_length"), values.whole(f"{arch}.attention.head_count")
    n_layers = values.whole(f"{arch}.block_count")
    if not 1 <= n_layers <= len(tensors) // FEWEST_PER_LAYER:
        raise FileFormatError(
            f"{arch}.block_count is {n_layers}, but the file has only {len(tensors)} tensors; "
            f"there must be at least one layer, and each needs {FEWEST_PER_LAYER} tensors"
        )
    if n_heads < 1:
        raise FileFormatError(f"{arch}.attention.head_count must be at least 1, got {n_heads}")
    check_heads(n_layers * n_heads, tensors)
    head_dim = values.whole(f"{arch}.attention.key_length", d_model // n_heads)
    for key in (f"{arch}.attention.value_length", f"{arch}.rope.dimension_count"):
        if (size := values.whole(key, head_dim)) != head_dim:
            raise FileFormatError(f"{key} must be {head_dim} (the size of a head of q and k), got {size}")
    vocab = tensors[EMBEDDING].shape[0]
    if (size := values.whole(f"{arch}.vocab_size", vocab)) != vocab:
        raise FileFormatError(f"{arch}.vocab_size is {size}, but {EMBEDDING} has {vocab} rows")
    scalar = score_scalar(d_model=d_model, n_heads=n_heads, head_dim=head_dim, n_layers=n_layers)
    return ModelShape(
        vocab=vocab,
        d_model=d_model,
        n_heads=n_heads,
        n_kv=values.whole(f"{arch}.attention.head_count_kv", n_heads),
        d_ff=values.whole(f"{arch}.feed_forward_length"),
        n_layers=n_layers,
        ctx=values.whole(f"{arch}.context_length"),
        rope_base=shortest(values.number(f"{arch}.rope.freq_base", 10000.0)),
        rms_eps=shortest(values.number(f"{arch}.attention.layer_norm_rms_epsilon")),
        head_dim=head_dim,
        architecture=arch,
        **{
            **variants_in(whole_names(tensors)),
            "no_rope_interval": FAMILIES[arch].no_rope_interval,
            **(read_windows(values, arch, scalar) if FAMILIES[arch].windows else {}),
            **ARCHITECTURES[arch],
        },
    )


def _checked_names(tensors: dict[str, GgufTensor], cfg: ModelShape, toy: bool) -> list[str]:
    """Check names and shapes. Return the tensors that toynn's models do not have and that must therefore be zero.

    These tensors are biases: Hugging Face's attention_bias adds a bias to more projections than qkv_bias of toynn.
    Raises FileFormatError if a tensor is missing or unknown, or has another shape.
    """
    expected = stored_sizes(cfg, tensors)
    if ROPE_FREQS in tensors and FAMILIES[cfg.architecture].freq_factors and not toy:
        expected[ROPE_FREQS] = (cfg.head_dim // 2,)
    foreign = {weight.name: weight.size for weight in foreign_weights_of(cfg) if weight.name in tensors}
    expected.update(foreign)
    for name in expected:
        if name not in tensors:
            raise FileFormatError(f"the tensor {name!r} is missing")
    for name, tensor in tensors.items():
        if name not in expected:
            raise FileFormatError(f"the tensor {name!r:.80} is not part of any model that toynn supports")
        if tensor.shape != expected[name]:
            turned = tensor.shape == expected[name][::-1]
            raise FileFormatError(
                f"the tensor {name!r} must have shape {expected[name]}, got {tensor.shape}"
                f"{'; the old layout of toy, with transposed matrices, cannot be read' if turned else ''}"
            )
    return list(foreign)


def _foreign(values: GgufValues, vocab: int) -> ForeignSettings:
    """Return the settings that toynn does not use, but that an export writes into the new file."""
    pad = "tokenizer.ggml.padding_token_id"
    return ForeignSettings(
        name=values.text("general.name", ""),
        license=values.text("general.license", ""),
        chat_template=values.text("tokenizer.chat_template", ""),
        pad_id=integer(pad, values.whole(pad), 0, vocab - 1) if pad in values else None,
        tokenizer_config=values.text("toynn.tokenizer_config", ""),
        generation_config=values.text("toynn.generation_config", "") or read_sampling(values),
    )


def read_rows(model: GgufModel, names: list[str]) -> npt.NDArray[np.float32]:
    """Return the rows of one or several tensors, one after the other, as f32."""
    parts = [model.read(name) for name in names]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

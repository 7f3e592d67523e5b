"""Export a model as a GGUF file for the Ruby project toy."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter

from toynn.arguments import instance_of, integer, label
from toynn.errors import TinyNNValueError
from toynn.interop.gguf_export import GgufExport, new_gguf, new_path
from toynn.interop.lens import folded
from toynn.interop.toy_format import FORMAT, FORMAT_1, N_PARAMS, NAME, NATIVE, toy_scaling
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weights_of

_UINT32_MAX = 2**32 - 1


def export_toy(
    model: TrainedModel, path: Path, *, run_id: str = "", step: int = 0, overwrite: bool = False
) -> GgufExport:
    """Write a model as a GGUF file for toy: float32, the rows of q and k in toynn's order, without a tokenizer.

    The keys and tensors are those of toy's own checkpoints, in the same order. If the head size is not d_model /
    n_heads, or if the model has RoPE scaling, toy's keys for these settings are added. A projection lens is folded into
    the embedding in float64. Other programs, such as llama.cpp, expect another order of the rows. They refuse the file,
    because it has no tokenizer.

    Args:
        run_id, step: the name of the run and the training step of the model, for the keys `general.run_id` and
            `general.step`.
        overwrite: replace an existing file.

    Raises:
        TinyNNValueError: the file exists and `overwrite` is false, or the path is a pipe or a device; or toy does not
            have the architecture or the RoPE scaling of the model.
        TinyNNTypeError: an argument has the wrong type. OSError: the file cannot be written.
    """
    instance_of("model", model, TrainedModel)
    run = label("run_id", run_id).decode("utf-8")
    step = integer("step", step, 0, _UINT32_MAX)
    path = new_path(path, overwrite)
    plain = folded(model)
    if plain.shape.architecture != "llama":
        raise TinyNNValueError(
            f"the architecture {plain.shape.architecture!r} cannot be exported for toy, which supports only 'llama'"
        )
    scaling = toy_scaling(plain.shape.rope_scaling)
    weights = weights_of(plain.shape)
    with new_gguf(path, "llama", overwrite) as writer:
        writer.add_string("general.name", NAME)
        writer.add_string("general.run_id", run)
        writer.add_uint32("general.step", step)
        _write_sizes(writer, plain.shape)
        for key, value in scaling.items():
            if isinstance(value, str):
                writer.add_string(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            else:
                writer.add_float32(key, value)
        writer.add_string(FORMAT, FORMAT_1)
        writer.add_uint32(N_PARAMS, len(weights))
        writer.add_bool(NATIVE, True)
        for weight in weights:
            writer.add_tensor(weight.name, plain.weights[weight.name])
    notes = [] if model.tokenizer is None else ["a file for toy has no tokenizer: give toy token ids"]
    return GgufExport(path, path.stat().st_size, {weight.name: "F32" for weight in weights}, tuple(notes))


def _write_sizes(writer: GGUFWriter, shape: ModelShape) -> None:
    writer.add_vocab_size(shape.vocab)
    writer.add_embedding_length(shape.d_model)
    writer.add_feed_forward_length(shape.d_ff)
    writer.add_block_count(shape.n_layers)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv)
    writer.add_context_length(shape.ctx)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_rope_freq_base(shape.rope_base)
    if shape.head_dim * shape.n_heads != shape.d_model:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)

"""LoRA adapters as GGUF files, which llama.cpp loads beside the base."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from toynn.arguments import FLOAT32_MAX, instance_of, label
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.adapter_tensors import StoredMatrix, read_matrices
from toynn.interop.families import FAMILIES
from toynn.interop.file_errors import naming
from toynn.interop.gguf_export import GgufExport, new_gguf, new_path
from toynn.interop.gguf_header import GgufValues, is_adapter, shortest
from toynn.interop.gguf_model import GgufModel
from toynn.interop.gguf_own_keys import ADAPTER_ALPHA, USE_RSLORA
from toynn.interop.rope_order import to_halves, to_interleaved
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.shape import ModelShape
from toynn.model.weights import ADAPTER_B, Weight

_KIND, _ALPHA = "adapter.type", "adapter.lora.alpha"
_DESCRIPTIONS = ("adapter.lora.task_name", "adapter.lora.prompt_prefix")  # these keys do not change any result


def export_gguf_adapter(
    adapter: TrainedAdapter, path: Path, *, name: str | None = None, overwrite: bool = False
) -> GgufExport:
    """Write an adapter as a GGUF file for llama.cpp, which loads it beside the base (`--lora`).

    The matrices are F32. In architectures with interleaved rows, the matrices B of q and k have the row order of the
    base in llama.cpp. llama.cpp always uses the scale alpha / rank. For an adapter with `use_rslora`, the file
    therefore contains another alpha, which gives the right scale in llama.cpp, and the original alpha under a key of
    toynn. The file is written under another name and renamed when it is complete.

    Args:
        name: the name of the adapter in the file. Default: the name of the file.
        overwrite: replace an existing file.

    Raises:
        TinyNNValueError: the file exists and `overwrite` is False, the path is a pipe or a device, or the scale does
            not fit f32.
        TinyNNTypeError: an argument has the wrong type. OSError: the file cannot be written.
    """
    instance_of("adapter", adapter, TrainedAdapter)
    path = new_path(path, overwrite)
    spec, arch = adapter.spec, adapter.shape.architecture
    with np.errstate(over="ignore"):
        alpha = np.float32(spec.scale * spec.rank)
    if not (np.isfinite(alpha) and alpha > 0):
        raise TinyNNValueError(
            f"alpha = {spec.alpha:g} gives a scale of {spec.scale:g}, which does not fit f32; use a smaller alpha"
        )
    with new_gguf(path, arch, overwrite) as writer:
        writer.add_type("adapter")
        writer.add_name(path.stem if name is None else label("name", name).decode("utf-8"))
        writer.add_string(_KIND, "lora")
        writer.add_float32(_ALPHA, float(alpha))
        if spec.use_rslora or shortest(float(alpha)) != spec.alpha:
            writer.add_float64(ADAPTER_ALPHA, spec.alpha)
            writer.add_bool(USE_RSLORA, spec.use_rslora)
        for weight in spec.weights(adapter.shape):
            values = adapter.tensors[weight.name]
            writer.add_tensor(weight.name, to_interleaved(values, weight.rotated_heads) if _turns(weight) else values)
    return GgufExport(path, path.stat().st_size, dict.fromkeys(adapter.tensors, "F32"), ())


def import_gguf_adapter(path: Path, shape: ModelShape) -> TrainedAdapter:
    """Return the LoRA adapter in a GGUF file, for a base of this shape. All matrices become f32.

    All matrices of the adapter must have the same rank, and each target must have matrices in each layer of the base. A
    file without alpha has the scale 1, as in llama.cpp.

    Raises:
        FileFormatError: the file is damaged, is not such an adapter, or belongs to another base. The message names the
            file and the reason.
        TinyNNTypeError: an argument has the wrong type.
        TinyNNMemoryError: there is not enough memory. OSError: the file cannot be read.
    """
    instance_of("shape", shape, ModelShape)
    with GgufModel(path) as file, naming(file.path):
        _check_kind(file.values, shape.architecture)
        stored = {
            name: StoredMatrix(one.shape, functools.partial(file.read, name)) for name, one in file.tensors.items()
        }
        spec, tensors = read_matrices(
            stored, shape, lambda weight: weight.name, lambda rank, targets: _spec(file.values, rank, targets)
        )
        for weight in spec.weights(shape):
            if _turns(weight):
                tensors[weight.name] = to_halves(tensors[weight.name], weight.rotated_heads)
        return TrainedAdapter(spec, shape, tensors)


def _turns(weight: Weight) -> bool:
    """Return whether the rows of a matrix have another order in a file for llama.cpp."""
    interleaved = FAMILIES[weight.shape.architecture].interleaved
    return weight.adapter == ADAPTER_B and weight.rotated_heads > 0 and interleaved


def _check_kind(values: GgufValues, architecture: str) -> None:
    if not is_adapter(values):
        raise FileFormatError(
            "the file is not an adapter: its key general.type must be 'adapter', got "
            f"{values.text('general.type', '')!r:.60}"
        )
    if (kind := values.text(_KIND)) != "lora":
        raise FileFormatError(f"{_KIND} is {kind!r:.60}, but toynn supports only 'lora'")
    if (found := values.text("general.architecture")) != architecture:
        raise FileFormatError(
            f"the adapter is for the architecture {found!r:.60}, but the base has the architecture {architecture!r}"
        )
    for key in values.keys():  # noqa: SIM118 (not a dict)
        if key.startswith("adapter.") and key not in (_KIND, _ALPHA, *_DESCRIPTIONS):
            raise FileFormatError(
                f"toynn does not know the key {key!r:.80}, which may change what the adapter computes, so the file "
                "cannot be imported"
            )


def _spec(values: GgufValues, rank: int, targets: tuple[str, ...]) -> AdapterSpec:
    alpha = values.number(_ALPHA, 0.0) or float(rank)
    if ADAPTER_ALPHA not in values:
        return AdapterSpec(rank=rank, alpha=shortest(alpha), use_rslora=False, targets=targets)
    own = values.number(ADAPTER_ALPHA)
    spec = AdapterSpec(rank=rank, alpha=own, use_rslora=values.flag(USE_RSLORA, False), targets=targets)
    if np.float64(alpha) != np.float32(min(spec.scale * rank, FLOAT32_MAX)):
        raise FileFormatError(
            f"{ADAPTER_ALPHA} is {own:g}, which contradicts {_ALPHA} = {alpha:g}; export the adapter again"
        )
    return spec

"""LoRA adapters as folders of PEFT, Hugging Face's library for adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toynn.arguments import boolean, instance_of, label, positive
from toynn.errors import FileFormatError
from toynn.interop.adapter_tensors import StoredMatrix, read_matrices
from toynn.interop.file_errors import naming
from toynn.interop.hf_export import may_be_written, write_json
from toynn.interop.safetensors_header import stored_tensors
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.shape import ModelShape
from toynn.model.weights import ADAPTABLE, ADAPTER_A, Weight
from toynn.storage.durable_files import replacing_folder
from toynn.storage.json_files import read_json
from toynn.storage.regular_files import path_of
from toynn.storage.tensor_files import write_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_WHOLE = ".base_layer.weight"  # base weights that PEFT saves beside the adapter have names that end with this text
# Keys that change what is computed, each with the only value that toynn supports, which is also PEFT's default.
_ONLY: dict[str, Any] = {"peft_type": "LORA", "fan_in_fan_out": False, "bias": "none"}
_READ = ("r", "lora_alpha", "use_rslora", "target_modules", "init_lora_weights", *_ONLY)
# Initializations of the adapter that leave the base unchanged. Others, such as "pissa", change the weights of the base.
_INITIAL = (True, False, "gaussian", "orthogonal")
# Keys that change neither what the adapter computes nor its matrices. Dropout has an effect only in PEFT's training.
_IGNORED = (
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "megatron_core", "layers_pattern", "qalora_group_size", "exclude_modules", "ensure_weight_tying",
)  # fmt: skip


def export_peft(adapter: TrainedAdapter, folder: Path, *, base: str | None = None, overwrite: bool = False) -> Path:
    """Write an adapter as a folder for `peft.PeftModel.from_pretrained`, and return its path.

    The matrices are F32. The folder is written under another name and renamed when it is complete, so an old folder
    stays unchanged until then.

    Args:
        base: the name or path of the base in Hugging Face's format, for `base_model_name_or_path`.
        overwrite: replace an existing folder. A folder that contains any other file is never changed.

    Raises:
        TinyNNValueError: the folder exists and `overwrite` is False.
        TinyNNTypeError: an argument has the wrong type. OSError: the folder cannot be written.
    """
    instance_of("adapter", adapter, TrainedAdapter)
    named = None if base is None else label("base", base).decode("utf-8")
    folder = path_of("folder", folder).resolve()
    may_be_written(folder, (CONFIG, WEIGHTS), boolean("overwrite", overwrite))
    spec = adapter.spec
    weights = {_name_of(weight): adapter.tensors[weight.name] for weight in spec.weights(adapter.shape)}
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": named,
        "inference_mode": True,
        "r": spec.rank,
        "lora_alpha": int(spec.alpha) if spec.alpha.is_integer() else spec.alpha,
        "use_rslora": spec.use_rslora,
        "target_modules": [ADAPTABLE[key] for key in spec.targets],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "layers_to_transform": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_dora": False,
    }
    with replacing_folder(folder, check=lambda: may_be_written(folder, (CONFIG, WEIGHTS), overwrite)) as temporary:
        write_tensors(temporary / WEIGHTS, weights, metadata={"format": "pt"})
        write_json(temporary / CONFIG, config)
    return folder


def import_peft(folder: Path, shape: ModelShape) -> TrainedAdapter:
    """Return the LoRA adapter in a folder of PEFT, for a base of this shape. Matrices in F16 and BF16 become f32.

    All matrices of the adapter must have the same rank, and each target must have matrices in each layer of the base.
    If adapter_config.json has another key that changes what is computed, the error names this key.

    Raises:
        FileFormatError: toynn cannot read a file or does not support the adapter, or it belongs to another base. The
            message names the file and the reason.
        TinyNNTypeError: an argument has the wrong type.
        TinyNNMemoryError: there is not enough memory. OSError: a file cannot be read.
    """
    instance_of("shape", shape, ModelShape)
    folder = path_of("folder", folder)
    if not is_peft_folder(folder):
        raise FileFormatError(f"{folder} is not a folder of PEFT: it contains no {CONFIG}")
    config = read_json(folder / CONFIG)
    with naming(folder / CONFIG):
        _check_config(config)
    if not (folder / WEIGHTS).exists():
        pickle = "; toynn does not load pickle files (*.bin), so save the adapter with safe_serialization=True"
        raise FileFormatError(f"{folder} contains no {WEIGHTS}{pickle if (folder / _PICKLE).exists() else ''}")
    with naming(folder / WEIGHTS):
        stored = stored_tensors(folder / WEIGHTS)
        if (whole := next((name for name in stored if name.endswith(_WHOLE)), None)) is not None:
            raise FileFormatError(
                f"the tensor {whole!r:.120} is a weight of the base, not of the adapter; save the adapter with "
                "save_embedding_layers=False"
            )
    with naming(folder):
        matrices = {name: StoredMatrix(tensor.shape, tensor.read) for name, tensor in stored.items()}
        spec, tensors = read_matrices(matrices, shape, _name_of, lambda rank, targets: _spec(config, rank, targets))
        return TrainedAdapter(spec, shape, tensors)


def is_peft_folder(path: Path) -> bool:
    """Return whether the path is a folder with an adapter of PEFT."""
    return (path / CONFIG).is_file()


def _name_of(weight: Weight) -> str:
    """Return PEFT's name of a matrix of an adapter."""
    part = "lora_A" if weight.adapter == ADAPTER_A else "lora_B"
    return f"base_model.model.{weight.hf_name.removesuffix('.weight')}.{part}.weight"


def _check_config(config: Any) -> None:
    if not isinstance(config, dict):
        raise FileFormatError(f"the content must be a JSON object, got {type(config).__name__}")
    for key, only in _ONLY.items():
        found = config.get(key, only)
        if type(found) is not type(only) or found != only:
            raise FileFormatError(f"{key} is {found!r:.60}, but toynn supports only {only!r}")
    initial = config.get("init_lora_weights", True)
    if initial is not None and not any(initial == one for one in _INITIAL):
        raise FileFormatError(
            f"init_lora_weights is {initial!r:.60}, which changes the weights of the base; convert the adapter to "
            "plain LoRA with PEFT"
        )
    for key, value in config.items():
        if key not in _READ and key not in _IGNORED and value not in (None, False, 0, "", [], {}):
            raise FileFormatError(
                f"toynn does not support {key!r:.60}, which is {value!r:.60}; it must be null or false"
            )


def _spec(config: dict[str, Any], rank: int, targets: tuple[str, ...]) -> AdapterSpec:
    """Return the specification that the configuration describes, which must fit the matrices."""
    found = config.get("r")
    if found != rank or isinstance(found, bool):
        raise FileFormatError(
            f"r is {found!r:.60} in {CONFIG}, but the matrices in {WEIGHTS} have rank {rank}; both must be equal"
        )
    named, modules = config.get("target_modules"), {ADAPTABLE[key] for key in targets}
    # If target_modules is a string, it is a pattern, and the file contains the matrices that the pattern selected. If
    # it is a list, it contains names of modules. Such a name may begin with the path of the module.
    if not isinstance(named, str) and (not isinstance(named, list) or set(map(_module, named)) != modules):
        raise FileFormatError(
            f"target_modules is {named!r:.120} in {CONFIG}, but {WEIGHTS} has matrices for "
            f"{', '.join(sorted(modules))}; both must name the same modules"
        )
    return AdapterSpec(
        rank=rank,
        alpha=positive("lora_alpha", config.get("lora_alpha")),
        use_rslora=boolean("use_rslora", config.get("use_rslora", False)),
        targets=targets,
    )


def _module(name: object) -> str:
    return name.rpartition(".")[2] if isinstance(name, str) else repr(name)

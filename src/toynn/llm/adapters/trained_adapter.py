"""TrainedAdapter: an adapter as plain values, in the form in which it is saved, exported and imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toynn.arguments import instance_of, not_finite, same_weights, sha256_digest
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.spec import AdapterSpec
from toynn.model.shape import ModelShape


@dataclass(frozen=True)
class BaseModel:
    """The model that an adapter belongs to.

    path: the GGUF file, Hugging Face folder or checkpoint with its weights.
    sha256: the SHA-256 of the file or, for a folder, of a list with the SHA-256 of each of its files.
    """

    path: Path
    sha256: str

    def __post_init__(self) -> None:
        instance_of("path", self.path, Path)
        sha256_digest("sha256", self.sha256)


@dataclass(frozen=True)
class TrainedAdapter(Initialised):
    """The matrices of a low-rank adapter, without a session or moments.

    spec: the rank, scale and targets of the adapter.
    shape: the shape of the base.
    tensors: each matrix by name, float32, in the order of `spec.weights(shape)`. A weight X of the base has
        X.lora_a (rank, d_in) and X.lora_b (d_out, rank). The rows of q and k are in toynn's order.
    base: the base that the adapter was trained on, or None if the base is not known.

    Raises TinyNNTypeError or TinyNNValueError, which name the field or the matrix. A matrix is refused if it is missing
    or unknown, has another shape or dtype, or contains a number that is not finite.
    """

    spec: AdapterSpec
    shape: ModelShape
    tensors: dict[str, npt.NDArray[np.float32]]
    base: BaseModel | None = None

    def __post_init__(self) -> None:
        instance_of("spec", self.spec, AdapterSpec)
        instance_of("shape", self.shape, ModelShape)
        instance_of("tensors", self.tensors, dict)
        if not isinstance(self.base, BaseModel | None):
            raise TinyNNTypeError(f"base must be a BaseModel or None, got {type(self.base).__name__}")
        sizes = {weight.name: weight.size for weight in self.spec.weights(self.shape)}
        same_weights(self.tensors, sizes)
        for name, size in sizes.items():
            values = self.tensors[name]
            if not isinstance(values, np.ndarray) or values.dtype != np.float32:
                kind = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
                raise TinyNNTypeError(f"{name} must be an array of float32, got {kind}")
            if values.shape != size:
                raise TinyNNValueError(
                    f"{name} must have shape {size}, got {values.shape}: the adapter belongs to another base, or has "
                    "another rank"
                )
            if (wrong := not_finite(values)) is not None:
                raise TinyNNValueError(f"{name} must hold only finite numbers, got {wrong}")
        object.__setattr__(self, "tensors", {name: self.tensors[name] for name in sizes})

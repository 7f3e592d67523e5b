"""Read the matrices of a low-rank adapter from a file of any format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.errors import FileFormatError
from toynn.llm.adapters.spec import AdapterSpec
from toynn.model.shape import ModelShape
from toynn.model.weights import ADAPTABLE, Weight, adapter_weights_of, weights_of

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StoredMatrix:
    """A tensor of a file. read: returns its values as f32."""

    shape: tuple[int, ...]
    read: Callable[[], Floats]


def read_matrices(
    stored: Mapping[str, StoredMatrix],
    shape: ModelShape,
    name_of: Callable[[Weight], str],
    spec_of: Callable[[int, tuple[str, ...]], AdapterSpec],
) -> tuple[AdapterSpec, dict[str, Floats]]:
    """Return the specification of an adapter, and its matrices by toynn's names, with their rows as in the file.

    Args:
        stored: the tensors of the file, by name.
        shape: the shape of the base.
        name_of: returns the name of a matrix of an adapter in the file.
        spec_of: returns the specification for a rank and targets.

    Raises FileFormatError or TinyNNValueError for tensors that are not an adapter of one rank on every layer of this
    base.
    """
    in_base = {weight.row.key for weight in weights_of(shape)}
    possible = {name_of(weight): weight for weight in adapter_weights_of(shape, in_base & set(ADAPTABLE), 1)}
    for name in stored:
        if name not in possible:
            raise FileFormatError(
                f"the tensor {name!r:.120} does not belong to a LoRA adapter of this base: the base has n_layers = "
                f"{shape.n_layers}, and can have adapters on {', '.join(ADAPTABLE.values())}"
            )
    targets = dict.fromkeys(weight.row.key for name, weight in possible.items() if name in stored)
    if not targets:
        raise FileFormatError("the adapter must have tensors, got none")
    first = next(name for name, weight in possible.items() if weight.row.key in targets)
    spec = spec_of(_rank(stored, first), tuple(targets))
    tensors = {}
    for weight in spec.weights(shape):
        tensors[weight.name] = _checked(stored, name_of(weight), weight.size).read()
    return spec, tensors


def _rank(stored: Mapping[str, StoredMatrix], name: str) -> int:
    if name not in stored:
        raise FileFormatError(_missing(name))
    size = stored[name].shape
    if len(size) != 2:
        raise FileFormatError(f"the tensor {name!r} must have two dimensions, got shape {size}")
    return size[0]


def _missing(name: str) -> str:
    return f"the tensor {name!r} is missing; toynn needs both matrices of an adapter, and an adapter on every layer"


def _checked(stored: Mapping[str, StoredMatrix], name: str, size: tuple[int, ...]) -> StoredMatrix:
    if name not in stored:
        raise FileFormatError(_missing(name))
    found = stored[name]
    if found.shape != size:
        raise FileFormatError(
            f"the tensor {name!r} must have shape {size}, got {found.shape}: the adapter belongs to another base, or "
            "its matrices have different ranks"
        )
    return found

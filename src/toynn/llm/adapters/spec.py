"""AdapterSpec: which matrices of a model have a low-rank adapter, and the rank and scale of the adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from toynn.arguments import FloatArray, boolean, integer, kind_of, positive, text
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.shape import ModelShape
from toynn.model.weights import ADAPTABLE, ADAPTER_A, Weight, adapter_weights_of

_STREAM = 2**32 - 1  # the data order uses the same seed, so adapters need a stream of random numbers of their own
_KEY_OF_NAME = {**{name: key for key, name in ADAPTABLE.items()}, **{key: key for key in ADAPTABLE}}


@dataclass(frozen=True)
class AdapterSpec:
    """A LoRA adapter: each target matrix W computes y = W x + scale * B (A x), with A (rank, d_in) and B (d_out, rank).

    rank: the rank of all matrices.
    alpha: the numerator of the scale.
    use_rslora: the scale is alpha / sqrt(rank) (rsLoRA) instead of alpha / rank.
    targets: the keys of the adapted matrices in the order of `ADAPTABLE`, for example ("q", "v"). The names of Hugging
        Face's modules, for example "q_proj", are accepted too and converted.

    Raises TinyNNTypeError or TinyNNValueError, which name the field.
    """

    rank: int
    alpha: float
    use_rslora: bool
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", integer("rank", self.rank, 1))
        object.__setattr__(self, "alpha", positive("alpha", self.alpha))
        object.__setattr__(self, "use_rslora", boolean("use_rslora", self.use_rslora))
        object.__setattr__(self, "targets", target_keys(self.targets))

    @property
    def scale(self) -> float:
        """The factor of B (A x)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def weights(self, shape: ModelShape) -> list[Weight]:
        """Return the matrices of the adapter in the order of declaration, for each target A and then B.

        Raises TinyNNValueError, which names the matrix, if the model lacks a target, or if the rank is too large.
        """
        return adapter_weights_of(shape, self.targets, self.rank)

    def initial(self, shape: ModelShape, seed: int) -> dict[str, FloatArray]:
        """Return the initial values of the matrices by name, as PEFT chooses them.

        A is uniform between -1/sqrt(d_in) and 1/sqrt(d_in), from one stream of random numbers for all matrices; B is 0.

        Raises TinyNNValueError or TinyNNTypeError for the seed. Also raises the errors of `weights`.
        """
        draw = np.random.Generator(np.random.PCG64([integer("seed", seed, 0, 2**63 - 1), _STREAM]))
        values = {}
        for weight in self.weights(shape):
            uniform = np.zeros(weight.size)
            if weight.adapter == ADAPTER_A:
                uniform = (2.0 * draw.random(weight.size) - 1.0) / math.sqrt(weight.size[1])
            values[weight.name] = uniform.astype(np.float32)
        return values


def target_keys(names: object, name: str = "targets") -> tuple[str, ...]:
    """Return the keys of matrices that are given as keys ("q") or as names of Hugging Face's modules ("q_proj").

    The result has the order of `ADAPTABLE`. name: the name of the argument in messages.

    Raises TinyNNTypeError if `names` is not a list or tuple of str, or TinyNNValueError if a name is unknown or
    repeated, or if `names` is empty.
    """
    if not isinstance(names, list | tuple):
        raise TinyNNTypeError(f"{name} must be a list of names of matrices, got {kind_of(names)}")
    found = []
    for i, one in enumerate(names):
        key = _KEY_OF_NAME.get(text(f"{name}[{i}]", one))
        if key is None:
            raise TinyNNValueError(f"{name}[{i}] must be one of {', '.join(_KEY_OF_NAME)}, got {one!r:.60}")
        if key in found:
            raise TinyNNValueError(f"{name} must name each matrix once, got {key!r} twice")
        found.append(key)
    if not found:
        raise TinyNNValueError(f"{name} must name at least one matrix; the matrices are {', '.join(ADAPTABLE)}")
    return tuple(key for key in ADAPTABLE if key in found)

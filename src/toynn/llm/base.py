"""Base: the model that fine-tuning starts from, or that stays frozen beside adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from toynn.arguments import FloatArray, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import Weight
from toynn.tinynn import Session, Tensor


class StoredWeights(ABC):
    """The weights of a base in its own types.

    interleaved: whether RoPE pairs row 2i of a head of q and k with row 2i + 1, as in the GGUF files of llama.cpp.
        Otherwise RoPE pairs row i with row i + d_head/2, as everywhere else in toynn.
    """

    interleaved: bool

    @abstractmethod
    def declare(self, session: Session, weight: Weight) -> Tensor | None:
        """Declare a weight, or one head of it, as a persistent tensor that has its values already.

        Returns None for a weight that must be declared in F32 and set to `values`.
        """

    @abstractmethod
    def values(self, weight: Weight) -> FloatArray:
        """Return a weight, or one head of it, as float32 in its shape, with its rows in the order of the base."""


class Base(Initialised, ABC):
    """A model with its weights.

    shape: its sizes and variants.
    """

    shape: ModelShape

    @abstractmethod
    def values(self, weight: Weight) -> FloatArray:
        """Return a weight, or one head of it, as float32 in its shape. The rows of q and k are in toynn's order."""

    @abstractmethod
    def stored(self, copy: bool, in_order: bool = False) -> StoredWeights | None:
        """Return the weights in the types of a file, mapped or as a copy in memory. Return None if the base is not a
        file.

        in_order: whether operators must read the rows of q and k in toynn's order, as in the fused layout.
        """


class LoadedBase(Base):
    """A model in memory, whose weights are f32."""

    def __init__(self, model: TrainedModel) -> None:
        self.shape, self._weights = model.shape, model.weights

    def values(self, weight: Weight) -> FloatArray:
        values = self._weights[weight.whole]
        if weight.head is None:
            return values
        rows = weight.size[0]
        return values[weight.head * rows : (weight.head + 1) * rows]

    def stored(self, copy: bool, in_order: bool = False) -> StoredWeights | None:  # noqa: ARG002 (they are f32 already)
        return None


def base_of(gguf: object) -> Base:
    """Return the argument `gguf` as a base. Raises TinyNNTypeError if it is neither a base nor a TrainedModel."""
    if isinstance(gguf, Base):
        return gguf
    if isinstance(gguf, TrainedModel):
        return LoadedBase(gguf)
    raise TinyNNTypeError(f"gguf must be a GgufBase or a TrainedModel, got {kind_of(gguf)}")


def values_of(base: Base, stored: StoredWeights | None) -> Callable[[Weight], FloatArray]:
    """Return a function that returns the values of a weight in the order of rows that operators read.

    stored: the result of `Base.stored`.
    """
    return base.values if stored is None else stored.values


def checked_shape(base: Base, cfg: ModelShape) -> ModelShape:
    """Return cfg, after a check that it differs from the shape of the base only in the context length.

    Raises TinyNNValueError, which names the field that differs.
    """
    if cfg.donor_d_in:
        raise TinyNNValueError(f"donor_d_in must be 0 for a model on a base, got {cfg.donor_d_in}")
    if (name := cfg.differing_field(base.shape, ignored="ctx")) is not None:
        raise TinyNNValueError(
            f"{name} must be {getattr(base.shape, name)!r}, as in the base, got {getattr(cfg, name)!r}"
        )
    return cfg

"""Base: the model that fine-tuning starts from, or that stays frozen beside adapters."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

from toynn.arguments import FloatArray, kind_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.llm.parameters import Parameters
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import Weight


class Base(ABC):
    """A model with its weights.

    shape: its sizes and variants.
    """

    shape: ModelShape

    @abstractmethod
    def values(self, weight: Weight) -> FloatArray:
        """Return a weight, or one head of it, as f32 of its size. The rows of q and k are in halves order."""

    def upload_to(self, parameters: Parameters) -> None:
        """Set all weights of a model, except those of its adapters."""
        for name, one in parameters.by_name.items():
            if not one.weight.adapter:
                parameters.upload(name, self.values(one.weight))


class LoadedBase(Base):
    """A model in memory."""

    def __init__(self, model: TrainedModel) -> None:
        self.shape, self._weights = model.shape, model.weights

    def values(self, weight: Weight) -> FloatArray:
        values = self._weights[weight.whole]
        if weight.head is None:
            return values
        rows = weight.size[0]
        return values[weight.head * rows : (weight.head + 1) * rows]


def base_of(gguf: object) -> Base:
    """Return the base for the argument `gguf`. Raises TinyNNTypeError."""
    if isinstance(gguf, TrainedModel):
        return LoadedBase(gguf)
    raise TinyNNTypeError(f"gguf must be a TrainedModel, got {kind_of(gguf)}")


def checked_shape(base: Base, cfg: ModelShape) -> ModelShape:
    """Check that cfg differs from the shape of the base in the context length only, and return it.

    Raises TinyNNValueError, which names the field that differs.
    """
    if cfg.donor_d_in:
        raise TinyNNValueError(f"donor_d_in must be 0 for a model on a base, got {cfg.donor_d_in}")
    for field in dataclasses.fields(cfg):
        given, own = getattr(cfg, field.name), getattr(base.shape, field.name)
        if field.name != "ctx" and given != own:
            raise TinyNNValueError(f"{field.name} must be {own!r}, that of the base, got {given!r}")
    return cfg

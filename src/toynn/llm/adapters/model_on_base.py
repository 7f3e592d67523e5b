"""ModelOnBase: a model whose weights are those of a base, with an adapter or without one, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from toynn.arguments import instance_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.foreign_settings import NO_SETTINGS, ForeignSettings
from toynn.model.shape import ModelShape
from toynn.model.trained_model import DescribedModel, TrainedModel


@dataclass(frozen=True)
class ModelOnBase(DescribedModel):
    """A model without the weights of its base. The fields are those of `TrainedModel`, except:

    adapter: the adapter on the base, or None if the model is the base itself.

    Raises TinyNNTypeError or TinyNNValueError, which name the field.
    """

    shape: ModelShape
    adapter: TrainedAdapter | None
    tokenizer: bytes | None
    eos_id: int | None = None
    bos_id: int | None = None
    other_eos_ids: tuple[int, ...] = ()
    foreign: ForeignSettings = NO_SETTINGS

    def __post_init__(self) -> None:
        instance_of("shape", self.shape, ModelShape)
        if not isinstance(self.adapter, TrainedAdapter | None):
            raise TinyNNTypeError(f"adapter must be a TrainedAdapter or None, got {type(self.adapter).__name__}")
        if self.adapter is not None and self.adapter.shape != self.shape:
            raise TinyNNValueError(f"shape must equal adapter.shape = {self.adapter.shape}, got {self.shape}")
        self._check_description()


AnyModel: TypeAlias = TrainedModel | ModelOnBase


def without_weights(model: AnyModel) -> ModelOnBase:
    """Return the description of a model: its shape, tokenizer and special tokens."""
    return ModelOnBase(
        model.shape, None, model.tokenizer, model.eos_id, model.bos_id, model.other_eos_ids, model.foreign
    )


def adapter_of(model: AnyModel) -> TrainedAdapter | None:
    """Return the adapter of a model, or None for a model without one."""
    return model.adapter if isinstance(model, ModelOnBase) else None

"""TrainedModel: a model as plain values, in the form in which it is saved, exported and imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import instance_of, integer, not_finite, same_weights
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.model.foreign_settings import NO_SETTINGS, ForeignSettings
from toynn.model.shape import ModelShape
from toynn.model.weights import weight_shapes
from toynn.tinynn.memory import want_memory


class DescribedModel(Initialised):
    """The base class of models as plain values: the fields of `TrainedModel` without the weights."""

    shape: ModelShape
    tokenizer: bytes | None
    eos_id: int | None
    bos_id: int | None
    other_eos_ids: tuple[int, ...]
    foreign: ForeignSettings

    def _check_description(self) -> None:
        if not isinstance(self.tokenizer, bytes | None):
            raise TinyNNTypeError(
                f"tokenizer must be the bytes of a tokenizer.json, or None, got {type(self.tokenizer).__name__}"
            )
        for name in ("eos_id", "bos_id"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, integer(name, value, 0, self.shape.vocab - 1))
        object.__setattr__(self, "other_eos_ids", self._checked_others())
        if not isinstance(self.foreign, ForeignSettings):
            raise TinyNNTypeError(f"foreign must be a ForeignSettings, got {type(self.foreign).__name__}")

    def _checked_others(self) -> tuple[int, ...]:
        if not isinstance(self.other_eos_ids, Sequence) or isinstance(self.other_eos_ids, str | bytes):
            raise TinyNNTypeError(
                f"other_eos_ids must be a sequence of token ids, got {type(self.other_eos_ids).__name__}"
            )
        if len(self.other_eos_ids) > self.shape.vocab:
            raise TinyNNValueError(
                f"other_eos_ids must have at most {self.shape.vocab} tokens, got {len(self.other_eos_ids)}"
            )
        others = (integer("other_eos_ids", token, 0, self.shape.vocab - 1) for token in self.other_eos_ids)
        return tuple(dict.fromkeys(token for token in others if token != self.eos_id))

    @property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens at which generation ends, `eos_id` first."""
        return self.other_eos_ids if self.eos_id is None else (self.eos_id, *self.other_eos_ids)


@dataclass(frozen=True)
class TrainedModel(DescribedModel):
    """A model's shape, weights and tokenizer, without a session or moments.

    weights: every weight of the fused layout by name, float32, with the shapes of `weight_shapes(shape)`.
    tokenizer: the content of a tokenizer.json, or None.
    eos_id: the token that ends a document.
    bos_id: the token with which a document can start. None: there is no such token.
    other_eos_ids: other tokens at which generation ends.
    foreign: settings of an imported model that exports write back.

    Raises TinyNNTypeError or TinyNNValueError, which name the field or the weight. A weight is refused if it is missing
    or unknown, has another shape or dtype, or contains a number that is not finite.
    """

    shape: ModelShape
    weights: dict[str, npt.NDArray[np.float32]]
    tokenizer: bytes | None
    eos_id: int | None = None
    bos_id: int | None = None
    other_eos_ids: tuple[int, ...] = ()
    foreign: ForeignSettings = NO_SETTINGS

    def __post_init__(self) -> None:
        instance_of("shape", self.shape, ModelShape)
        instance_of("weights", self.weights, dict)
        self._check_description()
        # This is checked before weight_shapes() makes a name for each weight of n_layers layers.
        if self.shape.n_layers > len(self.weights):
            raise TinyNNValueError(
                f"weights must have at least one array for each of the {self.shape.n_layers} layers, got "
                f"{len(self.weights)}"
            )
        shapes = weight_shapes(self.shape)
        same_weights(self.weights, shapes)
        for name, shape in shapes.items():
            _fits(name, self.weights[name], shape)
        object.__setattr__(self, "weights", {name: self.weights[name] for name in shapes})


def _fits(name: str, values: object, shape: tuple[int, ...]) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        kind = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise TinyNNTypeError(f"{name} must be an array of float32, got {kind}")
    if values.shape != shape:
        raise TinyNNValueError(f"{name} must have shape {shape}, got {values.shape}")
    want_memory(name, values.size, f"a check of {values.size} numbers")
    if (wrong := not_finite(values)) is not None:
        raise TinyNNValueError(f"{name} must hold only finite numbers, got {wrong}")

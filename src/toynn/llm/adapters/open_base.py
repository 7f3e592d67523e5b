"""OpenBase: an open base model, with what identifies it and with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from toynn.arguments import instance_of
from toynn.initialised import Initialised
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.llm.adapters.trained_adapter import BaseModel
from toynn.llm.base import Base


@dataclass(frozen=True)
class OpenBase(Initialised):
    """A base model whose weights can be used. `toynn.api.base_model.open_base` opens one.

    identity: its path and sha256. weights: the weights, mapped or in memory. description: shape, tokenizer and special
    tokens. on_close: a function that closes the files.
    """

    identity: BaseModel
    weights: Base
    description: ModelOnBase
    on_close: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        instance_of("identity", self.identity, BaseModel)
        instance_of("weights", self.weights, Base)
        instance_of("description", self.description, ModelOnBase)

    def close(self) -> None:
        """Close the files of the base. Sessions that use the weights keep the weights."""
        self.on_close()

    def __enter__(self) -> OpenBase:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

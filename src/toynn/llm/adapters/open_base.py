"""OpenBase: an open base model, with its path, its SHA-256 and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

from toynn.arguments import instance_of
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.model_on_base import AnyModel, ModelOnBase, adapter_of
from toynn.llm.adapters.trained_adapter import BaseModel
from toynn.llm.base import Base
from toynn.wording import spelled


@dataclass(frozen=True)
class OpenBase(Initialised):
    """A base model whose weights can be used. `toynn.api.base_model.open_base` opens one.

    path: the GGUF file, Hugging Face folder or checkpoint.
    weights: the weights, mapped or in memory.
    description: shape, tokenizer and special tokens.
    sha256: a function that returns the SHA-256 of the base, as in `BaseModel`.
    on_close: a function that closes the files.
    """

    path: Path
    weights: Base
    description: ModelOnBase
    sha256: Callable[[], str]
    on_close: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        instance_of("path", self.path, Path)
        instance_of("weights", self.weights, Base)
        instance_of("description", self.description, ModelOnBase)

    @cached_property
    def identity(self) -> BaseModel:
        """The path and the SHA-256 of the base.

        The first access reads the whole file. Code that only generates text does not access this property.

        Raises MappedFileError if the file was changed since it was opened.
        """
        return BaseModel(self.path, self.sha256())

    def require(self, expected: BaseModel) -> None:
        """Raise TinyNNValueError unless this base is `expected`, the base that an adapter was trained on."""
        given = self.identity.sha256
        if given != expected.sha256:
            raise TinyNNValueError(
                f"{self.path} is not the base that the adapter was trained on: its SHA-256 is {given[:16]}..., but "
                f"the SHA-256 of the base was {expected.sha256[:16]}...; restore the base, or {place_of_base()}"
            )

    def close(self) -> None:
        """Close the files of the base. Sessions that use the weights keep the weights."""
        self.on_close()

    def __enter__(self) -> OpenBase:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def needed_base(model: AnyModel, path: Path, base: object | None) -> BaseModel | None:
    """Return the base that a model needs, or None if the model contains all its weights.

    path: the checkpoint of the model, for messages.
    base: the base that the user gave, or None.

    Raises TinyNNValueError if the user gave a base that the model does not need.
    """
    adapter = adapter_of(model)
    if adapter is not None and adapter.base is not None:
        return adapter.base
    if base is not None:
        raise TinyNNValueError(
            f"{spelled('base', '--base')}: {path} contains all weights of its model and needs no base; leave out "
            f"{spelled('base', '--base')}"
        )
    return None


def place_of_base() -> str:
    """Return the end of an error message, which tells the user how to give the place of a base."""
    return f"give the place of the base with {spelled('base=', '--base')}"

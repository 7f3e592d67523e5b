"""GenerationTask: the continuation of several prompts, in this process or in the workers of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from toynn.api.load_model import load, model_identity
from toynn.api.text_model import TextModel
from toynn.errors import ProcessError, TinyNNValueError


class Prompt(NamedTuple):
    """A text to continue. place: its file and line, for errors."""

    text: str
    place: str


class Continuation(NamedTuple):
    """The continuation of a prompt. step: number of training steps that the model has taken."""

    text: str
    finish_reason: str | None
    step: int


@dataclass(frozen=True)
class Continuing:
    """Continues a prompt with a model. options: the arguments of `TextModel.generate`.

    A call raises the errors of `TextModel.generate`, with the place of the prompt.
    """

    model: TextModel
    options: Mapping[str, Any]

    def __call__(self, prompt: Prompt) -> Continuation:
        try:
            found = self.model.generate(prompt.text, **self.options)
        except TinyNNValueError as error:
            raise TinyNNValueError(f"{prompt.place}: {error}") from None
        return Continuation(str(found), found.finish_reason, self.model.step)


@dataclass(frozen=True)
class GenerationTask:
    """Continues prompts with a model, each as `TextModel.generate` continues it alone.

    model, which, base, cache: as for `toynn.load`. options: the arguments of `TextModel.generate`.
    sha256: the model in process 0 (`model_identity`), which all processes must have; None in a process that runs alone.
    """

    model: Path
    which: str
    base: Path | None
    options: Mapping[str, Any]
    sha256: str | None = None
    cache: str = "f32"

    @contextmanager
    def opened(self, n_threads: int | None) -> Iterator[Continuing]:
        """Load the model, and yield the function that continues a prompt.

        Raises the errors of `toynn.load`; ProcessError if the model differs from that of process 0.
        """
        with load(self.model, which=self.which, base=self.base, cache=self.cache, n_threads=n_threads) as text_model:
            if self.sha256 is not None and model_identity(text_model.path) != self.sha256:
                raise ProcessError(f"the model {text_model.path} differs from that of process 0; give the same model")
            yield Continuing(text_model, self.options)

"""GenerationTask: the continuation of several prompts, in this process or in the workers of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from toynn.api.load_model import load, model_identity
from toynn.api.text_model import TextModel
from toynn.errors import ProcessError, TinyNNValueError
from toynn.text.batch_generation import AT_ONCE


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
    """Continues prompts with a model. options: the arguments of `TextModel.generate`."""

    model: TextModel
    options: Mapping[str, Any]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise TinyNNValueError if the model cannot read a prompt. The message names the place of this prompt."""
        place = ""
        try:
            for prompt in prompts:
                place = prompt.place
                self.model.stream(prompt.text, **self.options)  # this checks the prompt, and generates nothing yet
        except TinyNNValueError as error:
            raise TinyNNValueError(f"{place}: {error}") from None

    def __call__(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """Return the continuation of each prompt. Prompts are continued at the same time, unless `rolling` is chosen.

        Raises the errors of `TextModel.generate`.
        """
        texts = [prompt.text for prompt in prompts]
        options = dict(self.options)
        if options.pop("rolling"):
            found = [self.model.generate(text, rolling=True, **options) for text in texts]
        else:
            found = self.model.generate_batch(texts, **options)
        return [Continuation(str(text), text.finish_reason, self.model.step) for text in found]


def parts_of(prompts: Sequence[Prompt], n_processes: int) -> list[Sequence[Prompt]]:
    """Divide prompts into groups. The prompts of a group are continued together.

    If there are several processes and enough prompts, there are at least 4 groups for each process.
    """
    size = min(AT_ONCE, max(1, len(prompts) // (4 * n_processes))) if n_processes > 1 else AT_ONCE
    return [prompts[i : i + size] for i in range(0, len(prompts), size)]


@dataclass(frozen=True)
class GenerationTask:
    """Continues prompts with a model. Each prompt gets the text that `TextModel.generate` returns for it alone.

    model, which, base, cache: as for `toynn.load`. options: the arguments of `TextModel.generate`.
    sha256: the result of `model_identity` for the model in process 0. All processes must have the same model. None in a
        process that runs alone.
    """

    model: Path
    which: str
    base: Path | None
    options: Mapping[str, Any]
    sha256: str | None = None
    cache: str = "f32"

    @contextmanager
    def opened(self, n_threads: int | None) -> Iterator[Continuing]:
        """Load the model, and yield the function that continues prompts.

        Raises ProcessError if the model differs from the model of process 0. Also raises the errors of `toynn.load`.
        """
        with load(self.model, which=self.which, base=self.base, cache=self.cache, n_threads=n_threads) as text_model:
            if self.sha256 is not None and model_identity(text_model.path) != self.sha256:
                raise ProcessError(
                    f"the model {text_model.path} differs from the model of process 0; give the same model to "
                    "all processes"
                )
            yield Continuing(text_model, self.options)

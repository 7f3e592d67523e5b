"""A run's figures as TensorBoard event files. Needs tensorboardX, of the extra toynn[tensorboard]."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from toynn.errors import SessionError
from toynn.extras import naming_the_extra
from toynn.training.events import Evaluated, Event, Started, Stepped

with naming_the_extra():
    from tensorboardX import SummaryWriter


class TensorBoardView:
    """The callback that writes them into a folder: loss, learning rate, gradient norm, and the evaluations.

    The folder is made when the training starts, which looks into the run's folder before. Each start adds a file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.close()
            self._writer = SummaryWriter(logdir=str(self._folder))
        elif isinstance(event, Stepped):
            self._add("train", event, "loss", "learning_rate", "gradient_norm", "tokens_per_second")
        elif isinstance(event, Evaluated):
            self._add("validation", event, "loss", "perplexity", "bits_per_byte")

    def _add(self, group: str, event: Stepped | Evaluated, *names: str) -> None:
        if self._writer is None:
            raise SessionError("a training's figures come after its start: pass the view to train as a callback")
        for name in names:
            self._writer.add_scalar(f"{group}/{name}", getattr(event, name), event.step)

    def close(self) -> None:
        """Writes what is left to write. Twice is harmless."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoardView:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

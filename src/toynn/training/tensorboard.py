"""Write the metrics of a run as TensorBoard event files. Needs tensorboardX (extra toynn[tensorboard])."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from toynn.extras import naming_the_extra
from toynn.training.events import Evaluated, Event, Started, Stepped
from toynn.training.logged_figures import figures_of, not_started, texts_of

with naming_the_extra():
    from tensorboardX import SummaryWriter


class TensorBoardView:
    """A callback that writes losses, other figures, evaluations and generated texts as event files into a folder.

    The folder is created by the event Started, after the run folder was checked. Each start adds an event file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.close()
            self._writer = SummaryWriter(logdir=str(self._folder))
        elif isinstance(event, Stepped | Evaluated):
            if self._writer is None:
                raise not_started(self)
            for name, value in figures_of(event).items():
                self._writer.add_scalar(name, value, event.step)
            for i, text in enumerate(texts_of(event)):
                self._writer.add_text(f"samples/{i}", text, event.step)

    def close(self) -> None:
        """Write the remaining data. A second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoardView:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Write the metrics of a run as TensorBoard event files. Needs tensorboardX (extra toynn[tensorboard])."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

from toynn.errors import SessionError
from toynn.extras import naming_the_extra
from toynn.training.events import Evaluated, Event, Started, Stepped

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
        elif isinstance(event, Stepped):
            self._add("train", event, "loss", "learning_rate", "gradient_norm", "tokens_per_second")
        elif isinstance(event, Evaluated):
            writer = self._add("validation", event, "loss", "perplexity", "bits_per_byte")
            for i, (prompt, text) in enumerate(zip(event.prompts, event.samples, strict=True)):
                writer.add_text(f"samples/{i}", f"{prompt}{text}", event.step)

    def _add(self, group: str, event: Stepped | Evaluated, *names: str) -> SummaryWriter:
        if self._writer is None:
            raise SessionError(
                "TensorBoardView must receive the event Started before other events; pass it to `train` as a callback"
            )
        for name in names:
            value = getattr(event, name)
            if name != "bits_per_byte" or not math.isnan(value):  # NaN means that the size of the text is unknown
                self._writer.add_scalar(f"{group}/{name}", value, event.step)
        return self._writer

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

"""A run's figures as TensorBoard event files. Needs tensorboardX, of the extra toynn[tensorboard]."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from toynn.training.events import Evaluated, Event, Stepped


class TensorBoardView:
    """The callback that writes them into a folder: loss, learning rate, gradient norm, and the evaluations.

    Raises ModuleNotFoundError where tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(logdir=str(folder))

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._add("train", event, "loss", "learning_rate", "gradient_norm", "tokens_per_second")
        elif isinstance(event, Evaluated):
            self._add("validation", event, "loss", "perplexity", "bits_per_byte")

    def _add(self, group: str, event: Stepped | Evaluated, *names: str) -> None:
        for name in names:
            self._writer.add_scalar(f"{group}/{name}", getattr(event, name), event.step)

    def __enter__(self) -> TensorBoardView:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

"""The progress of training as a few lines of plain text, for notebooks, log files and pipes."""

from __future__ import annotations

import sys
from types import TracebackType

from toynn.training.events import Ended, Evaluated, Event, Started, Stepped

_LINES = 20  # largest number of step lines


class PlainProgress:
    """A callback that prints to stderr: the start, about every twentieth of the steps, each evaluation, and the end."""

    def __init__(self) -> None:
        self._steps = 0
        self._every = 1

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._steps = event.steps
            self._every = max(1, -(-(event.steps - event.step) // _LINES))
            resumed = f", resumed after step {event.step}" if event.resumes is not None else ""
            _print(f"{event.parameters / 1e6:.2f} M parameters, {event.train_tokens} training tokens{resumed}")
        elif isinstance(event, Stepped):
            if event.step % self._every == 0 or event.step == self._steps:
                _print(
                    f"step {event.step}/{self._steps}: loss {event.loss:.4f}, {event.tokens_per_second:.0f} tokens/s"
                )
        elif isinstance(event, Evaluated):
            best = ", best" if event.best else ""
            _print(f"step {event.step}: validation loss {event.loss:.4f}, {event.bits_per_byte:.3f} bits/byte{best}")
        elif isinstance(event, Ended):
            _print(f"ended after step {event.step} ({event.reason}): {event.checkpoint}")

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _print(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)

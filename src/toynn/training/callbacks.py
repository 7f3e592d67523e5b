"""Call the callbacks of a run. After an exception of a callback, the run first completes and saves the step."""

from __future__ import annotations

from collections.abc import Iterable

from toynn.errors import TinyNNTypeError
from toynn.training.events import Callback, Event, StopTraining


class Callbacks:
    """The callbacks of a run.

    stopped: whether a callback has raised StopTraining.
    failure: the first other exception of a callback, or None.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = tuple(callbacks)
        self.stopped = False
        self.failure: Exception | None = None

    def send(self, event: Event) -> None:
        """Call all callbacks with an event, also after one of them has raised an exception."""
        for callback in self._callbacks:
            try:
                callback(event)
            except StopTraining:  # noqa: PERF203 (each callback is called)
                self.stopped = True
            except Exception as error:
                self.failure = self.failure or error

    def raise_failure(self) -> None:
        """Raise the first exception of a callback, if there was an exception."""
        if self.failure is not None:
            raise self.failure


def checked_callbacks(callbacks: object) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple. Raises TinyNNTypeError if they are not a sequence of functions."""
    if not isinstance(callbacks, Iterable):
        raise TinyNNTypeError(f"callbacks must be a sequence of functions, got {type(callbacks).__name__}")
    given = tuple(callbacks)
    for i, callback in enumerate(given):
        if not callable(callback):
            raise TinyNNTypeError(f"callbacks[{i}] must be a function of one event, got {type(callback).__name__}")
    return given

"""Show the progress of training as lines of plain text, for notebooks, log files and pipes."""

from __future__ import annotations

import sys
from types import TracebackType

from toynn.arguments import integer
from toynn.training.diagnosis import Diagnosis
from toynn.training.events import Ended, Evaluated, Event, ReferenceProgress, Rescheduled, Saved, Started, Stepped
from toynn.training.logged_figures import figures_in_words, new_end_in_words
from toynn.training.sources import losses_by_source


class PlainProgress:
    """A callback that prints to stderr: the start, some steps, each evaluation, some checkpoints, advice, and the end.

    every: print the first step, the last step, and each step whose number is a multiple of `every`. A checkpoint is
        printed if no other checkpoint was printed in the last `every` steps. None: the number is computed from `lines`.
    lines: if `every` is None, print at most about this many steps.
    ending: print a line at the end of the run.
    """

    def __init__(self, every: int | None = None, *, lines: int = 20, ending: bool = True) -> None:
        self._given = every if every is None else integer("every", every, 1)
        self._lines, self._ending = lines, ending
        self._steps, self._every, self._first = 0, 1, 1
        self._saved: int | None = None
        self._diagnosis = Diagnosis()
        self._tenths = 0  # how many tenths of all pairs the reference model has computed

    def __call__(self, event: Event) -> None:
        self._show(event)
        for advice in self._diagnosis.read(event):
            _print(f"step {advice.step}: advice: {advice}")

    def _show(self, event: Event) -> None:
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, ReferenceProgress):
            self._reference(event)
        elif isinstance(event, Stepped):
            if event.step % self._every == 0 or event.step in (self._first, self._steps):
                # a run with train.seconds can take more steps than planned
                of = f"/{self._steps}" if event.step <= self._steps else ""
                _print(
                    f"step {event.step}{of}: loss {event.loss:.4f}, lr {event.learning_rate:.2e}, "
                    f"epoch {event.epoch:.2f}, {event.tokens_per_second:.0f} tokens/s"
                )
        elif isinstance(event, Evaluated):
            _evaluated(event)
        elif isinstance(event, Rescheduled):
            self._steps = event.steps
            _print(new_end_in_words(event))
        elif isinstance(event, Saved):
            if self._saved is None or event.step >= self._saved + self._every or event.step == self._steps:
                self._saved = event.step
                _print(f"step {event.step}: saved {event.bytes / 1e6:.1f} MB in {event.seconds:.2f} s")
        elif isinstance(event, Ended) and self._ending:
            _print(f"ended after step {event.step} ({event.reason}): {event.checkpoint}")

    def _start(self, event: Started) -> None:
        self._steps, self._first = event.steps, event.step + 1
        self._every = self._given or max(1, -(-(event.steps - event.step) // self._lines))
        validation = f"{event.validation_tokens} validation tokens" if event.validation_tokens else "no validation text"
        _print(f"{event.parameters / 1e6:.2f} M parameters, {event.train_tokens} training tokens, {validation}")
        if event.resumes is not None:
            _print(f"resumed after step {event.step}")
        for note in event.notes:
            _print(f"note: {note}")

    def _reference(self, event: ReferenceProgress) -> None:
        """Print a line whenever another tenth of the pairs is computed."""
        tenths = 10 * event.done // event.pairs
        if tenths > self._tenths:
            self._tenths = tenths
            _print(f"reference: {event.done} of {event.pairs} pairs")

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _evaluated(event: Evaluated) -> None:
    best = ", best" if event.best else ""
    _print(f"step {event.step}: validation {event.loss:.4f}{figures_in_words(event)}{best}")
    if event.sources:
        _print(f"step {event.step}: validation by source: {losses_by_source(event)}")


def _print(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)

"""Show the progress of a run as a bar in a terminal. Needs rich (extra toynn[cli])."""

from __future__ import annotations

from types import TracebackType

from toynn.extras import naming_the_extra
from toynn.training.diagnosis import Diagnosis
from toynn.training.events import Ended, Evaluated, Event, ReferenceProgress, Rescheduled, Saved, Started, Stepped
from toynn.training.logged_figures import figures_in_words, new_end_in_words
from toynn.training.sources import losses_by_source

with naming_the_extra():
    from rich.console import Console, RenderableType
    from rich.constrain import Constrain
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )


class _Bar(Progress):
    """A progress bar that leaves three columns free, in which the terminal prints ^C after Ctrl-C.

    With a bar of full width, the ^C would begin a new line, and the terminal would show the bar twice.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        self._width = max(console.width - 3, 1)
        super().__init__(*columns, console=console, disable=False)

    def get_renderable(self) -> RenderableType:
        return Constrain(super().get_renderable(), self._width)


class ProgressView:
    """A callback that shows the progress of a run on a rich console. It must be used as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = _Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._steps = 0
        self._task: TaskID | None = None
        self._of_reference: TaskID | None = None
        self._diagnosis = Diagnosis()

    def __call__(self, event: Event) -> None:
        self._show(event)
        for advice in self._diagnosis.read(event):
            self._line(f"step {advice.step}: advice: {advice}")

    def _show(self, event: Event) -> None:
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, ReferenceProgress):
            self._reference(event)
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, Evaluated):
            best = ", best" if event.best else ""
            self._line(f"step {event.step}: validation {event.loss:.4f}{figures_in_words(event)}{best}")
            if event.sources:
                self._line(f"step {event.step}: validation by source: {losses_by_source(event)}")
        elif isinstance(event, Rescheduled):
            self._steps = event.steps
            if self._task is not None:
                self._bar.update(self._task, total=event.steps)
            self._line(new_end_in_words(event))
        elif isinstance(event, Saved):
            self._line(f"step {event.step}: saved {event.bytes / 1e6:.1f} MB in {event.seconds:.2f} s")
        elif isinstance(event, Ended):
            self._bar.stop()

    def _start(self, event: Started) -> None:
        validation = f"{event.validation_tokens} validation tokens" if event.validation_tokens else "no validation text"
        self._line(f"{event.parameters / 1e6:.2f} M parameters, {event.train_tokens} training tokens, {validation}")
        if event.resumes is not None:
            self._line(f"resumed after step {event.step}")
        for note in event.notes:
            self._line(f"note: {note}")
        self._steps = event.steps
        self._task = self._bar.add_task("training", total=event.steps, completed=event.step, figures="")

    def _reference(self, event: ReferenceProgress) -> None:
        if self._of_reference is None:
            self._of_reference = self._bar.add_task("reference", total=event.pairs, figures="pairs")
        self._bar.update(self._of_reference, completed=event.done, visible=event.done < event.pairs)

    def _step(self, event: Stepped) -> None:
        if self._task is not None:
            figures = f"epoch {event.epoch:.2f} loss {event.loss:.3f} {event.tokens_per_second:.0f} tok/s"
            self._bar.update(self._task, completed=event.step, figures=figures)
            if event.step > self._steps:  # a timed run can take more steps than estimated
                self._bar.tasks[self._task].total = None

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=False)

    def __enter__(self) -> ProgressView:
        self._bar.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

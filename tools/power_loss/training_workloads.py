"""Workloads of training: save, evaluate, remove old checkpoints, stop, resume, return to an older checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kill_at_every_moment import CONFIG, outcome
from preference_pairs import make_pairs
from small_runs import bytes_of, make_data
from toynn import TinyNNError, TrainArgs, train
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.storage.checkpoint.names import CONFIG as CONFIG_FILE
from toynn.storage.checkpoint.names import LOG, NUMBERS, REFERENCE, checkpoint_names
from toynn.storage.checkpoint.reading import named_checkpoint
from toynn.training import CheckpointArgs, OptimizerArgs, StepArgs, StopTraining, TrainConfig
from toynn.training.events import Event, Saved, Stepped
from toynn.training.run_log import read_log
from workload import FaultError

RUN = Path("runs") / "run"  # neither the run folder nor its parent folder exists
STOP_STEP = 3
KEEPS_ALL = dataclasses.replace(CONFIG, checkpoint=CheckpointArgs(every=2, keep_last=100))
KEEPS_NO_BEST = dataclasses.replace(CONFIG, checkpoint=CheckpointArgs(every=2, keep_last=1, keep_best=False))
OF_PAIRS = dataclasses.replace(
    CONFIG,
    model=None,
    train=StepArgs(steps=6, batch=2, objective="dpo"),
    optimizer=OptimizerArgs(lr=1e-3, kind="adamw"),
)
BACK_STEP = 2  # the best evaluation up to this step is not the best evaluation of the whole run


def _resumed(given: Path, run: Path, config: TrainConfig, init: str | None) -> None:
    """Resume a run, or start it from the model in the folder `init` of `given` if the run has no checkpoint."""
    resume = (run / "latest").exists()
    start = None if resume or init is None else given / init
    train(TrainArgs(given / "data", run, None if resume else config, start, resume, n_threads=1))


@cache
def _uninterrupted(given: Path, config: TrainConfig, init: str | None) -> tuple[Path, tuple[object, ...]]:
    """Return the folder and the outcome of an uninterrupted run."""
    run = given / f"uninterrupted-{config.checkpoint.keep_last}-{config.checkpoint.keep_best}"
    _resumed(given, run, config, init)
    return run, outcome(run)


@cache
def _bytes_by_step(given: Path, config: TrainConfig, init: str | None) -> dict[int, dict[str, bytes]]:
    """Return the weights and moments after each step."""
    run = given / "every_step"
    every = CheckpointArgs(every=1, keep_last=100)
    _resumed(given, run, dataclasses.replace(config, checkpoint=every), init)
    checkpoints = [named_checkpoint(run, name) for name in checkpoint_names(run)]
    return {checkpoint.step: bytes_of(checkpoint) for checkpoint in checkpoints}


class Training:
    """A run that is stopped after step 3 and resumed to its end. It saves and evaluates after every second step."""

    name, config = "training", CONFIG
    init: str | None = None

    def make_inputs(self, given: Path) -> None:
        self.make_data(given)
        self._expected(given)
        _bytes_by_step(given, self.config, self.init)

    def make_data(self, given: Path) -> None:
        """Write the data folder."""
        make_data(given / "data")

    def _expected(self, given: Path) -> tuple[object, ...]:
        return _uninterrupted(given, self.config, self.init)[1]

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        def stop(event: Event) -> None:
            if isinstance(event, Stepped) and event.step == STOP_STEP:
                raise StopTraining

        saved = _reporting(report)
        start = None if self.init is None else given / self.init
        train(TrainArgs(given / "data", files / RUN, self.config, start, n_threads=1), [saved, stop])
        train(TrainArgs(given / "data", files / RUN, resume=True, n_threads=1), [saved])

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        run = files / RUN
        told = int(reports[-1].split()[-1]) if reports else None
        latest = self._checkpoint(given, run, "latest")
        if told is not None and (latest is None or latest.step < told):
            raise FaultError(f"the user was told {reports[-1]!r}, but latest is {latest and latest.path.name}")
        self._checkpoint(given, run, "best")
        for name in checkpoint_names(run):
            self._require_right(given, lambda name=name: named_checkpoint(run, name), name)  # type: ignore[misc]
        whole = _uninterrupted(given, self.config, self.init)[0] / CONFIG_FILE
        if (run / CONFIG_FILE).exists() and (run / CONFIG_FILE).read_bytes() != whole.read_bytes():
            raise FaultError(f"{CONFIG_FILE} is not whole")
        # the log gets the event of a checkpoint only after the checkpoint is saved
        went_back = bool(reports) and reports[-1].startswith("goes back")
        _check_log(run, latest, self._expected(given)[0], went_back=went_back)

    def go_on(self, given: Path, files: Path) -> None:
        run = files / RUN
        try:
            _resumed(given, run, self.config, self.init)
            found = outcome(run)
        except (TinyNNError, OSError) as error:
            raise FaultError(f"cannot go on: {error}") from error
        names = ("losses", "evaluations", "last weights", "best step", "best weights", "checkpoints", "temporary files")
        for name, one, other in zip(names, found, self._expected(given), strict=True):
            if one != other:
                shown = f": {one!r:.200}, not {other!r:.200}" if "weights" not in name else ""
                raise FaultError(f"the resumed run has other {name} than one without interruption{shown}")
        if left := [entry.name for entry in run.iterdir() if entry.name.startswith(".tmp-")]:
            raise FaultError(f"the resumed run leaves {left[0]}")

    def _checkpoint(self, given: Path, run: Path, which: str) -> Checkpoint | None:
        if not (run / which).exists():
            return None
        return self._require_right(given, lambda: load_checkpoint(run, which), which)

    def _require_right(self, given: Path, read: Callable[[], Checkpoint], name: str) -> Checkpoint:
        """Return a checkpoint.

        Raise FaultError if it cannot be read, or if its weights are not those of an uninterrupted run.
        """
        try:
            checkpoint = read()
        except (TinyNNError, OSError) as error:
            raise FaultError(f"{name} cannot be read: {error}") from error
        if bytes_of(checkpoint) != _bytes_by_step(given, self.config, self.init)[checkpoint.step]:
            raise FaultError(f"{name} is read as whole but has other weights")
        return checkpoint


class TrainingWithoutBest(Training):
    """Training without `keep_best`.

    When the best checkpoint is older than the kept checkpoints, the run removes `best` and then this checkpoint.
    """

    name, config = "training without best", KEEPS_NO_BEST

    def make_inputs(self, given: Path) -> None:
        super().make_inputs(given)
        if self._expected(given)[3] is not None:
            raise RuntimeError("the run must remove its best checkpoint, or the workload does not differ from training")


class GoingBack(Training):
    """A run that is resumed from a checkpoint older than the latest and the best checkpoint, and trained to its end."""

    name, config = "going back", KEEPS_ALL

    def perform(self, given: Path, files: Path, report: Callable[[str], None]) -> None:
        saved = _reporting(report)
        train(TrainArgs(given / "data", files / RUN, self.config, n_threads=1), [saved])
        report(f"goes back to {BACK_STEP}")
        name = f"step-{BACK_STEP:08d}"
        train(TrainArgs(given / "data", files / RUN, resume=True, resume_from=name, n_threads=1), [saved])


class TrainingOnPairs(Training):
    """A run on preference pairs, which stores log-probabilities of its reference model before the first checkpoint."""

    name, config, init = "training on pairs", OF_PAIRS, "base"

    def make_data(self, given: Path) -> None:
        make_pairs(given)

    def check(self, given: Path, files: Path, reports: Sequence[str]) -> None:
        super().check(given, files, reports)
        if (files / RUN / "latest").exists():
            self._check_reference(given, files / RUN)

    def go_on(self, given: Path, files: Path) -> None:
        super().go_on(given, files)
        self._check_reference(given, files / RUN)

    def _check_reference(self, given: Path, run: Path) -> None:
        whole = _uninterrupted(given, self.config, self.init)[0]
        for name in (REFERENCE, NUMBERS):
            if not (run / name).exists() or (run / name).read_bytes() != (whole / name).read_bytes():
                raise FaultError(f"{name} is missing, or differs from that of an uninterrupted run")


def _reporting(report: Callable[[str], None]) -> Callable[[Event], None]:
    def callback(event: Event) -> None:
        if isinstance(event, Saved):
            report(f"saved {event.step}")

    return callback


def _check_log(run: Path, latest: Checkpoint | None, losses: object, *, went_back: bool) -> None:
    """Raise FaultError unless the log can be read and has every step before the latest checkpoint, with its loss."""
    if not (run / LOG).exists():
        if latest is not None:
            raise FaultError(f"there is a checkpoint but no {LOG}")
        return
    try:
        events = read_log(run)
    except (TinyNNError, OSError) as error:
        raise FaultError(f"the log cannot be read: {error}") from error
    last = 0 if latest is None else latest.step
    steps = _of(events, "stepped", "step")
    if steps != list(range(1, len(steps) + 1)) or len(steps) < last:
        raise FaultError(f"the log has the steps {steps}, latest is that of step {last}")
    found = [float(loss).hex() for loss in _of(events, "stepped", "loss")]
    if not isinstance(losses, list) or found != losses[: len(found)]:
        raise FaultError("the log has other losses")
    if latest is not None and not went_back and any(step > last for step in _of(events, "saved", "step")):
        raise FaultError(f"the log says that a later checkpoint than that of step {last} was saved")


def _of(events: list[dict[str, Any]], kind: str, key: str) -> list[Any]:
    return [event[key] for event in events if event["event"] == kind]

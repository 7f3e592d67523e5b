"""log.jsonl: the events of a run, one per line. Lines are only appended.

Each line is an object with "v" (1), "event" (started, stepped, evaluated, saved, ended), "time" (UTC, ISO 8601) and the
fields of the event's class in `toynn.training.events`; paths are strings. Numbers are written so that reading them
gives the same bits. NaN and infinities occur only in perplexity, which is then null.

A resumed run appends to the existing log, so steps after the last checkpoint of a killed process appear twice.
`read_log` returns the events as if the run had never been interrupted.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from toynn.errors import FileFormatError
from toynn.storage.checkpoint.run_folder import LOG
from toynn.storage.json_files import number_or_null
from toynn.storage.regular_files import naming_file, open_regular, open_regular_to_append, path_of
from toynn.training.events import Ended, Evaluated, Event, Saved, Started, Stepped

VERSION = 1
NAMES: dict[type[Event], str] = {
    Started: "started",
    Stepped: "stepped",
    Evaluated: "evaluated",
    Saved: "saved",
    Ended: "ended",
}


class RunLog:
    """The callback that writes the log. Each line is in the file when the call returns, and synced at each checkpoint.

    Raises OSError, FileFormatError if the path is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_regular_to_append(path)
        if self._file.seek(0, os.SEEK_END) > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # an incomplete line of a killed process
                self._file.write(b"\n")

    def __call__(self, event: Event) -> None:
        line = json.dumps(as_json(event), allow_nan=False).encode("utf-8") + b"\n"
        with naming_file(self._path):
            self._file.write(line)
            self._file.flush()
            if isinstance(event, Saved | Ended):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_json(event: Event) -> dict[str, Any]:
    """Return the content of an event's line."""
    now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")
    fields = {key: _plain(value) for key, value in dataclasses.asdict(event).items()}
    return {"v": VERSION, "event": NAMES[type(event)], "time": now, **fields}


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run in order, as if it had never been interrupted. path: its folder or its log.jsonl.

    Steps that were repeated after a resume appear once. A line that is not JSON is skipped at the end and before a
    "started" event: a killed process left it incomplete.

    Raises FileFormatError for a log that is damaged otherwise, of another version or not a regular file; OSError.
    """
    events: list[dict[str, Any]] = []
    broken: int | None = None
    path = path_of("path", path)
    if path.is_dir():
        path = path / LOG
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                broken = broken or number
                continue
            if event.get("v") != VERSION:
                raise FileFormatError(f"{path}: line {number} must have version {VERSION}, got {event.get('v')!r:.20}")
            if event["event"] == "started":
                broken = None
                resumed, step = event.get("resumes") is not None, event.get("step", 0)
                events = [one for one in events if resumed and one.get("step", 0) <= step and one["event"] != "ended"]
            elif broken is not None:
                raise FileFormatError(f"{path}: line {broken} is damaged")
            events.append(event)
    return events


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return number_or_null(value) if isinstance(value, float) else value

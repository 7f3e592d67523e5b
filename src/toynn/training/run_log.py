"""Write and read log.jsonl, the log of a run. Each event is one line, and lines are only appended. Only the events
`ReferenceProgress` are left out.

A line is a JSON object with the keys "v" (1), "event" (started, stepped, evaluated, rescheduled, saved or ended),
"time" (UTC, ISO 8601) and the fields of the event's class in `toynn.training.events`. Paths are strings. A field that
has a default may be missing. Numbers are written with enough digits to read the same bits again. Only perplexity and
bits_per_byte can be NaN or infinite; they are then null.

A resumed run appends to the existing log. Steps that a killed process took after its last checkpoint therefore appear
twice. `read_log` returns the events as if the run had not been interrupted.

The log is synced before and after each checkpoint. After a power loss, only events that the resumed run repeats can be
missing, and the file may contain zeros in their place.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from toynn.errors import FileFormatError
from toynn.storage.checkpoint.names import LOG
from toynn.storage.durable_files import sync
from toynn.storage.json_files import number_or_null
from toynn.storage.regular_files import naming_file, open_regular, open_regular_to_append, path_of
from toynn.training.events import (
    Ended,
    Evaluated,
    Event,
    PairFigures,
    ReferenceProgress,
    Rescheduled,
    Saved,
    Started,
    Stepped,
)

VERSION = 1
_LONGEST = 1 << 20  # largest number of bytes in a line
_MOST_ZEROS = 1 << 26  # largest number of bytes in a line that a power loss has filled with zeros
_LARGEST = 2**63 - 1
_LARGEST_FLOAT = 1e300  # plotting larger numbers overflows; only a perplexity may be larger
_OF_PAIRS = frozenset(field.name for field in dataclasses.fields(PairFigures))
NAMES: dict[type[Event], str] = {
    Started: "started",
    Stepped: "stepped",
    Evaluated: "evaluated",
    Rescheduled: "rescheduled",
    Saved: "saved",
    Ended: "ended",
}


class RunLog:
    """A callback that appends each event to the log. `sync` waits until all lines are on the disk.

    Raises FileFormatError if the path is not a regular file, or OSError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_regular_to_append(path)
        sync(path.parent)  # if the file is new, this syncs its name to the disk
        if self._file.seek(0, os.SEEK_END) > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # a killed process has written an incomplete line
                self._file.write(b"\n")

    def __call__(self, event: Event) -> None:
        if isinstance(event, ReferenceProgress):
            return
        line = json.dumps(as_json(event), allow_nan=False).encode("utf-8") + b"\n"
        with naming_file(self._path):
            self._file.write(line)
            self._file.flush()
            if isinstance(event, Saved | Ended):
                self.sync()

    def sync(self) -> None:
        """Wait until all lines are on the disk. Raises OSError if a line cannot be written."""
        with naming_file(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Raises OSError if a line that is not written yet cannot be written."""
        with naming_file(self._path):
            self._file.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_json(event: Event) -> dict[str, Any]:
    """Return an event as the JSON object of its line in the log."""
    now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")
    fields = {
        key: _plain(value)
        for key, value in dataclasses.asdict(event).items()
        if value is not None or key not in _OF_PAIRS  # only a run on preference pairs has these figures
    }
    return {"v": VERSION, "event": NAMES[type(event)], "time": now, **fields}


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run in order, as if the run had not been interrupted.

    path: the folder of the run, or its log.jsonl.

    Steps that a resumed run has repeated are returned once. A killed process can have left an incomplete line, at the
    end or before a "started" event. This line is skipped. After a line with zeros, which comes from a power loss, all
    lines up to the next "started" event are skipped.

    Raises FileFormatError, which names the line and the field, if the log is damaged in another way, has another
    version or is not a regular file. Raises OSError if the log cannot be read.
    """
    events: list[dict[str, Any]] = []
    broken: int | None = None  # after the last "started" event, the number of the first line that is not an event
    zeros = False  # whether the line `broken` contains zeros
    path = path_of("path", path)
    if path.is_dir():
        path = path / LOG
    for number, line in _lines(path):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            if broken is None:
                broken, zeros = number, b"\0" in line
            continue
        if broken is not None and event["event"] != "started":
            if zeros:
                continue
            raise FileFormatError(f"{path}: line {broken} is damaged: it must be the JSON object of an event")
        _check(event, f"{path}: line {number}")
        if event["event"] == "started":
            resumed, step = event["resumes"] is not None, event["step"]
            if broken is not None and zeros and resumed and _last_step(events) < step:
                raise FileFormatError(
                    f"{path}: line {broken} is damaged: steps up to {step} are missing; restore the file"
                )
            broken = None
            events = [one for one in events if resumed and one["step"] <= step and one["event"] != "ended"]
        events.append(event)
    return events


def planned_steps(events: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the number of steps of the whole run, from its events in order.

    None if the run has not started, or if a run with train.seconds has taken more steps than estimated.
    """
    kinds = ("started", "rescheduled")
    steps = next((int(event["steps"]) for event in reversed(events) if event["event"] in kinds), None)
    taken = next((int(event["step"]) for event in reversed(events) if event["event"] == "stepped"), 0)
    return None if steps is None or taken > steps else steps


def _last_step(events: list[dict[str, Any]]) -> int:
    return max((event["step"] for event in events if event["event"] in ("started", "stepped")), default=0)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a log with their numbers. Raises FileFormatError for a line that is too long for an event."""
    with open_regular(path) as file:
        number = 0
        while line := file.readline(_LONGEST + 1):
            number += 1
            if b"\0" in line:
                line = _shortened(line, file)
            if len(line) > _LONGEST:
                raise FileFormatError(
                    f"{path} is damaged: line {number} is longer than {_LONGEST} bytes, the limit for an event"
                )
            yield number, line


def _shortened(line: bytes, file: BinaryIO) -> bytes:
    """Read the rest of a line that contains zeros, and return a short line with a zero in its place.

    After a power loss, everything that was written since the last sync can be zeros, so the line may be longer than any
    event. A line of more than _MOST_ZEROS bytes is not shortened, and the caller refuses it.
    """
    end = file.tell() + _MOST_ZEROS
    while line and not line.endswith(b"\n"):
        if file.tell() > end:
            return line
        line = file.readline(_LONGEST + 1)
    return b"\0\n"


def _check(event: dict[str, Any], place: str) -> None:
    """Raise FileFormatError if a field of the event's class is missing or has a value of another type."""
    if event.get("v") != VERSION:
        raise FileFormatError(f"{place} must have version {VERSION}, got {event.get('v')!r:.20}")
    fields = _FIELDS.get(event["event"])
    if fields is None:
        raise FileFormatError(f"{place}: event must be one of {', '.join(_FIELDS)}, got {event['event']!r:.40}")
    for name, field in fields.items():
        if name not in event:
            if field.required:
                raise FileFormatError(f"{place} is damaged: the field {name!r} is missing")
            continue
        if not field.holds(event[name]):
            raise FileFormatError(f"{place} is damaged: {name} must be {field.expected}, got {event[name]!r:.40}")


@dataclass(frozen=True)
class _Field:
    """A field of an event. kinds: the types that its value may have, from the annotation in the event's class.

    elements: the types that the elements of a list may have; None if the value is not a list.
    """

    kinds: tuple[Any, ...]
    required: bool
    elements: _Field | None = None

    @property
    def expected(self) -> str:
        if self.elements is not None:
            return f"a list, of which each element is {self.elements.expected}"
        return " or ".join(_MEANING[kind] for kind in self.kinds)

    def holds(self, value: object) -> bool:
        if isinstance(value, bool) or value is None:
            return type(value) in self.kinds
        if isinstance(value, int):
            least = 0 if int in self.kinds else -_LARGEST
            return (int in self.kinds or float in self.kinds) and least <= value <= _LARGEST
        if isinstance(value, float):
            plausible = abs(value) <= _LARGEST_FLOAT or (type(None) in self.kinds and math.isfinite(value))
            return float in self.kinds and plausible
        if isinstance(value, list):
            return self.elements is not None and all(self.elements.holds(one) for one in value)
        return isinstance(value, str) and (str in self.kinds or Path in self.kinds)


def _fields_of(kind: type[Event]) -> dict[str, _Field]:
    hints, nullable = typing.get_type_hints(kind), {"perplexity", "bits_per_byte"}
    fields = {}
    for field in dataclasses.fields(kind):
        hint, required = hints[field.name], field.default is dataclasses.MISSING
        if typing.get_origin(hint) is tuple:
            fields[field.name] = _Field((list,), required, _Field(_kinds_of(typing.get_args(hint)[0]), required=True))
        else:
            kinds = _kinds_of(hint)
            fields[field.name] = _Field((*kinds, type(None)) if field.name in nullable else kinds, required)
    return fields


def _kinds_of(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)


_MEANING: dict[Any, str] = {
    bool: "true or false",
    int: "an integer, 0 or above",
    float: "a finite number",
    str: "a string",
    Path: "a path",
    type(None): "null",
}
_FIELDS = {name: _fields_of(kind) for kind, name in NAMES.items()}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return number_or_null(value) if isinstance(value, float) else value

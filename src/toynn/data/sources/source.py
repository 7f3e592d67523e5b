"""DataSource: a file of training data, whose container and format are found from its content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from toynn.data.sources.compressed import head_of, is_compressed, parts_of_file
from toynn.data.sources.items import Item
from toynn.data.sources.json_array import json_array
from toynn.data.sources.json_lines import json_lines
from toynn.data.sources.parquet import MAGIC, parquet_columns, parquet_rows
from toynn.data.sources.records import FIELDS, FORMATS, Sample, format_of, sample_of, what_is_missing
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.storage.regular_files import open_regular
from toynn.wording import spelled

_HEAD = 1 << 20  # number of bytes at the start of a file from which the container is recognized
_LINES = 5  # number of first lines; if at least half of them are JSON objects, the file consists of JSON lines
_FIRST_ITEMS = 100  # number of items that are searched for the first item with a known format
_OBJECT = re.compile(rb'\s*\{\s*"')
_ARRAY = re.compile(rb"\s*\[\s*\{")


@dataclass
class Skipped:
    """Broken lines, elements and rows.

    most: the number that is tolerated.
    n: the number found so far.
    first: the messages about the first broken items.
    """

    most: int = 0
    n: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Count a broken item. Raise FileFormatError if more than `most` are broken."""
        self.n += 1
        if len(self.first) < 3:
            self.first.append(message)
        if self.n > self.most:
            if self.most == 0:
                raise FileFormatError(
                    f"{message}; to ignore N such samples, use {spelled('skip_bad=N', '--skip-bad N')}"
                )
            option = spelled("skip_bad", "--skip-bad")
            raise FileFormatError(
                f"more than {option} = {self.most} samples are broken, so repair the samples or use a larger number; "
                f"the last broken sample is {message}"
            )


@dataclass(frozen=True)
class DataSource:
    """A file of training data.

    container: "plain", "lines", "array" or "parquet".
    form: the format of its samples, one of `records.FORMATS`.
    text_field: the field with the text, if the format is "text".
    weight: how often each sample is used in an epoch.
    compressed: whether the file is a gzip or a Zstandard file.
    """

    path: Path
    container: str
    form: str
    text_field: str
    weight: float
    compressed: bool

    def place(self, number: int) -> str:
        """Return the name of a line or row for messages."""
        return _place(self.path, self.container, number)

    def samples(self, skipped: Skipped) -> Iterator[tuple[int, Sample]]:
        """Yield the samples with the numbers of their lines or rows. The source must not be plain text.

        Raises FileFormatError if more items are broken than `skipped` tolerates, or OSError if the file cannot be read.
        """
        for item in _items(self.path, self.container, (*FIELDS, self.text_field)):
            try:
                if item.value is None:
                    raise TinyNNValueError(item.reason)
                sample = sample_of(item.value, self.form, self.text_field)
            except TinyNNValueError as error:
                skipped.add(f"{self.place(item.place)}: {error}")
                continue
            yield item.place, sample


def open_source(path: Path, form: str | None = None, text_field: str | None = None, weight: float = 1.0) -> DataSource:
    """Find the container and the format of a file. form, text_field: the user's choice, or None.

    Raises FileFormatError if the format is unknown; TinyNNValueError if the choice does not fit the file; or OSError if
    the file cannot be read.
    """
    with open_regular(path) as file:
        start = file.read(8)
    compressed = is_compressed(start)
    if start.startswith(MAGIC):
        container = "parquet"
    elif form == "plain":
        container = "plain"
    else:
        head = head_of(path, _HEAD)
        container = _container(head)
        if container == "plain" and _begins_with_long_sample(head):
            as_text = spelled("format='plain'", "--format plain")
            raise FileFormatError(
                f"{path} begins with a sample that takes several lines; write each sample in one line, write the "
                f"samples as an array, or read the file as text with {as_text}"
            )
    if form == "plain" and container == "parquet":
        raise TinyNNValueError(f"format: {path} is a Parquet file, not plain text; leave out the format")
    if container == "plain" and (form not in (None, "plain") or text_field is not None):
        container = "lines"  # the user says that these are samples, so the first broken line is reported
    if container == "plain":
        return DataSource(path, container, "plain", "text", weight, compressed)
    if text_field is not None and form not in (None, "text"):
        raise TinyNNValueError(f"text_field: the format {form!r} has no text field; leave out text_field or format")
    field_name = "text" if text_field is None else text_field
    chosen = form or ("text" if text_field is not None else None)
    return DataSource(path, container, chosen or _form(path, container), field_name, weight, compressed)


def _place(path: Path, container: str, number: int) -> str:
    return f"{path}, {'row' if container == 'parquet' else 'line'} {number}"


def _items(path: Path, container: str, wanted: tuple[str, ...]) -> Iterator[Item]:
    if container == "parquet":
        return parquet_rows(path, wanted)
    return (json_array if container == "array" else json_lines)(parts_of_file(path))


def _form(path: Path, container: str) -> str:
    """Return the format of the first records."""
    found: dict[str, None] = {}
    broken = None
    for item, _ in zip(_items(path, container, FIELDS), range(_FIRST_ITEMS), strict=False):
        if item.value is not None:
            if (form := format_of(item.value)) is not None:
                return form
            found |= dict.fromkeys(item.value)
        elif broken is None:
            broken = item
    if broken is not None and not found:
        raise FileFormatError(f"{_place(path, container, broken.place)}: {broken.reason}")
    names = parquet_columns(path) if container == "parquet" else list(found)
    fields = ", ".join(map(repr, names[:8])) or "none"
    known = "; ".join(what_is_missing(one, "text") for one in FORMATS if one != "plain")
    by_name, as_text = spelled("text_field", "--text-field"), spelled("format='plain'", "--format plain")
    raise FileFormatError(
        f"{path} has samples of an unknown format: their fields are {fields:.200}, but must include one of these: "
        f"{known}; name the field of a text with {by_name}, or read the file as text with {as_text}"
    )


def _container(head: bytes) -> str:
    """Return the container that the first bytes of a file show: "array", "lines" or "plain"."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    if _ARRAY.match(head):
        first = next(json_array([head]), None)
        return "array" if first is not None and (first.value is not None or len(head) >= _HEAD) else "plain"
    lines = [line for line in head.split(b"\n") if line.strip()][:_LINES]
    if len(lines) == 1 and len(head) >= _HEAD:
        # The line does not end in these bytes, so only its start shows the container.
        return "lines" if _OBJECT.match(lines[0]) else "plain"
    return "lines" if lines and 2 * sum(map(_is_object, lines)) >= len(lines) else "plain"


def _begins_with_long_sample(head: bytes) -> bool:
    """Return whether the first bytes of a file are a JSON object that takes several lines and has a known format."""
    text = head.decode("utf-8-sig", "ignore").lstrip()
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except (RecursionError, ValueError):
        return False
    return isinstance(found, dict) and "\n" in text[:end] and format_of(found) is not None


def _is_object(line: bytes) -> bool:
    """Return whether a line is an object for Python's json module.

    This includes what `strict_json` refuses, for example NaN, so that a file with such lines is refused and not read as
    plain text.
    """
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    except (RecursionError, ValueError):  # nested too deeply, or an integer with too many digits
        return _OBJECT.match(line) is not None

"""Versioned JSON files: defaults, migrations, newer versions, and errors that name the file and the key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from toynn import FileFormatError, TinyNNError, TinyNNTypeError, TinyNNValueError
from toynn.storage.formats import Format
from toynn.storage.plain_data import from_plain

pytestmark = pytest.mark.quick


@dataclass(frozen=True)
class Inner:
    name: str
    size: int = 3

    def __post_init__(self) -> None:
        if self.size < 0:
            raise TinyNNValueError(f"size must be 0 or above, got {self.size}")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: float = 0.5
    on: bool = False
    maybe: int | None = None
    items: list[Inner] = field(default_factory=list)
    table: dict[str, str] = field(default_factory=dict)
    version: int = field(default=0, init=False)


SMALLEST = {"inner": {"name": "a"}}
KEYS = "inner, rate, on, maybe, items, table"


def test_keys_that_are_left_out_have_their_defaults() -> None:
    assert from_plain(Outer, SMALLEST) == Outer(Inner("a", 3))


def test_all_kinds_of_values_are_read() -> None:
    content = {**SMALLEST, "rate": 1, "on": True, "maybe": None, "items": [{"name": "b"}], "table": {"x": "y"}}
    assert from_plain(Outer, content) == Outer(Inner("a"), 1, True, None, [Inner("b")], {"x": "y"})


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"inner": {}}, TinyNNValueError, "the key 'inner.name' is missing"),
        ({"inner": 3}, TinyNNTypeError, "inner must be a table of keys and values, got 3"),
        ({"inner": {"name": "a", "sise": 1}}, TinyNNValueError, "unknown key 'inner.sise'; did you mean 'inner.size'?"),
        ({"inner": {"name": "a", "size": -1}}, TinyNNValueError, "inner: size must be 0 or above, got -1"),
        ({"inner": {"name": None}}, TinyNNTypeError, "inner.name must be a string, got None"),
        ({"x": 1}, TinyNNValueError, "unknown key 'x'; known keys are " + KEYS),
        (
            {"version": 1},
            TinyNNValueError,
            "unknown key 'version'; known keys are " + KEYS,
        ),
        ({"rate": "fast"}, TinyNNTypeError, "rate must be a number, got 'fast'"),
        ({"rate": True}, TinyNNTypeError, "rate must be a number, got True"),
        ({"maybe": 1.5}, TinyNNTypeError, "maybe must be an integer, got 1.5"),
        ({"on": 0}, TinyNNTypeError, "on must be true or false, got 0"),
        ({"items": {}}, TinyNNTypeError, "items must be a list, got {}"),
        ({"items": [{"name": "b"}, {"name": 1}]}, TinyNNTypeError, "items[1].name must be a string, got 1"),
        ({"table": {"x": 1}}, TinyNNTypeError, "table.x must be a string, got 1"),
    ],
)
def test_errors_name_the_key_and_the_value(change: dict[str, Any], error: type[TinyNNError], says: str) -> None:
    with pytest.raises(error) as caught:
        from_plain(Outer, {**SMALLEST, **change})
    assert str(caught.value) == says


def rename(content: dict[str, Any]) -> None:
    content["sise"] = content.pop("length")


def correct(content: dict[str, Any]) -> None:
    content["size"] = content.pop("sise")


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_older_versions_are_migrated_step_by_step(tmp_path: Path) -> None:
    form = Format("toynn-test", (rename, correct))
    written = [{"version": 1, "length": 7}, {"version": 2, "sise": 7}, {"version": 3, "size": 7}]
    for content in written:
        path = write(tmp_path / "file", {"format": "toynn-test", "name": "a", **content})
        assert form.load(path, Inner) == Inner("a", 7)
    assert json.loads(form.text({"name": "a"})) == {"format": "toynn-test", "version": 3, "name": "a"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "must have the format 'toynn-test', got None"),
        ({"format": "other"}, "must have the format 'toynn-test', got 'other'"),
        ({"format": "toynn-test"}, "is damaged: the key 'version' is missing"),
        ({"format": "toynn-test", "version": True}, "is damaged: version must be an integer, got True"),
        ({"format": "toynn-test", "version": 0}, "is damaged: version must be 1 or above, got 0"),
        ({"format": "toynn-test", "version": 2}, "has version 2 of its format, but toynn "),
        ({"format": "toynn-test", "version": 2}, " reads only versions up to 1; use a newer version of toynn"),
        ({"format": "toynn-test", "version": 1, "nam": ""}, "is damaged: unknown key 'nam'; did you mean 'name'?"),
    ],
)
def test_files_that_cannot_be_read_are_named(content: object, says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file.json", content)
    with pytest.raises(FileFormatError) as caught:
        Format("toynn-test").load(path, Inner)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)

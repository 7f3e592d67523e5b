"""TrainConfig as TOML and back. Unknown keys are refused by name, with the key that may have been meant."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from toynn.documented_fields import meaning_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.storage.regular_files import path_of, read_regular
from toynn.training.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_LARGEST = 1 << 24  # bytes


@dataclass(frozen=True)
class Key:
    """A key of the configuration, "section.key", with its default and what it means."""

    name: str
    default: Any
    meaning: str


def keys(kind: type[Any] = TrainConfig, prefix: str = "") -> Iterator[Key]:
    """Yield all keys in the order of a file: the values of a section, then the sections inside it."""
    sections = []
    for name, field in _fields(kind).items():
        inner = _dataclass_of(typing.get_type_hints(kind)[name])
        if inner is None:
            yield Key(prefix + name, field.default, meaning_of(kind, name))
        else:
            sections.append((name, inner))
    for name, inner in sections:
        yield from keys(inner, f"{prefix}{name}.")


def _fields(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields that are keys: those that the constructor takes."""
    return {field.name: field for field in dataclasses.fields(kind) if field.init}


def _table(value: Any) -> dict[str, Any]:
    """Return a dataclass as a table, with those inside it as tables of their own."""
    table = {name: getattr(value, name) for name in _fields(type(value))}
    return {name: _table(one) if dataclasses.is_dataclass(one) else one for name, one in table.items()}


def to_toml(config: TrainConfig) -> str:
    """The configuration with every key that has a value (TOML has no null); `from_toml` gives an equal one."""
    table = _table(config)
    if config.model is None:
        del table["model"]
    if config.schedule.warmup is None:
        del table["schedule"]["warmup"]
    return tomli_w.dumps(table)


def commented_toml(config: TrainConfig) -> str:
    """The same, with a comment behind each key that says what it means."""
    meanings = {key.name: key.meaning for key in keys()}
    section, lines = "", []
    for line in to_toml(config).splitlines():
        key, sign, _ = line.partition(" = ")
        if line.startswith("["):
            section = line.strip("[]")
        lines.append(f"{line:<22}  # {meanings[f'{section}.{key}']}" if sign else line)
    return "\n".join(lines) + "\n"


def from_toml(content: str, where: str = "the configuration", overrides: Iterable[str] = ()) -> TrainConfig:
    """A configuration from TOML; keys left out have their defaults. overrides: "section.key=VALUE", VALUE as in TOML.

    Raises TinyNNValueError or TinyNNTypeError naming `where` and the key.
    """
    if not isinstance(content, str):
        raise TinyNNTypeError(f"{where} must be a str, got {type(content).__name__}")
    try:
        table = _parsed(content)
    except ValueError as error:
        raise TinyNNValueError(f"{where} is no TOML: {error}") from None
    for override in overrides:
        _override(table, override)
    try:
        config = _build(TrainConfig, table, "")
    except TinyNNTypeError as error:
        raise TinyNNTypeError(f"{where}: {error}") from None
    except TinyNNValueError as error:
        raise TinyNNValueError(f"{where}: {error}") from None
    if not isinstance(config, TrainConfig):
        raise AssertionError("a configuration was built")
    return config


def read_config(path: Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """The configuration in a file. Raises as `from_toml` does, and OSError."""
    path = path_of("path", path)
    try:
        content = read_regular(path, _LARGEST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TinyNNValueError(f"{path} is not UTF-8: byte {error.start}") from None
    return from_toml(content, str(path), overrides)


def differences(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Keys in which two configurations differ, "section.key", with both values."""
    one, other = _flat(_table(a)), _flat(_table(b))
    return {key: (one.get(key), other.get(key)) for key in {**one, **other} if one.get(key) != other.get(key)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def _parsed(content: str) -> dict[str, Any]:
    """TOML as a table. Raises ValueError with the reason, its subclass TOMLDecodeError where the form is wrong."""
    try:
        table: dict[str, Any] = tomllib.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return table


def _override(table: dict[str, Any], override: object) -> None:
    if not isinstance(override, str):
        raise TinyNNTypeError(f"an override must be a str like 'optimizer.lr=1e-3', got {type(override).__name__}")
    key, sign, value = override.partition("=")
    names = key.strip().split(".")
    if not sign or len(names) < 2 or not all(names):
        raise TinyNNValueError(f"{override!r:.80} is not section.key=VALUE, like optimizer.lr=1e-3")
    for name in names[:-1]:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise TinyNNValueError(f"{override!r:.80}: {name} is not a section")
        table = inner
    try:
        parsed = _parsed(f"x = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {"x": value.strip()}  # a word without quotes; where a number belongs, its check says so
    except ValueError as error:
        raise TinyNNValueError(f"{key.strip()}: {value.strip():.40}... is no value: {error}") from None
    if len(parsed) > 1:
        raise TinyNNValueError(f"{override!r:.80} sets more than {key.strip()}: give each key an override of its own")
    table[names[-1]] = parsed["x"]


def _build(kind: type[Any], table: object, prefix: str) -> Any:
    """A dataclass from a TOML table, its own checks included."""
    if not isinstance(table, dict):
        raise TinyNNTypeError(f"{prefix.rstrip('.')} must be a section, got {table!r:.60}")
    hints = typing.get_type_hints(kind)
    known = _fields(kind)
    for key in table:
        if key not in known:
            raise TinyNNValueError(f"unknown key {prefix + key!r}{_meant(key, prefix, known)}")
    values = {}
    for key, value in table.items():
        inner = _dataclass_of(hints[key])
        values[key] = value if inner is None else _build(inner, value, f"{prefix}{key}.")
    return kind(**values)


def _dataclass_of(hint: Any) -> type[Any] | None:
    """The dataclass that a field holds, also where it may be None."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)), None)


def _meant(key: str, prefix: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"; did you mean {prefix + close[0]!r}?"
    return f"; there are {', '.join(prefix + name for name in known)}"

"""Convert a TrainConfig to TOML and back. Unknown keys are errors that suggest a similar key."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from toynn.documented_fields import meaning_of
from toynn.errors import ConfigurationError, ConfigurationTypeError, TinyNNTypeError, TinyNNValueError
from toynn.storage.plain_data import dataclass_in, from_plain, keys_of
from toynn.storage.regular_files import path_of
from toynn.storage.text_files import read_text
from toynn.training.config import TrainConfig
from toynn.training.key_names import similar_key

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_LARGEST = 1 << 24  # bytes
_COLUMNS = 80
_LENGTHS = {"steps", "epochs"}  # keys of [train], of which one decides how long a run is


@dataclass(frozen=True)
class Key:
    """A key of the configuration: its full name "section.key", its default and its description."""

    name: str
    default: Any
    meaning: str


def keys(kind: type[Any] = TrainConfig, prefix: str = "") -> Iterator[Key]:
    """Yield all keys in the order of a file: the values of a section, then the sections inside it."""
    sections = []
    for name, field in keys_of(kind).items():
        inner = dataclass_in(typing.get_type_hints(kind)[name])
        if inner is None:
            yield Key(prefix + name, field.default, meaning_of(kind, name))
        else:
            sections.append((name, inner))
    for name, inner in sections:
        yield from keys(inner, f"{prefix}{name}.")


def _table(value: Any) -> dict[str, Any]:
    """Return a dataclass as a table, with the dataclasses in it as tables."""
    table = {name: getattr(value, name) for name in keys_of(type(value))}
    return {name: _table(one) if dataclasses.is_dataclass(one) else one for name, one in table.items()}


def to_plain(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as a table of its sections, with every key that is not None."""
    table = _without_none(_table(config))
    if config.train.epochs is not None:
        del table["train"]["steps"]
    return table


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def to_toml(config: TrainConfig) -> str:
    """Return the configuration as TOML, with every key that is not None; `from_toml` returns an equal one."""
    return tomli_w.dumps(to_plain(config))


def commented_toml(config: TrainConfig) -> str:
    """Return the configuration as TOML, with a comment after each key that describes it, in lines of 80 columns."""
    meanings = {key.name: key.meaning for key in keys()}
    section, lines = "", []
    for line in to_toml(config).splitlines():
        key, sign, _ = line.partition(" = ")
        if line.startswith("["):
            section = line.strip("[]")
        if not sign:
            lines.append(line)
            continue
        first = max(len(line), 22)
        comment = textwrap.wrap(meanings[f"{section}.{key}"], max(_COLUMNS - first - 4, 30))
        lines += [
            f"{start:<{first}}  # {part}" for start, part in zip((line, *[""] * len(comment)), comment, strict=False)
        ]
    return "\n".join(lines) + "\n"


def from_toml(content: str, where: str = "the configuration", overrides: Iterable[str] = ()) -> TrainConfig:
    """Return a configuration from TOML. Keys left out have their defaults.

    where: the name of the file, for messages. overrides: settings "section.key=VALUE", with VALUE as in TOML.

    Raises ConfigurationError (ConfigurationTypeError for a value of the wrong type) with `where` and the key.
    """
    if not isinstance(content, str):
        raise TinyNNTypeError(f"{where} must be a str, got {type(content).__name__}")
    try:
        table = _parsed(content)
    except ValueError as error:
        raise ConfigurationError(f"{where} is not valid TOML: {error}") from None
    overrides = tuple(overrides)
    _leave_out_the_other_length(table, overrides)
    for override in overrides:
        _override(table, override)
    train = table.get("train")
    if isinstance(train, dict) and train.keys() >= _LENGTHS:
        raise ConfigurationError(f"{where}: train.steps and train.epochs cannot both be given; leave one out")
    known = [key.name for key in keys()]
    try:
        return from_plain(TrainConfig, table, similar=lambda key: similar_key(key, known))
    except TinyNNTypeError as error:
        raise ConfigurationTypeError(f"{where}: {error}") from None
    except TinyNNValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def read_config(path: Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Return the configuration in a file. Raises as `from_toml`, FileFormatError and OSError."""
    path = path_of("path", path)
    return from_toml(read_text(path, _LARGEST), str(path), overrides)


def differences(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return the keys "section.key" in which two configurations differ, with both values."""
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
    """Return TOML as a table. Raises ValueError with the reason; the subclass TOMLDecodeError for wrong syntax."""
    try:
        table: dict[str, Any] = tomllib.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return table


def _leave_out_the_other_length(table: dict[str, Any], overrides: Iterable[object]) -> None:
    """Remove train.steps from the table if an override sets only train.epochs, and the other way round."""
    set_keys = {key_set(override) for override in overrides if isinstance(override, str)}
    lengths = {name for name in _LENGTHS if f"train.{name}" in set_keys}
    if len(lengths) == 1 and isinstance(train := table.get("train"), dict):
        for name in _LENGTHS - lengths:
            train.pop(name, None)


def key_set(override: str) -> str:
    """Return the key that a setting "section.key=VALUE" sets."""
    return override.partition("=")[0].strip()


def _override(table: dict[str, Any], override: object) -> None:
    if not isinstance(override, str):
        raise TinyNNTypeError(f"an override must be a str like 'optimizer.lr=1e-3', got {type(override).__name__}")
    key, sign, value = override.partition("=")
    names = key.strip().split(".")
    if not sign or len(names) < 2 or not all(names):
        meant = similar_key(key, [one.name for one in keys()]) if sign else None
        hint = "" if meant is None else f"; did you mean {meant}={value.strip():.40}?"
        raise ConfigurationError(
            f"a setting must be section.key=VALUE, like optimizer.lr=1e-3, got {override!r:.80}{hint}"
        )
    for name in names[:-1]:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{override!r:.80}: {name} is not a section")
        table = inner
    try:
        parsed = _parsed(f"x = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {"x": value.strip()}  # text without quotes; if the key needs a number, its check refuses it
    except ValueError as error:
        raise ConfigurationError(f"{key.strip()}: {value.strip():.40}... is not a TOML value: {error}") from None
    if len(parsed) > 1:
        raise ConfigurationError(f"{override!r:.80} sets more than {key.strip()}: use one setting per key")
    table[names[-1]] = parsed["x"]

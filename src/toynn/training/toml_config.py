"""Convert a TrainConfig to TOML and back. The error for an unknown key suggests a similar key."""

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
from toynn.storage.checkpoint import Checkpoint
from toynn.storage.plain_data import dataclass_in, from_plain, keys_of
from toynn.storage.regular_files import path_of
from toynn.storage.text_files import read_text
from toynn.training.config import TrainConfig
from toynn.training.key_names import NO_VOCABULARY_KEY, THREADS, VOCABULARY, similar_key
from toynn.training.model_config import ModelArgs
from toynn.wording import spelled

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_LARGEST = 1 << 24  # bytes
_COLUMNS = 80
_LENGTHS = {"steps", "epochs"}  # keys of [train]; only one of these keys can be set


@dataclass(frozen=True)
class Key:
    """A key of the configuration: its full name "section.key", its default and its description."""

    name: str
    default: Any
    meaning: str


def keys(kind: type[Any] = TrainConfig, prefix: str = "") -> Iterator[Key]:
    """Yield all keys in the order of a TOML file: the keys of a section, then the sections inside it.

    kind: the dataclass of the section. prefix: the name of the section with a dot; "" for the whole configuration.
    """
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
    """Return a dataclass as a dict. The dataclasses inside it become dicts too."""
    table = {name: getattr(value, name) for name in keys_of(type(value))}
    plain = {name: list(one) if isinstance(one, tuple) else one for name, one in table.items()}
    return {name: _table(one) if dataclasses.is_dataclass(one) else one for name, one in plain.items()}


def to_plain(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as a dict of its sections, with every key that is not None."""
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
    """Return the configuration as TOML, with every key that is not None. `from_toml` converts it back."""
    return tomli_w.dumps(to_plain(config))


def commented_toml(config: TrainConfig) -> str:
    """Return the configuration as TOML in lines of 80 columns. A comment after each key describes the key.

    A key that is None has no value in TOML: it becomes a comment at the beginning of its section.
    """
    meanings = {key.name: key.meaning for key in keys()}
    lines = to_toml(config).splitlines()
    unset = meanings.keys() - _names_in(to_plain(config))
    section, commented = "", []
    for line in lines:
        key, _, _ = line.partition(" = ")
        if line.startswith("["):
            section = line.strip("[]")
        if f"{section}.{key}" in meanings:
            commented += _with_comment(line, meanings[f"{section}.{key}"])
            continue
        commented.append(line)  # the head of a section, or a text in a list of several lines
        if line == f"[{section}]":
            for name in meanings:
                head, _, last = name.rpartition(".")
                if head == section and name in unset:
                    commented += _with_comment(f"# {last} = ...", meanings[name])
    return "\n".join(commented) + "\n"


def _names_in(table: dict[str, Any], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for key, value in table.items():
        names |= _names_in(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return names


def _with_comment(line: str, meaning: str) -> list[str]:
    first = max(len(line), 22)
    parts = textwrap.wrap(meaning, max(_COLUMNS - first - 4, 30))
    return [f"{start:<{first}}  # {part}" for start, part in zip((line, *[""] * len(parts)), parts, strict=False)]


def from_toml(
    content: str,
    where: str = "the configuration",
    overrides: Iterable[str] = (),
    init: Checkpoint | None = None,
) -> TrainConfig:
    """Return the configuration in a TOML text. Keys that are not in it have their defaults.

    where: the name of the file, for messages.
    overrides: settings "section.key=VALUE", with VALUE as in TOML, which replace the values in the text.
    init: the model that training starts from. The keys of [model] have its values, and must not be set to other values.

    Raises ConfigurationError, or ConfigurationTypeError for a value of the wrong type. The message names the key, and
    `where` if the text is wrong.
    """
    if not isinstance(content, str):
        raise TinyNNTypeError(f"{where} must be a str, got {type(content).__name__}")
    overrides = tuple(overrides)
    try:
        return _parsed_config(content, overrides, init)
    except TinyNNValueError as error:
        wrong = error
    if overrides:
        try:
            _parsed_config(content, (), init)
            where = spelled("the settings", "--set")  # the text is correct, so an override is wrong
        except TinyNNValueError as error:
            wrong = error
    kind = ConfigurationTypeError if isinstance(wrong, TinyNNTypeError) else ConfigurationError
    raise kind(f"{where}: {wrong}") from None


def _parsed_config(content: str, overrides: tuple[str, ...], init: Checkpoint | None) -> TrainConfig:
    """Return the configuration in a TOML text, changed by the overrides. A ConfigurationError names the key."""
    try:
        table = _parsed(content)
    except ValueError as error:
        raise ConfigurationError(f"the text is not valid TOML: {error}") from None
    _leave_out_the_other_length(table, overrides)
    for override in overrides:
        _override(table, override)
    train = table.get("train")
    if isinstance(train, dict) and train.keys() >= _LENGTHS:
        raise ConfigurationError("train.steps and train.epochs cannot both be given; leave out one of these keys")
    for section in table.values():
        if isinstance(section, dict) and (wrong := VOCABULARY & section.keys()):
            raise ConfigurationError(f"unknown key {min(wrong)!r}: {NO_VOCABULARY_KEY}")
    for keys_there in (table, *(section for section in table.values() if isinstance(section, dict))):
        if wrong := THREADS & keys_there.keys():
            raise _threads_are_no_key(min(wrong))
    if init is not None and isinstance(table.get("model"), dict):
        table["model"] = _model_table(table["model"], init)
    known = [key.name for key in keys()]
    try:
        return from_plain(TrainConfig, table, similar=lambda key: similar_key(key, known))
    except TinyNNTypeError as error:
        raise ConfigurationTypeError(str(error)) from None


def _threads_are_no_key(key: str) -> ConfigurationError:
    return ConfigurationError(
        f"unknown key {key!r}: the number of threads is not a part of the configuration; use "
        f"{spelled('the argument n_threads', 'the option --threads')}"
    )


def _model_table(given: Mapping[str, Any], init: Checkpoint) -> dict[str, Any]:
    """Return the section [model] with the values of an existing model. Raises ConfigurationError for other values."""
    existing = _without_none(_table(ModelArgs.of_shape(init.contents.shape)))
    shape, values = flat(existing), flat(given)
    for key, value in values.items():
        if key in shape and shape[key] != value and (key, value) != ("head_dim", 0):
            raise ConfigurationError(
                f"model.{key} = {value!r:.60} differs from {shape[key]!r}, the value of the model in {init.path}; "
                f"leave out model.{key}, because training keeps the shape of the model that it starts from"
            )
    scaling = {**existing["rope_scaling"], **given.get("rope_scaling", {})}
    return {**existing, **given, "rope_scaling": scaling, "head_dim": existing["head_dim"]}


def read_config(path: Path, overrides: Iterable[str] = (), init: Checkpoint | None = None) -> TrainConfig:
    """Return the configuration in a TOML file. Raises the errors of `from_toml`; FileFormatError if the file is not
    UTF-8 text; or OSError if the file cannot be read.
    """
    path = path_of("path", path)
    return from_toml(read_text(path, _LARGEST), str(path), overrides, init)


def keys_in(path: Path) -> dict[str, Any]:
    """Return the keys "section.key" that a TOML file sets, with their values. Raises the errors of `read_config`."""
    read_config(path)
    return flat(_parsed(read_text(path_of("path", path), _LARGEST)))


def differences(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return the keys "section.key" whose values differ in two configurations, with both values."""
    one, other = flat(_table(a)), flat(_table(b))
    return {key: (one.get(key), other.get(key)) for key in {**one, **other} if one.get(key) != other.get(key)}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the keys of nested tables as in error messages, like "train.steps", with the values that are not None."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{key}."))
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def _parsed(content: str) -> dict[str, Any]:
    """Return TOML as a dict. Raises ValueError with the reason, or its subclass TOMLDecodeError for wrong syntax."""
    try:
        table: dict[str, Any] = tomllib.loads(content)
    except RecursionError:
        raise ValueError("a list or table is nested too deeply for Python's TOML parser; use fewer levels") from None
    return table


def _leave_out_the_other_length(table: dict[str, Any], overrides: Iterable[object]) -> None:
    """Remove train.steps from the table if the overrides set only train.epochs, and train.epochs if they set only
    steps.
    """
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
        if sign and key.strip() in THREADS:
            raise _threads_are_no_key(key.strip())
        meant = similar_key(key, [one.name for one in keys()]) if sign else None
        hint = "" if meant is None else f"; did you mean {meant}={value.strip():.40}?"
        raise ConfigurationError(
            f"a setting must be section.key=VALUE, like optimizer.lr=1e-3, got {override!r:.80}{hint}"
        )
    for name in names[:-1]:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{override!r:.80} is not a setting, because {name} is not a section")
        table = inner
    try:
        parsed = _parsed(f"x = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {"x": value.strip()}  # a text without quotes; a later check refuses it if the key takes a number
    except ValueError as error:
        raise ConfigurationError(f"{key.strip()}: {value.strip():.40}... is not a TOML value: {error}") from None
    if len(parsed) > 1:
        raise ConfigurationError(f"{override!r:.80} sets more keys than {key.strip()}; use one setting for each key")
    table[names[-1]] = parsed["x"]

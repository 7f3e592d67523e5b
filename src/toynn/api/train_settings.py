"""Build the configuration of a run from a TOML file, from single settings, and from the run that is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from toynn.arguments import shown
from toynn.errors import ConfigurationError, ConfigurationTypeError
from toynn.extras import naming_the_extra
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.storage.checkpoint.reading import named_checkpoint
from toynn.training.config import TrainConfig
from toynn.training.key_names import NO_VOCABULARY_KEY, VOCABULARY, similar_key
from toynn.training.optimizer_config import CHANGEABLE
from toynn.training.start import own_config
from toynn.training.toml_config import from_toml, key_set, keys, keys_in, read_config, to_toml

with naming_the_extra():
    import tomli_w


def config_of(
    config: TrainConfig | Path | None,
    overrides: Iterable[str] = (),
    *,
    init: Checkpoint | None = None,
    resumed: Path | None = None,
    resume_from: str | None = None,
) -> TrainConfig | None:
    """Return a configuration with the overrides ("section.key=VALUE") applied to it.

    config: a configuration, or the path of a TOML file. None: the configuration of the resumed run, or the defaults.
    init: the model that training starts from, which determines the section [model].

    If config is None and there are no overrides, the result is None, and `toynn.training.train` takes the configuration
    of the resumed run or the defaults.

    Raises ConfigurationError, which names the key. Also raises the errors of `load_checkpoint` for the resumed run.
    """
    overrides = tuple(overrides)
    if isinstance(config, Path):
        return read_config(config, overrides, init)
    if not overrides:
        return config
    if config is not None:
        return from_toml(to_toml(config), "config", overrides, init)
    if resumed is not None:
        return own_config(checkpoint_to_resume(resumed, resume_from), overrides)
    return from_toml("", "the defaults", overrides, init)


def settings_as_toml(settings: Mapping[str, object]) -> str:
    """Return settings as the TOML text of a complete configuration. Raises the errors of `overrides_of`."""
    return to_toml(from_toml("", "the settings", overrides_of(settings)))


def settings_in(path: Path) -> list[str]:
    """Return the keys that a TOML file sets, as overrides. Raises the errors of `read_config`."""
    return overrides_of(keys_in(path))


def changes_of(overrides: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of optimizer and schedule that the overrides set, for `TrainArgs.changes`."""
    return tuple(sorted({key_set(override) for override in overrides} & set(CHANGEABLE)))


def checkpoint_to_resume(run: Path, resume_from: str | None) -> Checkpoint:
    """Return the checkpoint from which a run is resumed: the one called resume_from, or the latest one.

    The configuration is read from this checkpoint and not from run.toml. After a crash, run.toml may be newer than the
    latest checkpoint.
    """
    return load_checkpoint(run) if resume_from is None else named_checkpoint(run, resume_from)


def overrides_of(settings: Mapping[str, object]) -> list[str]:
    """Return the settings of a call as overrides, "section.key=VALUE".

    A name is one of these: a full key ("optimizer.lr"); the last part of a key ("lr"), if no other key has the same
    last part; or a section ("checkpoint"), whose value is a mapping or dataclass of keys. A setting whose value is None
    is left out.

    Raises ConfigurationError for an unknown or ambiguous name, or ConfigurationTypeError for a value of the wrong type.
    """
    known = [key.name for key in keys()]
    return [f"{name}={_toml_value(name, value)}" for name, value in _flat(settings, known) if value is not None]


def _flat(settings: Mapping[str, object], known: list[str]) -> Iterator[tuple[str, object]]:
    sections = {name.rpartition(".")[0] for name in known}
    for name, value in settings.items():
        if name not in sections:
            yield _key_of(name, known), value
            continue
        section = value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            section = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
            if section.get("epochs") is not None:
                # train.epochs decides the number of steps, so the default value of train.steps is left out
                del section["steps"]
        if not isinstance(section, Mapping):
            raise ConfigurationTypeError(
                f"{name} is a section, so its value must be a mapping of keys to values, got {shown(value)}"
            )
        yield from _flat({f"{name}.{key}": one for key, one in section.items()}, known)


def _key_of(name: str, known: list[str]) -> str:
    """Return the full name of a key."""
    if name in known:
        return name
    found = [key for key in known if key.count(".") == 1 and key.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(
            f"the setting {name} is ambiguous: it could be {' or '.join(found)}; write for example "
            f"{found[0].partition('.')[0]}={{{name!r}: ...}}"
        )
    if name.rpartition(".")[2] in VOCABULARY:
        raise ConfigurationError(f"unknown setting {name!r}: {NO_VOCABULARY_KEY}")
    meant = similar_key(name, known)
    if meant is not None and "." not in name:
        short = meant.rpartition(".")[2]
        meant = short if sum(key.count(".") == 1 and key.endswith(f".{short}") for key in known) == 1 else meant
    hint = "`toynn train --show-config` lists all settings" if meant is None else f"did you mean {meant!r}?"
    raise ConfigurationError(f"unknown setting {name!r:.60}; {hint}")


def _toml_value(name: str, value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    a_list = isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value)
    if not a_list and not isinstance(value, bool | int | float | str):
        raise ConfigurationTypeError(
            f"{name} must be a number, a bool, a str, or a list of integers or of str, got {shown(value)}"
        )
    try:
        # tomli_w writes a list in several lines
        return " ".join(tomli_w.dumps({"x": value}).partition("=")[2].split("\n")).strip()
    except ValueError:  # Python refuses to print an integer with more than 4300 digits
        raise ConfigurationError(f"{name} must be a number with fewer digits, got {shown(value)}") from None

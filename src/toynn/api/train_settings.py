"""Build a training configuration from a file, the settings of a call, and the configuration of a resumed run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from toynn.arguments import shown
from toynn.errors import ConfigurationError, ConfigurationTypeError
from toynn.extras import naming_the_extra
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.storage.checkpoint.run_folder import named_checkpoint
from toynn.training.config import CHANGEABLE, TrainConfig
from toynn.training.key_names import similar_key
from toynn.training.start import own_config
from toynn.training.toml_config import from_toml, key_set, keys, read_config, to_toml

with naming_the_extra():
    import tomli_w


def config_of(
    config: TrainConfig | Path | None,
    overrides: Iterable[str] = (),
    where: str = "the settings",
    *,
    resumed: Path | None = None,
    resume_from: str | None = None,
) -> TrainConfig | None:
    """Return the configuration with the overrides ("section.key=VALUE") applied to it.

    config: a configuration or a TOML file. None stands for that of the resumed run, or for the defaults; without
    overrides the result is None then too, and `toynn.training.train` fills it in. where: names the overrides in errors.

    Raises ConfigurationError naming the key; what `load_checkpoint` raises for the resumed run.
    """
    overrides = tuple(overrides)
    if isinstance(config, Path):
        return read_config(config, overrides)
    if not overrides:
        return config
    if config is not None:
        return from_toml(to_toml(config), where, overrides)
    if resumed is not None:
        return own_config(checkpoint_to_resume(resumed, resume_from), overrides)
    return from_toml("", where, overrides)


def changes_of(overrides: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of the overrides that a resumed run may change only on request: see `TrainArgs.changes`."""
    return tuple(sorted({key_set(override) for override in overrides} & set(CHANGEABLE)))


def checkpoint_to_resume(run: Path, resume_from: str | None) -> Checkpoint:
    """Return the checkpoint that a run continues from: the named one, or the latest.

    Its configuration counts, not the one in run.toml, which may describe steps that were lost.
    """
    return load_checkpoint(run) if resume_from is None else named_checkpoint(run, resume_from)


def overrides_of(settings: Mapping[str, object]) -> list[str]:
    """Return the settings of a call as overrides, "section.key=VALUE".

    A name is a key ("optimizer.lr"), the last part of one if that is unique ("lr"), or a section ("checkpoint") with a
    mapping or dataclass of its keys. None leaves a setting unchanged.

    Raises ConfigurationError for an unknown or ambiguous name, ConfigurationTypeError for a value of the wrong type.
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
                del section["steps"]  # train.epochs decides
        if not isinstance(section, Mapping):
            raise ConfigurationTypeError(
                f"{name} is a section: its value must be a mapping of its keys, got {shown(value)}"
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
            f"{name} is ambiguous: it could be {' or '.join(found)}; write for example "
            f"{found[0].partition('.')[0]}={{{name!r}: ...}}"
        )
    meant = similar_key(name, known)
    if meant is not None and "." not in name:
        short = meant.rpartition(".")[2]
        meant = short if sum(key.count(".") == 1 and key.endswith(f".{short}") for key in known) == 1 else meant
    hint = "; `toynn train --show-config` lists all settings" if meant is None else f"; did you mean {meant!r}?"
    raise ConfigurationError(f"there is no setting {name!r:.60}{hint}")


def _toml_value(name: str, value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool | int | float | str):
        raise ConfigurationTypeError(f"{name} must be a number, a bool or a str, got {type(value).__name__}")
    try:
        return tomli_w.dumps({"x": value}).partition("=")[2].strip()
    except ValueError:  # a number with more digits than Python prints
        raise ConfigurationError(f"{name} has too many digits, got {shown(value)}") from None

"""Errors of the configuration name the place that the user has to change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from toynn import ConfigurationError, TinyNNTypeError, TinyNNValueError
from toynn.data.folder import DataFolder
from toynn.storage.regular_files import path_of
from toynn.training import TrainArgs
from toynn.training.toml_config import from_toml
from toynn.wording import on_the_command_line

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("content", "overrides", "says"),
    [
        ("[optimizer]\nlr = 0.1\n", ["optimizer.lr=-1"], r"^the settings: optimizer\.lr must"),
        ("[optimizer]\nlr = -1\n", ["train.steps=3"], r"^run\.toml: optimizer\.lr must"),
        ("[optimizer]\nlr = -1\n", ["train.steps=0"], r"^run\.toml: optimizer\.lr must"),
        ("[train]\nsteps = 9\n", ["schedule.kind=3"], r"^the settings: schedule\.kind must"),
        ("[train]\nstep = 9\n", ["train.steps=3"], r"^run\.toml: unknown key 'train\.step'"),
        ("[train]\nsteps = 9\n", ["train.steps=3", "train.epochs=3"], r"^the settings: train\.steps and train\.epochs"),
        ("[train]\nsteps = 9\n", ["train.steps"], "^the settings: a setting must be"),
    ],
)
def test_an_error_names_the_overrides_or_the_file(content: str, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        from_toml(content, "run.toml", overrides)


def test_an_override_can_correct_a_file() -> None:
    assert from_toml("[optimizer]\nlr = -1\n", "run.toml", ["optimizer.lr=1"]).optimizer.lr == 1.0


def test_a_value_of_the_wrong_type_is_still_a_type_error() -> None:
    with pytest.raises(TinyNNTypeError, match=r"^the settings: train\.steps must be an integer"):
        from_toml("", "run.toml", ["train.steps=0.5"])


@pytest.mark.parametrize("key", ["model.vocab", "model.vocab_size", "train.vocab_size"])
def test_a_vocabulary_size_is_refused_with_the_place_that_sets_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown key '{key.split('.')[1]}': .* comes from the data"):
        from_toml("", overrides=[f"{key}=300"])


@pytest.mark.parametrize("key", ["train.threads", "train.n_threads", "n_threads", " threads "])
def test_a_number_of_threads_is_refused_with_the_place_that_sets_it(key: str) -> None:
    says = f"unknown key '{key.strip().split('.')[-1]}': the number of threads is not a part of the configuration"
    with pytest.raises(ConfigurationError, match=f"{says}; use the argument n_threads"):
        from_toml("", overrides=[f"{key}=2"])
    with on_the_command_line(), pytest.raises(ConfigurationError, match=f"^--set: {says}; use the option --threads"):
        from_toml("", overrides=[f"{key}=2"])


@pytest.mark.parametrize(
    "use",
    [
        lambda: TrainArgs(Path("d"), ""),  # type: ignore[arg-type]
        lambda: TrainArgs("", Path("r")),  # type: ignore[arg-type]
        lambda: path_of("out", ""),
        lambda: DataFolder.open(""),  # type: ignore[arg-type]
    ],
)
def test_an_empty_path_does_not_mean_the_current_folder(use: Callable[[], object]) -> None:
    with pytest.raises(TinyNNValueError, match="must be a path, got an empty text"):
        use()

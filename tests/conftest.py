"""Fixtures that several test files use."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test depends on the time that it takes, because other programs may use the machine at the same time.
settings.register_profile("toynn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("toynn")

# A background job of a shell ignores Ctrl-C. The processes that the tests start would inherit this setting.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip modules without quick tests if only quick tests run, because some of these modules import PyTorch."""
    if config.option.markexpr != "quick" or collection_path.suffix != ".py":
        return None
    return "mark.quick" not in collection_path.read_text(encoding="utf-8") or None


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder. Tests must not change this folder."""
    from small_runs import make_data

    return make_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps. Tests must not change the run, so they change only copies."""
    from small_runs import config
    from toynn import TrainArgs, train

    run = tmp_path_factory.mktemp("runs") / "run"
    train(TrainArgs(data, run, config(5)))
    return run


@pytest.fixture(scope="session")
def toynn_command() -> str:
    """Path of the installed `toynn` command."""
    return str(Path(sys.executable).with_name("toynn"))

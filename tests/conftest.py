"""Fixtures of several test files."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

# A background job of a shell ignores Ctrl-C, and so would whatever the tests start from one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder, not to be changed."""
    from small_runs import make_data

    return make_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="session")
def toynn_command() -> str:
    """The path of the installed `toynn` command."""
    return str(Path(sys.executable).with_name("toynn"))

"""Fixtures of several test files."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder, not to be changed."""
    from small_runs import make_data

    return make_data(tmp_path_factory.mktemp("data") / "data")

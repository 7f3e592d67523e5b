"""Fixtures for tests of the fused layout."""

from __future__ import annotations

from typing import Any

import pytest

from toynn.llm.fused import graph


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes graphs compute the logits in parts, with the given number of rows in a part."""

    def set_rows(rows: int) -> None:
        monkeypatch.setattr(graph, "LOGITS_NBYTES", 0)
        monkeypatch.setattr(graph, "LEAST_ROWS", rows)
        monkeypatch.setattr(graph, "parts_save_memory", lambda *_: True)

    return set_rows

"""The benchmark of decoding: the ratio of a row, and the text that is written into a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.decoding import BEGIN, END, Speeds, row, write

from paths import ROOT


def test_a_row_has_the_median_of_the_ratios_of_the_turns() -> None:
    ours, theirs = Speeds([30.0, 10.0, 40.0], [2.0, 4.0, 3.0]), Speeds([10.0, 10.0, 10.0], [2.0, 1.0, 2.0])
    assert row("q8_0", 2, ours, theirs) == (
        "| q8_0 | 2 | 3.0 | 2.0 | 1.50 (1.00 - 4.00) | 30.0 | 10.0 | 3.00 (1.00 - 4.00) |"
    )


def test_the_table_replaces_the_text_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write("new", page)
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="must contain the lines"):
        write("new", page)


def test_the_page_of_the_benchmark_has_the_markers() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert 0 < text.index(BEGIN) < text.index(END)

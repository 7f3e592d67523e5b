"""docs/ruby.md: its Python column runs, gives the values of the third column, and has the names of the Ruby column."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paths import ROOT

PAGE = (ROOT / "docs" / "ruby.md").read_text(encoding="utf-8")
CELL = re.compile(r"^`(?P<code>.*)`$")


@dataclass(frozen=True)
class Row:
    ruby: str
    python: str
    gives: str


def sections() -> dict[str, tuple[str, list[Row]]]:
    """Return the sections with a Python block: its code, and the rows of the table after it."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        block = re.search(r"```python\n(.*?)```", body, flags=re.DOTALL)
        if block is None:
            continue
        rows = []
        for line in body[block.end() :].splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| ") else []
            if len(cells) == 3 and cells[0] not in ("Ruby", "---"):
                codes = [(match["code"] if (match := CELL.match(cell)) else "") for cell in cells]
                rows.append(Row(*codes))
        found[title] = (block[1], rows)
    return found


SECTIONS = sections()


def test_the_page_has_sections_with_many_rows() -> None:
    assert len(SECTIONS) == 6
    assert all(len(rows) >= 12 for _, rows in SECTIONS.values())
    assert all(row.python for _, rows in SECTIONS.values() for row in rows)


@pytest.mark.parametrize("title", SECTIONS)
def test_the_python_column_runs_and_gives_the_values(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    block, rows = SECTIONS[title]
    names: dict[str, Any] = {}
    exec(block, names)
    compared = 0
    for row in rows:
        if not row.gives:
            exec(row.python, names)
            continue
        found, want = eval(row.python, names), ast.literal_eval(row.gives)
        close = isinstance(want, float) and math.isclose(found, want, rel_tol=1e-6)
        assert close or found == want, row.python
        assert type(found) is type(want), row.python
        compared += 1
    assert compared >= 3


CALL = re.compile(r"\b(?:TinyNN|ToyLR|(?<!\.)labels|Toy::Labels)\.(\w+)")


@pytest.mark.parametrize("title", SECTIONS)
def test_both_columns_call_the_same_functions(title: str) -> None:
    """Only the calls that read GGUF files have another name in Python."""
    for row in SECTIONS[title][1]:
        ruby = [name for name in CALL.findall(row.ruby) if not name.startswith("tnn_gguf")]
        if row.ruby:
            assert ruby == CALL.findall(row.python), row.ruby

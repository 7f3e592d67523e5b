"""The benchmark of checkpoints, imports and the start of commands: its table, the plain write, and its model."""

from __future__ import annotations

from pathlib import Path

from benchmarks.around_the_step import COMMAND, Row, markdown, plain_write, tokenizer_json
from benchmarks.report import BEGIN

from paths import ROOT
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer


def test_a_row_has_the_median_of_the_ratios_of_the_turns() -> None:
    rows = [
        Row("save", "plain write", 3_000_000, [3.0, 1.0, 2.0], [], [1.0, 1.0, 1.0]),
        Row("help", "Python", 0, [0.2, 0.1], [0.5, 0.1], [0.05, 0.05]),
    ]
    lines = markdown(rows, 0.0).splitlines()
    assert lines[-2:] == [
        "| save | 2.000 | 1.500 - 2.500 |  | 3 | 2 | plain write | 1.000 | 2.00 (1.50 - 2.50) |",
        "| help | 0.150 | 0.125 - 0.175 | 0.30 |  |  | Python | 0.050 |  |",
    ]


def test_a_plain_write_leaves_no_file(tmp_path: Path) -> None:
    assert plain_write(tmp_path / "file", 9 << 20) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_has_the_asked_number_of_tokens() -> None:
    tokenizer = parsed_tokenizer(tokenizer_json(600))
    assert ids_needed(tokenizer) == 600
    assert tokenizer.decode(tokenizer.encode("The capital, é").ids) == "The capital, é"


def test_the_page_of_the_benchmark_has_the_marker() -> None:
    assert BEGIN.format(command=COMMAND) in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")

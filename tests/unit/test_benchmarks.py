"""The tables of the benchmarks of training: which rows are compared, and the best program of PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from benchmarks import adapters, long_context, machine, measure
from benchmarks.measure import Row
from benchmarks.program_process import ProgramError
from benchmarks.report import BEGIN, Run, markdown, read_json, speedup, write_json
from benchmarks.shapes import ADAPTER_SHAPES, LONG_SHAPES, SHAPES

from paths import ROOT


def rows(seconds: dict[str, list[float]], threads: int = 1) -> list[Row]:
    """Return a row for each program. seconds: the duration of the only step in each turn, by program."""
    return [
        Row(SHAPES["small"], threads, name, [[one] for one in turns], peak_rss=2**20) for name, turns in seconds.items()
    ]


def run_of(*groups: list[Row]) -> Run:
    peaks = {n: dict.fromkeys(measure.MATMULS, 100.0) for n in (1, 2)}
    return Run([row for group in groups for row in group], peaks, 0.0)


def table(text: str, begin: str) -> list[list[str]]:
    """Return the cells of the table whose first line contains `begin`, one list for each row."""
    lines = next(part for part in text.split("\n\n") if begin in part.partition("\n")[0]).splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_toynn_is_compared_with_the_fastest_program_of_pytorch_in_the_same_turns() -> None:
    run = run_of(
        rows({"toynn": [1.0, 2.0, 1.0], "toynn-bf16": [0.5, 0.5, 0.5], "torch": [9.0] * 3, "torch-bf16": [2.0] * 3}),
        rows({"toynn": [1.0], "torch": [3.0], "torch-compile": [0.8]}, threads=2),
    )
    assert table(markdown(run), "fastest program") == [
        ["small", "1", "PyTorch, eager, bfloat16 autocast", "2000.0", "2.00 (1.50 - 2.00)", "4.00 (4.00 - 4.00)"],
        ["small", "2", "PyTorch, compiled", "800.0", "0.80 (0.80 - 0.80)", "-"],
    ]


def test_a_program_that_did_not_run_is_not_the_fastest() -> None:
    group = rows({"toynn": [1.0], "torch": [3.0], "torch-compile-bf16": []})
    group[-1].note = "does not work on this machine"
    text = markdown(run_of(group))
    assert [row[2] for row in table(text, "fastest program")] == ["PyTorch, eager"]
    skipped = ["small", "1", "PyTorch, compiled, bfloat16 autocast", "does not work on this machine"]
    assert skipped in [row[:4] for row in table(text, "minimum")]
    assert "fastest program" not in markdown(run_of(rows({"toynn": [1.0], "toynn-bf16": [1.0]})))


def test_a_speedup_is_the_median_over_the_turns() -> None:
    slow, fast = rows({"torch": [2.0, 6.0, 4.0], "toynn": [1.0, 2.0, 1.0]})
    assert speedup(slow, fast) == "3.00 (2.50 - 3.50)"
    assert speedup(fast, fast) == "1"
    assert speedup(slow, None) == "-"


@pytest.mark.parametrize("name", [*measure.LABELS, *adapters.LABELS])
def test_only_programs_in_bfloat16_may_have_other_losses(name: str) -> None:
    assert (measure.tolerance(name) > 0.01) == ("bf16" in name)


def test_adapters_in_bfloat16_have_a_column_beside_the_quantized_base() -> None:
    shape = ADAPTER_SHAPES["smol-256"]
    seconds = {"toynn": [1.0], "toynn-bf16": [2.0], "peft": [3.0], "peft-bf16": [4.0]}
    group = [dataclasses.replace(row, shape=shape) for row in rows({**seconds})]
    found = table(adapters.markdown(run_of(group)), "of toynn in bfloat16")
    assert [row[6:8] for row in found] == [
        ["1", "0.50 (0.50 - 0.50)"],
        ["2.00 (2.00 - 2.00)", "1"],
        ["3.00 (3.00 - 3.00)", "1.50 (1.50 - 1.50)"],
        ["4.00 (4.00 - 4.00)", "2.00 (2.00 - 2.00)"],
    ]


def test_long_sequences_have_the_memory_of_a_token_and_the_share_of_the_peak() -> None:
    shape = LONG_SHAPES["small-4096"]
    group = rows({"toynn": [2.0, 2.0, 2.0], "torch": [3.0, 5.0, 4.0]}, threads=2)
    sizes = ((2**20, 2**20 + 4096 * 2**11), (2**20, 2**20 + 4096 * 2**12))
    group = [
        dataclasses.replace(row, shape=shape, rss_import=begin, peak_rss=peak)
        for row, (begin, peak) in zip(group, sizes, strict=True)
    ]
    gflops = shape.step_flop / 2e9
    found = table(long_context.markdown(run_of(group)), "KiB for each token")
    assert found == [
        ["4096", "2", "toynn", "2.00", "2048", f"{gflops:.0f}", f"{gflops:.0f}%", "1", "9", "1.00", "2"],
        ["4096", "2", "PyTorch, eager", "4.00", "1024", f"{gflops / 2:.0f}", f"{gflops / 2:.0f}%",
         "2.00 (1.75 - 2.25)", "17", "0.53", "4"],
    ]  # fmt: skip


def test_the_page_of_the_benchmarks_has_their_markers() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for command in ("make bench", "make bench-adapters", "make bench-long"):
        assert text.count(BEGIN.format(command=command)) == 1


def test_results_can_be_read_again_and_sorted(tmp_path: Path) -> None:
    run = run_of(rows({"toynn": [1.0, 2.0], "torch": [3.0, 4.0]}, threads=2), rows({"toynn": [5.0]}))
    write_json(run, tmp_path / "x.json")
    found = read_json(tmp_path / "x.json")
    assert found == run
    found.sort()
    assert [(row.threads, row.program) for row in found.rows] == [(1, "toynn"), (2, "toynn"), (2, "torch")]


def test_results_of_another_machine_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(run_of(rows({"toynn": [1.0]})), tmp_path / "x.json")
    monkeypatch.setattr(machine, "description", lambda: "aarch64, 4 core(s)")
    with pytest.raises(ProgramError, match=r"^x\.json has measurements of another machine \(.+\); leave out --add"):
        read_json(tmp_path / "x.json")

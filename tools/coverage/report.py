"""What of csrc ran, file by file, and what did not: report.py csrc.json [--lines 97] [--branches 95].

Reads gcovr's JSON. Ends with exit status 1 where less than so many percent of all lines or branches were reached.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Counts:
    """Reached and all lines, reached and all branches; and the lines of the branches that were not."""

    lines: int = 0
    all_lines: int = 0
    branches: int = 0
    all_branches: int = 0
    missed: dict[int, int] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        self.lines += other.lines
        self.all_lines += other.all_lines
        self.branches += other.branches
        self.all_branches += other.all_branches

    def row(self, name: str) -> str:
        return (
            f"{name:34} {self.lines:6} of {self.all_lines:5} {percent(self.lines, self.all_lines):6.1f}%"
            f" {self.branches:6} of {self.all_branches:5} {percent(self.branches, self.all_branches):6.1f}%"
        )


def percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def counted(lines: list[dict[str, Any]]) -> Counts:
    """A line that is compiled twice (a header's, a template's) has reached what any of its copies has."""
    hit: dict[int, bool] = {}
    taken: dict[tuple[int, int], bool] = {}
    for line in lines:
        number = line["line_number"]
        hit[number] = hit.get(number, False) or line["count"] > 0
        for i, branch in enumerate(line["branches"]):
            taken[number, i] = taken.get((number, i), False) or branch["count"] > 0
    counts = Counts(sum(hit.values()), len(hit), sum(taken.values()), len(taken))
    for (number, _), reached in taken.items():
        if not reached:
            counts.missed[number] = counts.missed.get(number, 0) + 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("--lines", type=float, default=0.0, help="least percent of the lines")
    parser.add_argument("--branches", type=float, default=0.0, help="least percent of the branches")
    words = parser.parse_args()
    files = {entry["file"]: counted(entry["lines"]) for entry in json.loads(words.json.read_text())["files"]}
    total = Counts()
    for counts in files.values():
        total.add(counts)
    if total.all_branches == 0:
        print("coverage: nothing was counted", file=sys.stderr)
        return 1

    print("branches that no test reached, with how many of the line's:")
    for name, counts in files.items():
        source = Path(name).read_text(encoding="utf-8").splitlines()
        for number, n in sorted(counts.missed.items()):
            print(f"  {name}:{number}: {n}: {source[number - 1].strip()}")
    print(f"\n{'file':34} {'lines':>24} {'branches':>24}")
    for name, counts in [*files.items(), ("all", total)]:
        print(counts.row(name))
    well = True
    for what, reached, floor in (
        ("lines", percent(total.lines, total.all_lines), words.lines),
        ("branches", percent(total.branches, total.all_branches), words.branches),
    ):
        if reached < floor:
            print(f"coverage: {reached:.2f} % of the {what} were reached, the floor is {floor:g} %", file=sys.stderr)
            well = False
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

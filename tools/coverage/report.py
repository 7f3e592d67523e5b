"""Report how many lines and branches of csrc the tests reached, and which branches they missed.

    python tools/coverage/report.py csrc.json [--lines 97] [--branches 95]

The input is the JSON output of gcovr. The exit status is 1 if the percentage of reached lines or branches is below the
required minimum.
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
    """The coverage of a file: how many lines and branches the tests reached, and how many lines and branches exist.

    missed: missed branches by line number.
    """

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
    """Count the lines of a file. A line that is compiled several times counts as reached if any copy is reached."""
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
    parser.add_argument("json", type=Path, help="JSON output of gcovr.")
    parser.add_argument("--lines", type=float, default=0.0, help="Minimum percentage of lines that tests reach.")
    parser.add_argument("--branches", type=float, default=0.0, help="Minimum percentage of branches that tests reach.")
    options = parser.parse_args()
    files = {entry["file"]: counted(entry["lines"]) for entry in json.loads(options.json.read_text())["files"]}
    total = Counts()
    for counts in files.values():
        total.add(counts)
    if total.all_branches == 0:
        print(f"coverage: {options.json} contains no branches; the build did not count coverage", file=sys.stderr)
        return 1

    print("Branches that no test reached, as file:line: number of branches: source line")
    for name, counts in files.items():
        source = Path(name).read_text(encoding="utf-8").splitlines()
        for number, n in sorted(counts.missed.items()):
            print(f"  {name}:{number}: {n}: {source[number - 1].strip()}")
    print(f"\n{'file':34} {'lines':>24} {'branches':>24}")
    for name, counts in [*files.items(), ("all", total)]:
        print(counts.row(name))
    passed = True
    for what, reached, floor in (
        ("lines", percent(total.lines, total.all_lines), options.lines),
        ("branches", percent(total.branches, total.all_branches), options.branches),
    ):
        if reached < floor:
            print(f"coverage: {reached:.2f} % of the {what} were reached, fewer than {floor:g} %", file=sys.stderr)
            passed = False
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

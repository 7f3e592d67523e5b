"""Compare the golden curves between builds, Python versions, thread counts and process conditions, bit for bit.

Every cell of the matrix runs all golden curves in a separate process and compares each loss and the sha256 of the
weights with the fixture. The tables are written to docs/determinism.md. If this machine cannot compute a cell, the
table shows the reason, and the cell is not counted. A cell that already ran with the same source code is not run
again, unless `--rerun` is given.
The exit status is 1 if a promised cell differs, or if toynn does not build with an installed compiler.
`make determinism-matrix` runs this script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import toynn
from conditions import CONDITIONS, Condition
from determinism_builds import BuildFailedError, Builds, Installed, NotRunError, found_pythons
from determinism_journal import Journal, Outcome, source_digest
from paths import DOCS, ROOT
from record_fixtures import compute, fixture_path
from toynn import tinynn as nn

PAGE = DOCS / "determinism.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"

PLAIN = CONDITIONS[0]
# glibc has variants of its functions for different CPUs. This environment variable selects the variants for a CPU
# without FMA and AVX2.
OTHER_LIBM = Condition("C library functions without FMA", {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2"})


@dataclass(frozen=True)
class Cell:
    """A cell of a table: one run of all curves.

    Attributes:
        build: returns the build; called when the cell is run.
        promised: equal bits are part of the determinism contract.
    """

    row: str
    column: str
    build: Callable[[], Installed]
    n_threads: int = 2
    condition: Condition = PLAIN
    kernel: str = ""
    promised: bool = True


def compare(got: dict[str, Any], recorded: dict[str, Any], compiler: str = "") -> Outcome:
    """Return which curves differ: a curve is equal if all its losses and the sha256 of its weights are equal."""
    if set(got) != set(recorded):
        raise AssertionError(
            "the curves in the fixture are not those in tools/determinism/curves.py; run `make fixtures`"
        )
    differ = tuple(name for name, curve in recorded.items() if got[name] != curve)
    return Outcome(len(recorded), differ, compiler=compiler)


def outcome(cell: Cell, recorded: dict[str, Any]) -> Outcome:
    """Run a cell and compare it with the fixture."""
    condition = cell.condition
    if why := condition.unavailable():
        return Outcome(not_run=why)
    if cell.kernel and cell.kernel not in kernels():
        return Outcome(not_run=f"this CPU does not support the kernel {cell.kernel}")
    try:
        build = cell.build()
    except NotRunError as why_not:
        return Outcome(not_run=str(why_not), broken=isinstance(why_not, BuildFailedError))
    env = {**condition.env, **({"TOYNN_GEMM_KERNEL": cell.kernel} if cell.kernel else {})}
    with condition.load():
        got = compute(
            cell.n_threads, "--times", str(condition.times), python=build.python, prefix=condition.prefix, env=env
        )
    return compare(got, recorded, build.info["compiler"])


def kernels() -> list[str]:
    """Return the names of the matrix product kernels that this CPU supports."""
    names: list[str] = []
    while (name := nn.tnn_gemm_kernel_at(len(names))) is not None:
        names.append(name)
    return names


# ---------------------------------------------------------------- the cells


def cells(builds: Builds, pythons: dict[str, Path]) -> dict[str, list[Cell]]:
    """Return all cells, by the title of their table."""
    tables: dict[str, list[Cell]] = {}
    compiled = [(c, t) for t in ("Release", "Debug") for c in ("gcc", "clang")]
    gcc_release = partial(builds.of, "gcc", "Release")
    tables["Compilers and threads"] = [
        Cell(f"{c} {build_type}", f"{n} threads" if n > 1 else "1 thread", partial(builds.of, c, build_type), n)
        for c, build_type in compiled
        for n in (1, 2, 3, 4)
    ]
    tables["Compilers and kernels of the matrix product"] = [
        Cell(f"{c} {build_type}", kernel, partial(builds.of, c, build_type), kernel=kernel)
        for c, build_type in compiled
        for kernel in ("v8", "avx512")
    ]
    packaged: dict[str, Callable[[], Installed]] = {
        "wheel of the source tree": gcc_release,
        "wheel of the sdist": partial(gcc_release, from_sdist=True),
        "editable": builds.editable,
    }
    tables["Ways to install"] = [Cell(name, "equal", build) for name, build in packaged.items()]
    tables["Pythons, one wheel"] = [
        Cell(f"CPython {version}", "equal", partial(gcc_release, python))
        for version, python in sorted(pythons.items(), key=lambda item: [int(n) for n in item[0].split(".")])
    ]
    tables["Process conditions"] = [
        Cell(condition.name, "equal", gcc_release, condition=condition) for condition in CONDITIONS
    ]
    tables["Not promised"] = [
        Cell(f"{OTHER_LIBM.name}, {c}", "equal", partial(builds.of, c, "Release"), condition=OTHER_LIBM, promised=False)
        for c in ("gcc", "clang")
    ]
    return tables


# ---------------------------------------------------------------- the page


def table(title: str, done: list[tuple[Cell, Outcome]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, followed by the names of the curves that differ."""
    columns = list(dict.fromkeys(cell.column for cell, _ in done))
    yield f"| {title} | {' | '.join(columns)} |"
    yield "| --- |" + " --- |" * len(columns)
    for row in dict.fromkeys(cell.row for cell, _ in done):
        of = {cell.column: out for cell, out in done if cell.row == row}
        yield f"| {row} | {' | '.join(str(of.get(column, '')) for column in columns)} |"
    yield ""
    for cell, out in done:
        if out.differ:
            yield f"{cell.row}, {cell.column}: {', '.join(out.differ)} differ."
            yield ""


def report(results: dict[str, list[tuple[Cell, Outcome]]]) -> str:
    """Return the generated part of the page."""
    promised = [out for done in results.values() for cell, out in done if cell.promised]
    ran = [out for out in promised if not out.not_run]
    equal = [out for out in ran if not out.differ]
    compilers = sorted({out.compiler for out in ran})
    libc = " ".join(part for part in platform.libc_ver() if part)
    n_curves = max((out.total for out in ran), default=0)
    profile = toynn.build_info()["profile"]
    summary = (
        f"**{len(equal)} of {len(ran)} cells are equal bit for bit**, and {len(promised) - len(ran)} cells were "
        f"not run.\nA cell compares every loss and the sha256 of the weights of all {n_curves} curves of the "
        "fixture, in a separate process."
    )
    machine = f"{', '.join(compilers)}, {libc}, {os.cpu_count()} cores, profile {profile}"
    made_by = f"This table was made by `make determinism-matrix` with {machine}."
    lines = [summary, made_by, ""]
    for title, done in results.items():
        lines += table(title, done)
    return "\n".join(lines).rstrip() + "\n"


def put(page: str, part: str) -> str:
    """Return the page with its generated part replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{part}{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python", type=Path, action="append", default=[], help="Path of another Python to test; can be repeated."
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "determinism", help="Folder for the builds.")
    parser.add_argument("--table", action="append", help="Run only the table with this title; can be repeated.")
    parser.add_argument(
        "--rerun", action="store_true", help="Also run those table cells that already ran with the same source code."
    )
    parser.add_argument("--print", action="store_true", help="Print the tables instead of writing docs/determinism.md.")
    options = parser.parse_args()
    recorded: dict[str, Any] = json.loads(fixture_path().read_text(encoding="utf-8"))["curves"]
    builds = Builds(options.folder.resolve())
    journal = Journal(options.folder.resolve() / "outcomes.jsonl", source_digest())
    results: dict[str, list[tuple[Cell, Outcome]]] = {}
    tables = cells(builds, found_pythons(options.python))
    if unknown := sorted(set(options.table or []) - set(tables)):
        parser.error(f"--table {unknown[0]!r} does not exist; the tables are: {'; '.join(tables)}")
    if options.table and not options.print:
        parser.error("--table requires --print, because the page must contain all tables")
    for title, of_table in tables.items():
        results[title] = []
        for cell in of_table:
            out = None if options.rerun else journal.read(title, cell.row, cell.column)
            if out is None and options.table and title not in options.table:
                out = Outcome(not_run="not selected")
            if out is None:
                start = time.monotonic()
                out = outcome(cell, recorded)
                journal.add(title, cell.row, cell.column, out)
                seconds = time.monotonic() - start
                print(f"{cell.row}, {cell.column}: {out} ({seconds:.0f} s)", file=sys.stderr, flush=True)
            results[title].append((cell, out))
    part = report(results)
    if options.print:
        print(part)
    else:
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), part), encoding="utf-8")
    bad = any(out.bad for done in results.values() for cell, out in done if cell.promised)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

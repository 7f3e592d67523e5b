"""`make determinism-matrix`: which builds, Pythons, threads and surroundings give the recorded curves bit for bit.

Every cell runs all golden curves in a process of its own and compares each loss and the sha256 of the weights with the
fixture. The table goes into docs/determinism.md. A cell that this machine cannot compute says why and counts for
nothing; one that was run on this very source, before an interruption say, is not run again (`--anew` does). The exit
status is 1 where a cell that is promised differs, or where toynn does not build with a compiler that is there.
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import toynn
from conditions import SURROUNDINGS, Surroundings
from determinism_builds import BuildFailedError, Builds, Installed, NotRunError, found_pythons
from determinism_journal import Journal, Outcome, source_digest
from paths import DOCS, ROOT
from record_fixtures import compute, fixture_path
from toynn import tinynn as nn

PAGE = DOCS / "determinism.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"

PLAIN = SURROUNDINGS[0]
# glibc chooses variants of its functions by the CPU. It can be told to take those for a CPU without FMA and AVX2.
OTHER_LIBM = Surroundings("the C library's functions without FMA", {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2"})


@dataclass(frozen=True)
class Cell:
    """One run of all curves. build is asked when the cell's turn comes. promised: its bits are part of the contract."""

    row: str
    column: str
    build: Callable[[], Installed]
    n_threads: int = 2
    around: Surroundings = PLAIN
    kernel: str = ""
    promised: bool = True


def compare(got: dict[str, Any], recorded: dict[str, Any], compiler: str = "") -> Outcome:
    """A curve is equal where all its losses and its weights are."""
    if set(got) != set(recorded):
        raise AssertionError("the fixture holds other curves than tools/determinism/curves.py: make fixtures")
    differ = tuple(name for name, curve in recorded.items() if got[name] != curve)
    return Outcome(len(recorded), differ, compiler=compiler)


def outcome(cell: Cell, recorded: dict[str, Any]) -> Outcome:
    if why := cell.around.missing():
        return Outcome(not_run=why)
    if cell.kernel and cell.kernel not in kernels():
        return Outcome(not_run=f"this CPU has no {cell.kernel}")
    try:
        build = cell.build()
    except NotRunError as why_not:
        return Outcome(not_run=str(why_not), broken=isinstance(why_not, BuildFailedError))
    env = {**cell.around.env, **({"TOYNN_GEMM_KERNEL": cell.kernel} if cell.kernel else {})}
    with cell.around.company():
        got = compute(
            cell.n_threads, "--times", str(cell.around.times), python=build.python, prefix=cell.around.prefix, env=env
        )
    return compare(got, recorded, build.info["compiler"])


def kernels() -> list[str]:
    names: list[str] = []
    while (name := nn.tnn_gemm_kernel_at(len(names))) is not None:
        names.append(name)
    return names


# ---------------------------------------------------------------- the cells


def cells(builds: Builds, pythons: dict[str, Path]) -> dict[str, list[Cell]]:
    """By table."""
    tables: dict[str, list[Cell]] = {}
    compiled = [(c, t) for t in ("Release", "Debug") for c in ("gcc", "clang")]
    tables["Compilers and threads"] = [
        Cell(f"{compiler} {build_type}", f"{n} threads" if n > 1 else "1 thread",
             lambda c=compiler, t=build_type: builds.of(c, t), n)  # type: ignore[misc]
        for compiler, build_type in compiled for n in (1, 2, 3, 4)
    ]  # fmt: skip
    tables["Compilers and kernels of the matrix product"] = [
        Cell(f"{compiler} {build_type}", kernel, lambda c=compiler, t=build_type: builds.of(c, t), kernel=kernel)  # type: ignore[misc]
        for compiler, build_type in compiled for kernel in ("v8", "avx512")
    ]  # fmt: skip
    packaged: dict[str, Callable[[], Installed]] = {
        "wheel of the source tree": lambda: builds.of("gcc", "Release"),
        "wheel of the sdist": lambda: builds.of("gcc", "Release", from_sdist=True),
        "editable": builds.editable,
    }
    tables["Ways to install"] = [Cell(name, "equal", build) for name, build in packaged.items()]
    tables["Pythons, one wheel"] = [
        Cell(f"CPython {version}", "equal", lambda p=python: builds.of("gcc", "Release", p))  # type: ignore[misc]
        for version, python in sorted(pythons.items(), key=lambda item: [int(n) for n in item[0].split(".")])
    ]
    tables["Memory, time, company"] = [
        Cell(around.name, "equal", lambda: builds.of("gcc", "Release"), around=around) for around in SURROUNDINGS
    ]
    tables["Not promised"] = [
        Cell(f"{OTHER_LIBM.name}, {c}", "equal", lambda c=c: builds.of(c, "Release"), around=OTHER_LIBM, promised=False)  # type: ignore[misc]
        for c in ("gcc", "clang")
    ]
    return tables


# ---------------------------------------------------------------- the page


def table(title: str, done: list[tuple[Cell, Outcome]]) -> Iterator[str]:
    """Rows by name, columns as the cells have them."""
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
    """The generated part of the page."""
    promised = [out for done in results.values() for cell, out in done if cell.promised]
    ran = [out for out in promised if not out.not_run]
    equal = [out for out in ran if not out.differ]
    compilers = sorted({out.compiler for out in ran})
    libc = " ".join(part for part in platform.libc_ver() if part)
    of_all = f"all {max((out.total for out in ran), default=0)} curves of the fixture"
    profile = toynn.build_info()["profile"]
    summary = (
        f"**{len(equal)} of {len(ran)} cells are equal bit for bit**, {len(promised) - len(ran)} not run.\n"
        f"A cell is {of_all}, every loss and the sha256 of the weights, in a process of its own."
    )
    machine = f"{', '.join(compilers)}, {libc}, {os.cpu_count()} cores, profile {profile}"
    made_by = f"Made by `make determinism-matrix` with {machine}."
    lines = [summary, made_by, ""]
    for title, done in results.items():
        lines += table(title, done)
    return "\n".join(lines).rstrip() + "\n"


def put(page: str, part: str) -> str:
    """The page with its generated part replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{part}{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, action="append", default=[], help="another interpreter; may be repeated")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "determinism", help="where builds are kept")
    parser.add_argument("--table", action="append", help="run this table only, by its title; may be repeated")
    parser.add_argument("--anew", action="store_true", help="run cells too that were run before, on the same source")
    parser.add_argument("--print", action="store_true", help="print the part of the page instead of writing it")
    asked = parser.parse_args()
    recorded: dict[str, Any] = json.loads(fixture_path().read_text(encoding="utf-8"))["curves"]
    builds = Builds(asked.folder.resolve())
    journal = Journal(asked.folder.resolve() / "outcomes.jsonl", source_digest())
    results: dict[str, list[tuple[Cell, Outcome]]] = {}
    tables = cells(builds, found_pythons(asked.python))
    if unknown := sorted(set(asked.table or []) - set(tables)):
        parser.error(f"--table: there is no {unknown[0]!r}; the tables are: {'; '.join(tables)}")
    if asked.table and not asked.print:
        parser.error("--table needs --print: the page holds all tables or is left as it is")
    for title, of_table in tables.items():
        results[title] = []
        for cell in of_table:
            out = None if asked.anew else journal.read(title, cell.row, cell.column)
            if out is None and asked.table and title not in asked.table:
                out = Outcome(not_run="not asked for")
            if out is None:
                start = time.monotonic()
                out = outcome(cell, recorded)
                journal.add(title, cell.row, cell.column, out)
                seconds = time.monotonic() - start
                print(f"{cell.row}, {cell.column}: {out} ({seconds:.0f} s)", file=sys.stderr, flush=True)
            results[title].append((cell, out))
    part = report(results)
    if asked.print:
        print(part)
    else:
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), part), encoding="utf-8")
    bad = any(out.bad for done in results.values() for cell, out in done if cell.promised)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

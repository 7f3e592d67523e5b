"""A journal of the outcomes of the determinism matrix, so that an interrupted run continues where it stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from paths import ROOT

# The files that affect the outcome of a cell of the matrix.
SOURCES = (
    "CMakeLists.txt", "csrc/**/*.*", "vendor/ggml.lock", "src/toynn/**/*.py", "examples/data/tokens.json",
    "tools/determinism/curves.py", "tools/determinism/conditions.py", "tools/paths.py", "tests/fixtures/*",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The result of one cell.

    Attributes:
        total: number of curves that were compared.
        differ: names of the curves that differ from the fixture.
        not_run: why the cell was not run, or "".
        compiler: name and version of the compiler of the build.
        broken: the cell was not run because toynn does not build, which counts as a failure.
    """

    total: int = 0
    differ: tuple[str, ...] = ()
    not_run: str = ""
    compiler: str = ""
    broken: bool = False

    @property
    def bad(self) -> bool:
        return bool(self.differ) or self.broken

    @property
    def equal(self) -> int:
        return self.total - len(self.differ)

    def __str__(self) -> str:
        return f"not run: {self.not_run}" if self.not_run else f"{self.equal}/{self.total}"


def source_digest() -> str:
    """Return the sha256 of the names and bytes of SOURCES."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class Journal:
    """A file with one JSON object per line.

    Entries that another version of the source code wrote are ignored, and cells that were not run are not added.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source = path, source

    def read(self, table: str, row: str, column: str) -> Outcome | None:
        """Return the latest outcome of a cell, or None if the cell was not run."""
        if not self._path.exists():
            return None
        found = None
        for line in self._path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if [self._source, table, row, column] == entry["cell"]:
                found = Outcome(**{**entry["outcome"], "differ": tuple(entry["outcome"]["differ"])})
        return found

    def add(self, table: str, row: str, column: str, out: Outcome) -> None:
        if out.not_run:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"cell": [self._source, table, row, column], "outcome": asdict(out)}) + "\n")

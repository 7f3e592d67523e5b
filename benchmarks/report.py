"""Write the measurements as Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import machine
from benchmarks.measure import IN_BF16, LABELS, MATMULS, REFERENCE, Row, quartiles, ratios
from benchmarks.program_process import ProgramError
from benchmarks.shapes import SHAPES

BEGIN = "<!-- bench: what follows is written by `{command}` -->"
END = "<!-- bench: end -->"


@dataclass
class Run:
    """The results of one benchmark run.

    Attributes:
        peaks: GFLOP/s by the number of threads and by the names of MATMULS.
        load: the load average at the start, the largest one if the rows were measured in several runs.
    """

    rows: list[Row]
    peaks: dict[int, dict[str, float]]
    load: float

    def sort(self) -> None:
        """Sort the rows by shape and number of threads."""
        names = list(SHAPES)
        self.rows.sort(key=lambda row: (names.index(row.shape.name), row.threads))

    def see_peak(self, threads: int, gflops: dict[str, float]) -> None:
        """Add a measurement of the peak, and keep the best value of each library."""
        so_far = self.peaks.setdefault(threads, gflops)
        self.peaks[threads] = {name: max(value, so_far[name]) for name, value in gflops.items()}

    def beside(self, row: Row) -> dict[str, Row]:
        """Return the measured rows with the same shape and number of threads, by the name of their program."""
        group = (row.shape.name, row.threads)
        return {one.program: one for one in self.rows if (one.shape.name, one.threads) == group and one.rounds}

    def reference(self, row: Row) -> Row:
        """Return the row of toynn in f32 for the same shape and threads."""
        return self.beside(row)[REFERENCE]


def markdown(run: Run) -> str:
    parts = [heading(run), _peaks(run), _speed(run), _best(run), _memory(run)]
    return "\n\n".join(part for part in parts if part)


def write_markdown(text: str, path: Path, command: str = "make bench") -> None:
    """Write the text between the markers of the command on the page. Create the page if it does not exist."""
    marker = BEGIN.format(command=command)
    page = path.read_text(encoding="utf-8") if path.exists() else f"{marker}\n{END}\n"
    before, begin, rest = page.partition(marker)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"{path.name} must contain the lines {marker!r} and {END!r}, between which the text is written"
        )
    path.write_text(f"{before}{marker}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def write_json(run: Run, path: Path) -> None:
    """Write all samples: the seconds of each step, one list per turn."""
    rows = [
        {
            "shape": row.shape.name,
            "threads": row.threads,
            "program": row.program,
            "import_s": round(row.import_s, 4),
            "first_loss_s": round(row.first_loss_s, 4),
            "rss_import": row.rss_import,
            "peak_rss": row.peak_rss,
            "version": row.version,
            "note": row.note,
            "rounds": [[round(second, 7) for second in turn] for turn in row.rounds],
        }
        for row in run.rows
    ]
    head = {"machine": machine.description(), "versions": _versions(run), "load": run.load, "peak_gflops": run.peaks}
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")


def read_json(path: Path) -> Run:
    """Return the measurements that `write_json` has written.

    Raises ProgramError if they are from another machine.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["machine"] != machine.description():
        raise ProgramError(
            f"{path.name} has measurements of another machine ({content['machine']}); leave out --add to replace them"
        )
    rows = [Row(**{**row, "shape": SHAPES[row["shape"]]}) for row in content["rows"]]
    return Run(rows, {int(threads): peak for threads, peak in content["peak_gflops"].items()}, content["load"])


def _versions(run: Run) -> list[str]:
    return sorted({row.version for row in run.rows if row.version}, reverse=True)


def heading(run: Run) -> str:
    day = datetime.now(timezone.utc).date().isoformat()
    lines = [f"Measured on {day}: {machine.description()}.", *(f"{version}." for version in _versions(run))]
    lines.append(f"Load average at the start: {run.load:.2f}.")
    return "  \n".join(lines)


def _peaks(run: Run) -> str:
    lines = ["| threads | " + " | ".join(f"{label}, GFLOP/s" for label in MATMULS.values()) + " |"]
    lines.append("| --: |" + " --: |" * len(MATMULS))
    for threads, peak in run.peaks.items():
        lines.append(f"| {threads} | " + " | ".join(f"{peak[name]:.0f}" for name in MATMULS) + " |")
    return "\n".join(lines)


def _speed(run: Run) -> str:
    lines = [
        "| shape | threads | | step, ms | minimum | quartiles | tokens/s | GFLOP/s | of peak | speedup of toynn |",
        "| :-- | --: | :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in run.rows:
        start = f"| {row.shape.name} | {row.threads} | {LABELS[row.program]} |"
        if not row.rounds:
            lines.append(f"{start} {row.note} |" + " |" * 6)
            continue
        low, median, high = (1e3 * value for value in quartiles(row.seconds))
        gflops = 1e-9 * row.shape.step_flop / row.median_s
        cells = [
            _ms(median),
            _ms(1e3 * min(row.seconds)),
            f"{_ms(low)} - {_ms(high)}",
            f"{row.shape.tokens / row.median_s:.0f}",
            f"{gflops:.1f}",
            f"{gflops / max(run.peaks[row.threads].values()):.0%}",
            speedup(row, run.reference(row)),
        ]
        lines.append(f"{start} " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _best(run: Run) -> str:
    """Return a table that compares toynn with the fastest program of PyTorch for each shape; "" without PyTorch."""
    lines = [
        "| shape | threads | fastest program of PyTorch | step, ms | speedup of toynn | speedup of toynn in bfloat16 |",
        "| :-- | --: | :-- | --: | --: | --: |",
    ]
    for row in run.rows:
        beside = run.beside(row)
        of_torch = [one for name, one in beside.items() if name.startswith("torch")]
        if row.program != REFERENCE or not of_torch:
            continue
        best = min(of_torch, key=lambda one: one.median_s)
        lines.append(
            f"| {row.shape.name} | {row.threads} | {LABELS[best.program]} | {_ms(1e3 * best.median_s)} | "
            f"{speedup(best, row)} | {speedup(best, beside.get(IN_BF16))} |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""


def _memory(run: Run) -> str:
    lines = [
        "| shape | threads | | import, s | first loss, s | after import, MiB | peak, MiB | peak of toynn / this |",
        "| :-- | --: | :-- | --: | --: | --: | --: | --: |",
    ]
    for row in run.rows:
        if not row.rounds:
            continue
        lines.append(
            f"| {row.shape.name} | {row.threads} | {LABELS[row.program]} | {row.import_s:.2f} | "
            f"{row.first_loss_s:.2f} | {row.rss_import / 2**20:.0f} | {row.peak_rss / 2**20:.0f} | "
            f"{run.reference(row).peak_rss / row.peak_rss:.2f} |"
        )
    return "\n".join(lines)


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def speedup(row: Row, reference: Row | None) -> str:
    """Return how much faster `reference` is than the program of a row, as median and quartiles over the turns.

    reference: the row of toynn in f32; None: toynn was not measured.
    """
    if reference is None:
        return "-"
    if row is reference:
        return "1"
    low, median, high = quartiles(ratios(row, reference))
    return f"{median:.2f} ({low:.2f} - {high:.2f})"

"""The table of samples that `toynn prepare` and `toynn info` print."""

from __future__ import annotations

from collections.abc import Iterable

from toynn.data.meta import DataMeta, SourceSamples

_COUNTS = ("samples", "tokens", "counted", "longest", "truncated", "dropped", "skipped")


def sample_table(meta: DataMeta) -> list[str]:
    """Return the lines of a table with a row for each source; no lines if the data was not made of samples."""
    found = [(source.name, source.samples) for source in meta.sources if source.samples is not None]
    if not found:
        return []
    rows = [["source", "format", "weight", *_COUNTS], *(_row(name, one) for name, one in found)]
    if len(found) > 1:
        totals = [_total(name, (one for _, one in found)) for name in _COUNTS]
        rows.append(["all", "", "", *totals])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*lines, ""]


def _row(name: str, samples: SourceSamples) -> list[str]:
    shown = name if len(name) <= 30 else f"{name[:13]}...{name[-14:]}"
    return [shown, samples.format, f"{samples.weight:g}", *(str(getattr(samples, count)) for count in _COUNTS)]


def _total(name: str, samples: Iterable[SourceSamples]) -> str:
    values = [getattr(one, name) for one in samples]
    return str(max(values) if name == "longest" else sum(values))

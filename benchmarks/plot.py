"""Draw the speed of toynn relative to the other programs, by shape and number of threads."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.measure import LABELS, REFERENCE, quartiles, ratios
from benchmarks.report import Run

mpl.use("agg")

_COLOURS = {
    "torch": "#d55e00",
    "torch-bf16": "#e69f00",
    "torch-compile": "#0072b2",
    "torch-compile-bf16": "#56b4e9",
    "toynn-per-head": "#999999",
    "toynn-bf16": "#009e73",
}
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16)


def draw(run: Run, path: Path) -> None:
    """Draw bars that start at 1, with error bars between the quartiles, on a logarithmic axis."""
    groups = list(dict.fromkeys((row.shape.name, row.threads) for row in run.rows))
    names = [name for name in LABELS if name != REFERENCE]
    width = 0.8 / len(names)
    figure = Figure(figsize=(14, 5), layout="constrained")
    axes = figure.subplots()
    shown, ends = set(), list[float]()
    for row in run.rows:
        if row.program == REFERENCE or not row.rounds:
            continue
        low, median, high = quartiles(ratios(row, run.reference(row)))
        x = groups.index((row.shape.name, row.threads)) + (names.index(row.program) - (len(names) - 1) / 2) * width
        label = None if row.program in shown else LABELS[row.program]
        shown.add(row.program)
        ends += [low, high]
        axes.bar(x, median - 1, width, bottom=1, color=_COLOURS[row.program], label=label)
        axes.errorbar(x, median, [[median - low], [high - median]], color="black", linewidth=1)
        axes.annotate(
            f"{median:.2f}", (x, max(high, 1)), xytext=(0, 3), textcoords="offset points", ha="center", size=8
        )
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_yticks(_TICKS)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    # the axis extends beyond the bars, so that small differences look small
    axes.set_ylim(min([0.5, *ends]) / 1.1, max([2.0, *ends]) * 1.2)
    axes.set_xticks(range(len(groups)), [f"{shape}\n{n} thread{'s' * (n > 1)}" for shape, n in groups])
    axes.set_ylabel("step time / step time of toynn\n(toynn is faster above 1)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})

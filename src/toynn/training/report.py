"""Write the plots of a run as PNG, and an HTML page with plots and numbers. Needs matplotlib (extra toynn[plot])."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from toynn.errors import FileFormatError
from toynn.extras import naming_the_extra
from toynn.storage.checkpoint.names import LOG
from toynn.storage.durable_files import replace_file
from toynn.storage.regular_files import naming_file, path_of, printable
from toynn.text.terminal_text import terminal_text
from toynn.training.diagnosis import advice_in_log
from toynn.training.events import PairFigures
from toynn.training.run_log import planned_steps, read_log

with naming_the_extra():
    from matplotlib.figure import Figure

PLOTS = ("loss", "learning_rate", "gradient_norm")
REPORT = "report.html"


@dataclass(frozen=True)
class _Curve:
    """One curve of a plot. pale: whether the curve is drawn in a pale color if the plot has other curves."""

    label: str
    steps: list[int]
    values: list[float]
    marker: str = ""
    pale: bool = False


def write_report(run: Path) -> list[Path]:
    """Write loss.png, learning_rate.png, gradient_norm.png and report.html into a run, and return their paths.

    Raises FileFormatError if the run has no log or the log has no steps, or OSError if a file cannot be read or
    written.
    """
    run = path_of("run", run)
    try:
        events = read_log(run / LOG)
    except FileNotFoundError:
        raise FileFormatError(f"{run} has no {LOG}, so it is not a trained run; give the folder of a run") from None
    steps = _of(events, "stepped")
    if not steps:
        raise FileFormatError(f"{run / LOG} contains no training steps yet; wait until the run has taken a step")
    evaluations = _of(events, "evaluated")
    pictures = {
        "loss": _picture(_loss_title(steps), _loss_curves(steps, evaluations)),
        "learning_rate": _picture("learning rate", [_curve("learning rate", steps, "learning_rate")]),
        "gradient_norm": _picture(
            "gradient norm before clipping", [_curve("gradient norm", steps, "gradient_norm")], log=True
        ),
    }
    written = []
    for name in PLOTS:
        path = run / f"{name}.png"
        with naming_file(path):
            replace_file(path, pictures[name])
        written.append(path)
    with naming_file(run / REPORT):
        replace_file(run / REPORT, _page(printable(Path(run.resolve().name)), events, pictures).encode("utf-8"))
    return [*written, run / REPORT]


# ---- plots ----


def _of(events: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event["event"] == kind]


def _curve(
    label: str, events: Sequence[Mapping[str, Any]], field: str, marker: str = "", *, pale: bool = False
) -> _Curve:
    return _Curve(label, [event["step"] for event in events], [event[field] for event in events], marker, pale)


def _of_pairs(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events that have the rewards of preference pairs."""
    return [event for event in events if event.get("reward_margin") is not None]


def _loss_title(steps: Sequence[Mapping[str, Any]]) -> str:
    return "loss, mean of a pair" if _of_pairs(steps) else "loss, nats per token"


def _loss_curves(steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> list[_Curve]:
    return _curves_of(steps, evaluations, "loss")


def _curves_of(
    steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], field: str, name: str = ""
) -> list[_Curve]:
    """Return the curves of a figure: for each step, smoothed if there are many steps, and for each evaluation.

    name: the beginning of the labels of the curves, for example "chosen, ".
    """
    curves = [_curve(f"{name}training, per step", steps, field, pale=True)]
    if len(steps) >= 100:
        curves.append(_smooth(curves[0], len(steps) // 50 * 2 + 1, name))
    if evaluations:
        curves.append(_curve(f"{name}validation", evaluations, field, "o"))
    return curves


def _smooth(curve: _Curve, width: int, name: str = "") -> _Curve:
    """Return a curve with the mean over up to `width` steps around each step of the given curve.

    Near the start, the mean is over fewer steps: the same number before and after the step. With more steps after the
    step, the mean would be too low, because the loss falls fastest at the start. Near the end, the mean is over fewer
    steps after the step than before the step. The loss is almost constant there, and a mean over only a few steps would
    be noisy.
    """
    sums = [0.0, *itertools.accumulate(curve.values)]
    values, last, half = [], len(curve.values) - 1, (width - 1) // 2
    for i in range(len(curve.values)):
        first, end = i - min(half, i), i + min(half, i, last - i) + 1
        values.append((sums[end] - sums[first]) / (end - first))
    return _Curve(f"{name}training, mean of {width} steps", curve.steps, values)


def _picture(title: str, curves: Sequence[_Curve], *, log: bool = False, legend: bool = False) -> bytes:
    """Return a plot as PNG. log: whether the values have a logarithmic axis. legend: draw a legend even if there is
    only one curve.
    """
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        is_pale = curve.pale and len(curves) > 1 and len(curve.steps) > 1
        axes.plot(curve.steps, curve.values, label=curve.label, marker=curve.marker or None, markersize=4,
                  linewidth=1.0 if is_pale else 1.6, alpha=0.4 if is_pale else 1.0)  # fmt: skip
    if log:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    if len(curves) > 1 or legend:
        for text in axes.legend().get_texts():
            text.set_parse_math(False)  # a file name may contain $
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the font may lack the characters of a file name
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


# ---- the page ----

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem 1rem .15rem 0; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } img { max-width: 100%; }
pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; }
td.text { white-space: pre-wrap; vertical-align: top; } td.text b { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } pre { background: #242424; } img { filter: invert(.9) hue-rotate(180deg); }
}
</style></head><body>
<h1>$title</h1>
<table>$summary</table>
$advice
<h2>Loss</h2><img alt="Loss by step" src="$loss">
<h2>Learning rate</h2><img alt="Learning rate by step" src="$learning_rate">
<h2>Gradient norm</h2><img alt="Gradient norm by step" src="$gradient_norm">
$evaluations
$pairs
$sources
$samples
<h2>Configuration</h2><pre>$config</pre>
</body></html>
""")


def _page(title: str, events: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> str:
    started = _of(events, "started")[-1:] or [{}]
    evaluations = _of(events, "evaluated")
    images = {name: _embedded(png) for name, png in pictures.items()}
    return _PAGE.substitute(
        images,
        title=html.escape(title),
        summary=_rows(_summary(events)),
        advice=_advice(events),
        evaluations=_evaluations(evaluations) if evaluations else "",
        pairs=_pairs(_of(events, "stepped"), evaluations),
        sources=_sources(evaluations),
        samples=_samples(evaluations),
        config=html.escape(str(started[0].get("config", ""))),
    )


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _summary(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    steps, evaluations, ended = _of(events, "stepped"), _of(events, "evaluated"), _of(events, "ended")
    started = (_of(events, "started")[-1:] or [{}])[0]
    busy = sum(float(step["seconds"]) for step in steps)
    rows = [
        ("steps", f"{steps[-1]['step']} of {planned_steps(events) or '?'}"),
        ("ended", str(ended[-1]["reason"]) if ended else "still running, or killed"),
        ("parameters", f"{started.get('parameters', 0) / 1e6:.2f} M"),
        ("tokens read", f"{steps[-1]['tokens']:,}"),
        ("epochs", f"{steps[-1].get('epoch', 0.0):.2f}"),
        ("last training loss", f"{steps[-1]['loss']:.4f}"),
        ("tokens per second", f"{steps[-1]['tokens'] / busy if busy else 0:,.0f}"),
        ("time in steps", f"{busy:.1f} s"),
    ]
    if evaluations:
        best = min(evaluations, key=lambda one: float(one["loss"]))
        rows.append(("best validation loss", f"{best['loss']:.4f} at step {best['step']}"))
    return rows


def _advice(events: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the signs that the run trained badly, each with the step after which it was found."""
    found = advice_in_log(events)
    rows = [f'<tr><td class="n">{one.step}</td><td>{html.escape(str(one))}</td></tr>' for one in found]
    return f"<h2>Advice</h2><table><tr><th>step</th><th>advice</th></tr>{''.join(rows)}</table>" if rows else ""


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)


def _evaluations(evaluations: Sequence[Mapping[str, Any]]) -> str:
    head = "<tr><th>step</th><th>loss</th><th>perplexity</th><th>bits per byte</th></tr>"
    lines = []
    for one in evaluations:
        perplexity = "-" if one["perplexity"] is None else f"{one['perplexity']:.3f}"
        bits = "-" if one["bits_per_byte"] is None else f"{one['bits_per_byte']:.4f}"
        cells = (str(one["step"]), f"{one['loss']:.4f}", perplexity, bits)
        lines.append("<tr>" + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>")
    return f"<h2>Evaluations</h2><table>{head}{''.join(lines)}</table>"


def _sources(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return a plot and a table of the validation loss of each source, and the training tokens read from it."""
    losses: dict[str, list[tuple[int, float]]] = {}
    tokens: dict[str, int] = {}
    for one in evaluations:
        for name, loss, read in zip(
            one.get("sources", ()), one.get("source_losses", ()), one.get("source_tokens", ()), strict=False
        ):
            tokens[name] = read
            losses.setdefault(name, []).extend([] if loss is None else [(one["step"], loss)])
    if not losses:
        return ""
    curves = [
        _Curve(f"loss of {name}", [step for step, _ in curve], [loss for _, loss in curve], "o")
        for name, curve in losses.items()
        if curve
    ]
    picture = _embedded(_picture(f"validation {_loss_title(evaluations)}", curves, legend=True)) if curves else ""
    head = "<tr><th>source</th><th>last loss</th><th>lowest loss</th><th>tokens read</th></tr>"
    rows = []
    for name, curve in losses.items():
        last, lowest = (f"{curve[-1][1]:.4f}", f"{min(loss for _, loss in curve):.4f}") if curve else ("-", "-")
        cells = "".join(f'<td class="n">{cell}</td>' for cell in (last, lowest, f"{tokens[name]:,}"))
        rows.append(f"<tr><td>{html.escape(terminal_text(name))}</td>{cells}</tr>")
    image = f'<img alt="Validation loss of each source by step" src="{picture}">' if picture else ""
    return f"<h2>Sources</h2>{image}<table>{head}{''.join(rows)}</table>"


def _pairs(steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return plots of the rewards of preference pairs, and a table of rewards and log-probabilities by evaluation."""
    steps, evaluations = _of_pairs(steps), _of_pairs(evaluations)
    if not steps:
        return ""
    plots = {
        "rewards": ("mean reward", ("chosen", "rejected")),
        "margins": ("mean reward margin", ("margin",)),
        "accuracy": ("share of pairs with a margin above 0", ("accuracy",)),
    }
    images = []
    for plot, (title, names) in plots.items():
        curves = [
            curve
            for name in names
            for curve in _curves_of(steps, evaluations, f"reward_{name}", f"{name}, " if len(names) > 1 else "")
        ]
        images.append(f'<img alt="{plot.capitalize()} by step" src="{_embedded(_picture(title, curves))}">')
    fields = [field.name for field in dataclasses.fields(PairFigures)]
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("step", *fields))
    rows = []
    for one in evaluations:
        cells = [str(one["step"]), *("-" if one.get(name) is None else f"{one[name]:.4f}" for name in fields)]
        rows.append("<tr>" + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>")
    table = f"<table><tr>{head}</tr>{''.join(rows)}</table>" if rows else ""
    return f"<h2>Preference pairs</h2>{''.join(images)}{table}"


def _samples(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the texts that the model wrote at each evaluation, with a part for each prompt."""
    texts: dict[str, list[tuple[int, str]]] = {}
    for one in evaluations:
        for prompt, text in zip(one.get("prompts", ()), one.get("samples", ()), strict=False):
            texts.setdefault(prompt, []).append((one["step"], text))
    if not texts:
        return ""
    rows = []
    for prompt, written in texts.items():
        begin = f"<b>{html.escape(terminal_text(prompt))}</b>"
        rows += [
            f'<tr><td class="n">{step}</td><td class="text">{begin}{html.escape(terminal_text(text))}</td></tr>'
            for step, text in written
        ]
    return f"<h2>Texts</h2><table><tr><th>step</th><th>prompt and continuation</th></tr>{''.join(rows)}</table>"
